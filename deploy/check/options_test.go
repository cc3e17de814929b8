package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// binary builds the program as it is here.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "realtime")
	if out, err := run(t.Context(), nil, "go", "build", "-o", path, "./cmd/realtime"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// certificate stands for the files of a pod.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for _, path := range []string{cert, key} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// What is set is judged by the program itself, as it would at its start: unknown options, values that do not fit.
func TestNodesUnderstandWhatTheyAreTold(t *testing.T) {
	places := map[string][]string{}
	for k, v := range compose(t).Services["realtime"].Environment {
		places["docker-compose.yml"] = append(places["docker-compose.yml"], k+"="+*v)
	}
	cert, key := certificate(t)
	for _, e := range cluster(t).deployment.Spec.Template.Spec.Containers[0].Env {
		value := e.Value
		switch {
		case e.Name == "REALTIME_REDIS_URL":
			value = "rediss://realtime:PASSWORD@redis.internal:6379"
		case e.ValueFrom != nil:
			value = "0123456789abcdefghijklmnopqrstuv"
		}
		value = strings.NewReplacer("/tls/tls.crt", cert, "/tls/tls.key", key).Replace(value)
		places["deploy/kubernetes.yaml"] = append(places["deploy/kubernetes.yaml"], e.Name+"="+value)
	}
	program := binary(t)
	for place, env := range places {
		if len(env) < 10 {
			t.Errorf("%s sets %v only", place, env)
		}
		if out, err := run(t.Context(), env, program, "config"); err != nil {
			t.Errorf("%s: %v\n%s", place, err, out)
		}
		if out, err := run(t.Context(), append(env, "REALTIME_EDGE_ADRR=x"), program, "config"); err == nil || !strings.Contains(out, "ADRR") {
			t.Errorf("%s: a wrong option is not found: %v\n%s", place, err, out)
		}
	}
}

// Options that operations.md names are options.
func TestTheOperatorsPageNamesOptionsThatAreThere(t *testing.T) {
	readme := string(read(t, "README.md"))
	for _, m := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(string(read(t, "docs/operations.md")), -1) {
		if !strings.Contains(readme, "| `"+m[1]+"` |") {
			t.Errorf("%s is no option", m[1])
		}
	}
}
