package config

import (
	"encoding"
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// Show prints the options of the selected command, in the order of its help, as a file that --config reads back to the same
// values. What somebody said is a key, marked with where it was said: flag, environment or file. What nobody said is a comment
// with its default. Secrets and URLs with a password are comments too, without them: they have to be given again.
func Show(w io.Writer, ctx *kong.Context) error {
	origins := make(map[*kong.Flag]string)
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Resolved {
			origins[p.Flag] = "file"
		} else if p.Flag != nil {
			origins[p.Flag] = "flag"
		}
	}
	for _, f := range ctx.Selected().Flags {
		if slices.Contains(notInFile, f.Name) {
			continue
		}
		origin := origins[f]
		for _, name := range f.Envs {
			if _, set := os.LookupEnv(name); set && origin == "" {
				origin = "environment, " + name
			}
		}
		value, hidden := nodeOf(f.Target)
		begin, end := "", "  # "+origin
		switch {
		case origin == "":
			begin, end = "# ", "  # default"
			if f.HasDefault {
				value = &yaml.Node{Kind: yaml.ScalarNode, Value: f.Default}
			}
		case hidden:
			begin, end = "# ", end+"; not shown"
		}
		b, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: f.Name}, value}})
		if err != nil {
			return fmt.Errorf("--%s: %w", f.Name, err)
		}
		if _, err := fmt.Fprintf(w, "%s%s%s\n", begin, strings.TrimSpace(string(b)), end); err != nil {
			return err
		}
	}
	return nil
}

// nodeOf is a value on one line of YAML. What is hidden of it cannot be read back.
func nodeOf(v reflect.Value) (n *yaml.Node, hidden bool) {
	text := func(s string) *yaml.Node {
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
		if strings.ContainsAny(s, "\n\r") {
			n.Style = yaml.DoubleQuotedStyle
		}
		return n
	}
	switch x := v.Interface().(type) {
	case Secret:
		return text(x.String()), x != ""
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		if err != nil {
			return text(redacted), true
		}
		return text(string(b)), false
	case fmt.Stringer:
		return text(x.String()), false
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, false
		}
		return nodeOf(v.Elem())
	case reflect.Map:
		pairs := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			item, h := nodeOf(v.MapIndex(k))
			pairs.Content, hidden = append(pairs.Content, text(k.String()), item), hidden || h
		}
		return pairs, hidden
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			item, h := nodeOf(v.Index(i))
			list.Content, hidden = append(list.Content, item), hidden || h
		}
		return list, hidden
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatBool(v.Bool())}, false
	case reflect.String:
		s, hidden := withoutPassword(v.String())
		return text(s), hidden
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}, false
	}
}

// withoutPassword hides the password of a URL, and all of what may hold one but cannot be read.
func withoutPassword(s string) (shown string, hidden bool) {
	if !strings.Contains(s, "@") {
		return s, false
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.Count(s, "://") > 1 { // the last: an issuer and a URL, of which only the first would be read
		return redacted, true
	}
	if _, has := u.User.Password(); has {
		return u.Redacted(), true
	}
	return s, false
}
