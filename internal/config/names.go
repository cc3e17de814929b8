package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// prefix begins the variables that are ours.
const prefix = "REALTIME_"

// foreign are variables with our prefix that others set: Kubernetes, for each Service whose name begins with "realtime", and
// whoever keeps options for a command line in REALTIME_ARGS, as unit files do.
var foreign = regexp.MustCompile(`^REALTIME_(ARGS|(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?))$`)

// CheckVariables returns an error for each variable of environ, joined, that has our prefix and is no option of app: a
// misspelt one would be ignored in silence. It names the nearest that is, and never a value.
func CheckVariables(app *kong.Application, environ []string) error {
	var known []string
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error {
		if f, ok := v.(*kong.Flag); ok {
			known = append(known, f.Envs...)
		}
		return next(nil)
	})
	var errs []error
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, prefix) && !slices.Contains(known, name) && !foreign.MatchString(name) {
			errs = append(errs, fmt.Errorf("environment: %s is no option%s", name, suggest(name, known)))
		}
	}
	return errors.Join(errs...)
}

// suggest ends a message about an unknown name with the nearest known one, if one is near enough to have been meant.
func suggest(name string, known []string) string {
	best, least := "", 1+max(2, len(name)/4)
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

// distance is how many bytes must be changed, added or taken away to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
