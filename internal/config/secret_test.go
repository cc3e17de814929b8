package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestASecretIsNeverShown(t *testing.T) {
	type holder struct {
		Key  Secret
		Keys []Secret
	}
	h := holder{"hunter2", []Secret{"hunter2"}}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x\n", h, h, h, h.Key, h.Key, h.Key)
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(handler).Info("x", "key", h.Key, "keys", h.Keys, "holder", h)
	}
	if err := json.NewEncoder(&out).Encode(h); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("shown in:\n%s", s)
	}
	if !strings.Contains(out.String(), redacted) {
		t.Errorf("nothing tells that something is hidden:\n%s", out.String())
	}
	if got := fmt.Sprint(Secret("")); got != "" {
		t.Errorf("no secret is shown as %q", got)
	}
}
