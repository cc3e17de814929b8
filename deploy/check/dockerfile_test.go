package check

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"
)

// bases answers for images that nobody has at hand: they are there, and say nothing of themselves.
type bases struct{}

func (bases) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.FromString(ref), []byte(`{"architecture":"amd64","os":"linux","config":{}}`), nil
}

// lint says what BuildKit has against a Dockerfile.
func lint(t *testing.T, file []byte) (faults []string) {
	t.Helper()
	source := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", file)
	source.Definition = &llb.Definition{} // else it would be made of the state, and there is none
	results, err := dockerfile2llb.DockerfileLint(t.Context(), file, dockerfile2llb.ConvertOpt{SourceMap: source, MetaResolver: bases{}})
	if err != nil {
		t.Fatal(err)
	}
	if results.Error != nil {
		faults = append(faults, results.Error.Message)
	}
	for _, w := range results.Warnings {
		faults = append(faults, w.RuleName+": "+w.Detail)
	}
	return faults
}

func TestTheDockerfileIsAsBuildKitWantsIt(t *testing.T) {
	if faults := lint(t, read(t, "Dockerfile")); len(faults) > 0 {
		t.Errorf("the Dockerfile:\n%s", strings.Join(faults, "\n"))
	}
	for name, bad := range map[string]string{
		"no instruction": "FROM scratch\nRUNN x\n",
		"a bad style":    "from scratch AS a\nCOPY b /b\nFROM a as B\nMAINTAINER x\n",
		"no such stage":  "FROM scratch\nCOPY --from=none x\n",
	} {
		if len(lint(t, []byte(bad))) == 0 {
			t.Errorf("%s: nothing is said", name)
		}
	}
}

func TestTheImageIsOneFileThatNobodyPrivilegedRuns(t *testing.T) {
	parsed, err := parser.Parse(strings.NewReader(string(read(t, "Dockerfile"))))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`:\d+\.\d+\.\d+(-|@|$)`)
	for _, s := range stages {
		if s.BaseName != "scratch" && !pinned.MatchString(s.BaseName) {
			t.Errorf("FROM %s names no exact version", s.BaseName)
		}
	}
	last := stages[len(stages)-1]
	if last.BaseName != "scratch" {
		t.Errorf("the image is made from %s", last.BaseName)
	}
	has := make(map[string]string)
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			has["USER"] = c.User
		case *instructions.HealthCheckCommand:
			has["HEALTHCHECK"] = strings.Join(c.Health.Test, " ")
		case *instructions.EntrypointCommand:
			has["ENTRYPOINT"] = strings.Join(c.CmdLine, " ")
		case *instructions.RunCommand, *instructions.VolumeCommand:
			has["RUN or VOLUME"] = c.Name()
		}
	}
	want := map[string]string{"USER": "65532:65532", "HEALTHCHECK": "CMD /realtime healthcheck", "ENTRYPOINT": "/realtime"}
	for name, text := range want {
		if has[name] != text {
			t.Errorf("%s is %q, want %q", name, has[name], text)
		}
		delete(has, name)
	}
	for name, text := range has {
		t.Errorf("%s: %q", name, text)
	}
	static := slices.ContainsFunc(stages[0].Commands, func(c instructions.Command) bool {
		r, ok := c.(*instructions.RunCommand)
		return ok && strings.HasPrefix(strings.Join(r.CmdLine, " "), "CGO_ENABLED=0 go build ")
	})
	if !static {
		t.Error("the program is not built with CGO_ENABLED=0: scratch has no libraries for it")
	}
}
