package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
)

// File names a YAML file of options: its keys are the flags without their dashes. A flag and a variable that is set go before
// it, it goes before the defaults. What is in it is as strict as a command line: a key that is no option is an error.
type File string

// notInFile are flags that make no sense in a file.
var notInFile = []string{"help", "config"}

// BeforeResolve reads the file. kong calls it once flags and variables are known.
func (File) BeforeResolve(ctx *kong.Context, at *kong.Path) error {
	path, _ := ctx.FlagValue(at.Flag).(File)
	if path == "" {
		return nil
	}
	known := make(map[string]bool)
	for _, level := range ctx.Selected().AllFlags(false) {
		for _, f := range level {
			if !slices.Contains(notInFile, f.Name) {
				known[f.Name] = f.IsMap()
			}
		}
	}
	values, err := readFile(string(path), known)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		if v, ok := values[f.Name]; ok && !anySet(f.Envs) {
			return v, nil
		}
		return nil, nil //nolint:nilnil // so a resolver says that it has nothing
	}))
	return nil
}

func anySet(variables []string) bool {
	return slices.ContainsFunc(variables, func(name string) bool {
		_, set := os.LookupEnv(name)
		return set
	})
}

// readFile returns what a command line would say for each key; all that is wrong with them comes joined. known tells of each
// option whether it takes a map.
func readFile(path string, known map[string]bool) (map[string]string, error) {
	var raw map[string]any
	token := kong.Token{Type: kong.FlagValueToken, Value: path}
	err := kongyaml.YAMLFileMapper.Decode(&kong.DecodeContext{Scan: kong.ScanFromTokens(token)}, reflect.ValueOf(&raw).Elem())
	if err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		return nil, err
	}
	values := make(map[string]string)
	var errs []error
	for key, v := range raw {
		takesMap, ok := known[key]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %s is no option%s", path, key, suggest(key, slices.Sorted(maps.Keys(known)))))
			continue
		}
		switch v := v.(type) {
		case nil: // nothing said: the default
		case map[string]any:
			if !takesMap {
				errs = append(errs, fmt.Errorf("%s: %s takes a value, not a map", path, key))
				continue
			}
			pairs := make([]string, 0, len(v))
			for k, e := range v {
				pairs = append(pairs, fmt.Sprintf("%s=%v", k, e))
			}
			slices.Sort(pairs)
			values[key] = strings.Join(pairs, ";")
		case []any:
			all := make([]string, len(v))
			for i := range v {
				all[i] = fmt.Sprint(v[i])
			}
			values[key] = strings.Join(all, ",")
		default:
			values[key] = fmt.Sprint(v)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return values, errors.Join(errs...)
}
