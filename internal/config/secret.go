package config

// Secret is an option's value that is never shown: not in a log, a dump, an error or a debugger's %#v. What needs it
// converts it to a string.
type Secret string

const redacted = "[redacted]"

// String hides the value; an empty one is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides it from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides it in JSON, YAML and slog, also inside slices and structs, where a LogValue would not be asked.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
