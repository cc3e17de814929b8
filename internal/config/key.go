package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// Key says where a secret is: a file, or env:NAME for a variable of the environment. It is no secret itself.
type Key string

const (
	maxKeyBytes = 64 << 10 // of a file: what is larger is no key
	others      = 0o004    // the bit of a file's mode that lets everybody read it
)

// Read returns the secret, white space around it dropped. It must have at least so many bytes, and a file of its own must not
// be readable by everybody. The error names the place, never the value.
func (k Key) Read(least int) (Secret, error) {
	var value string
	if name, ok := strings.CutPrefix(string(k), "env:"); ok {
		if value, ok = os.LookupEnv(name); !ok {
			return "", fmt.Errorf("%s: the variable is not set", k)
		}
	} else {
		b, err := readKeyFile(string(k))
		if err != nil {
			return "", err
		}
		value = string(b)
	}
	if value = strings.TrimSpace(value); len(value) < least {
		return "", fmt.Errorf("%s: the key has %d bytes, at least %d are needed: openssl rand -hex 32 makes one", k, len(value), least)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s: the key has white space or characters that a header cannot carry", k)
	}
	return Secret(value), nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names the path
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&others != 0 {
		return nil, fmt.Errorf("%s: everybody may read it: chmod o-r", path)
	}
	var b bytes.Buffer
	if n, err := b.ReadFrom(io.LimitReader(f, maxKeyBytes+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	} else if n > maxKeyBytes {
		return nil, fmt.Errorf("%s: more than %d bytes are no key", path, maxKeyBytes)
	}
	return b.Bytes(), nil
}
