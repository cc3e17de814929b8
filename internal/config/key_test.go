package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAKeyIsReadFromAFileOrAVariable(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) Key {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return Key(path)
	}
	const hunter = "hunter2hunter2hu" // sixteen bytes
	t.Setenv("A_KEY", hunter)
	t.Setenv("A_SHORT_KEY", hunter[1:])
	t.Setenv("A_KEY_OF_TWO_LINES", hunter+"\r\n"+hunter)
	for name, c := range map[string]struct {
		key  Key
		want string // in the error; empty: none
	}{
		"a variable":                       {"env:A_KEY", ""},
		"a variable that is not set":       {"env:NO_KEY", "env:NO_KEY"},
		"a variable with a byte too few":   {"env:A_SHORT_KEY", "env:A_SHORT_KEY: the key has 15 bytes, at least 16"},
		"a variable with white space":      {"env:A_KEY_OF_TWO_LINES", "white space"},
		"a file":                           {file("good", hunter, 0o600), ""},
		"a file that the group may read":   {file("group", hunter, 0o640), ""},
		"a file with an end of line":       {file("line", hunter+"\r\n", 0o600), ""},
		"a file that everybody may read":   {file("open", hunter, 0o604), "everybody may read it"},
		"a file that is not there":         {Key(filepath.Join(dir, "none")), "none"},
		"a file with a byte too few":       {file("short", hunter[1:]+"\n", 0o600), "15 bytes, at least 16"},
		"a file with the bytes of a photo": {file("binary", hunter+"\xff\xd8", 0o600), "cannot carry"},
		"a file that is too large":         {file("large", strings.Repeat("a", 64<<10+1), 0o600), "no key"},
		"a directory":                      {Key(dir), dir},
		"nothing":                          {"", "open"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.key.Read(16)
			if c.want == "" && (err != nil || string(got) != hunter) {
				t.Errorf("Read(%q) fails: %v", c.key, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), hunter[:7]) || got != "") {
				t.Errorf("Read(%q) = %v, want it to say %q and not the value", c.key, err, c.want)
			}
		})
	}
}

func TestABadKeyForBackendsIsNamedByItsOption(t *testing.T) {
	t.Setenv("A_SHORT_KEY", "hunter2")
	for _, k := range []Key{"env:A_SHORT_KEY", "env:NO_KEY"} {
		cfg := good()
		cfg.GRPCKey = []Key{k}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--grpc-key: "+string(k)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Validate() = %v, want it to name --grpc-key and %s", err, k)
		}
	}
	rate := -1
	cfg := good()
	if cfg.GRPCRate = &rate; cfg.Validate() == nil {
		t.Error("a negative rate is taken")
	}
}

func TestKeysAloneDoNotOpenTheListener(t *testing.T) {
	t.Setenv("A_KEY", "0123456789abcdef")
	cfg := good()
	cfg.GRPCAddr = "0.0.0.0:9090"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "TLS and --grpc-key") {
		t.Errorf("Validate() = %v, want it to say what is missing", err)
	}
	cfg.GRPCKey = []Key{"env:A_KEY"}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "without TLS ") {
		t.Errorf("Validate() = %v, want it to say that TLS is missing: the key would be read on its way", err)
	}
	if cfg.GRPCInsecure = true; cfg.Validate() != nil {
		t.Errorf("Validate() = %v", cfg.Validate())
	}
}

func TestTheRateIsOffOnLoopbackUnlessSet(t *testing.T) {
	for addr, want := range map[string]int{"127.0.0.1:9090": 0, "[::1]:1": 0, "localhost:1": 0, "0.0.0.0:9090": 5000, ":9090": 5000} {
		got, err := parse(t, "--dev", "--grpc-insecure", "--grpc-addr", addr)
		if err != nil || got.GRPCRateLimit() != want {
			t.Errorf("at %s: %d, %v, want %d", addr, got.GRPCRateLimit(), err, want)
		}
		for text, want := range map[string]int{"0": 0, "7": 7} {
			if got, err = parse(t, "--dev", "--grpc-insecure", "--grpc-addr", addr, "--grpc-rate", text); err != nil || got.GRPCRateLimit() != want {
				t.Errorf("at %s with --grpc-rate %s: %d, %v", addr, text, got.GRPCRateLimit(), err)
			}
		}
	}
}
