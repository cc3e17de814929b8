package web

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestPageIsServedSoThatItCanLoadNothingElse(t *testing.T) {
	w := httptest.NewRecorder()
	Page().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d, want 200", w.Code)
	}
	for name, want := range map[string]string{
		"Content-Type":           "text/html; charset=utf-8",
		"Cache-Control":          "no-store",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	policy := make(map[string]string)
	for directive := range strings.SplitSeq(w.Header().Get("Content-Security-Policy"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), " ")
		policy[name] = value
	}
	for name, want := range map[string]string{
		"default-src":     "'none'",
		"script-src":      "'unsafe-inline'",
		"style-src":       "'unsafe-inline'",
		"connect-src":     "'self' ws: wss:",
		"img-src":         "data:",
		"base-uri":        "'none'",
		"form-action":     "'none'",
		"frame-ancestors": "'none'",
	} {
		if policy[name] != want {
			t.Errorf("Content-Security-Policy: %s %q, want %q", name, policy[name], want)
		}
	}
	if !strings.HasPrefix(w.Body.String(), "<!doctype html>") || w.Body.Len() != len(page) {
		t.Errorf("body of %d bytes, want the page's %d", w.Body.Len(), len(page))
	}
}

func TestPageReferencesNothingExternal(t *testing.T) {
	// The namespace is a name, not a place.
	html := strings.ReplaceAll(string(page), "http://www.w3.org/2000/svg", "")
	for _, pattern := range []string{`(?i)https?://`, `(?i)\bsrc\s*=`, `(?i)@import`, `(?i)\burl\(\s*[^)\s]`, `["'(=]\s*//\w`, `\bimport\b`, `\bfetch\([^"]`, `\bfetch\("[^/]`} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	for _, href := range regexp.MustCompile(`(?i)\bhref\s*=\s*"[^"]*`).FindAllString(html, -1) {
		if !strings.HasPrefix(href, `href="data:`) {
			t.Errorf("the page links to %s", href)
		}
	}
}

func TestPageNeverMakesHTMLOfData(t *testing.T) {
	for _, way := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "setHTML", "srcdoc", "DOMParser", "eval(", "new Function"} {
		if strings.Contains(string(page), way) {
			t.Errorf("the page uses %s", way)
		}
	}
}

func TestPageIsSmall(t *testing.T) {
	if len(page) >= 56_000 {
		t.Errorf("%d bytes, want less than 56,000", len(page))
	}
}

// TestPageInChromium runs test/*.test.js: the page in a browser, against a node that is built here.
func TestPageInChromium(t *testing.T) {
	t.Parallel()
	node, chromium := need(t, "node", "nodejs npm"), need(t, "chromium", "chromium")
	version, err := exec.CommandContext(t.Context(), node, "--version").Output()
	if err != nil {
		t.Fatalf("node --version: %v", err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 20 {
		t.Fatalf("node is %s, version 20 or later is needed", strings.TrimSpace(string(version)))
	}
	if _, err := os.Stat("test/node_modules/playwright-core/package.json"); err != nil {
		t.Fatal("web/test/node_modules is missing: npm ci --prefix web/test")
	}
	files, err := filepath.Glob("test/*.test.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test/*.test.js (%v)", err)
	}
	bin := filepath.Join(t.TempDir(), "realtime")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../cmd/realtime").CombinedOutput(); err != nil {
		t.Fatalf("go build ../cmd/realtime: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), node, append([]string{"--test", "--test-reporter=spec"}, files...)...)
	cmd.Env = append(os.Environ(), "WEB_TEST_BIN="+bin, "CHROMIUM="+chromium)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func need(t *testing.T, program, packages string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing: apt-get install %s", program, packages)
	}
	return path
}
