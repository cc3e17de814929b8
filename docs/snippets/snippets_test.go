// Package snippets holds programs that publish and receive, in Go, Python and JavaScript, and the test that runs them.
package snippets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
)

const (
	key    = "a-key-that-only-the-tests-know"
	secret = "kD0v7Qy2mZr4tX9wBq1sLh6uEjAo3cNf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// language is how the snippets of one are run.
type language struct {
	name             string
	publish, session []string
	env              []string
}

// languages are those whose toolchain is at hand. Without Python's the test says so, but in CI all are needed.
func languages(t *testing.T) []language {
	t.Helper()
	goPrograms := build(t, "./go/publish", "./go/session")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: apt-get install nodejs npm")
	}
	if _, err := os.Stat("node/node_modules/ws/package.json"); err != nil {
		t.Fatal("docs/snippets/node/node_modules is missing: npm ci --prefix docs/snippets/node")
	}
	all := []language{
		{name: "go", publish: goPrograms[:1], session: goPrograms[1:]},
		{name: "node", publish: []string{node, "node/publish.js"}, session: []string{node, "node/session.js"}},
	}
	python, stubs, err := pythonWith(t)
	switch {
	case err == nil:
		all = append(all, language{
			name: "python", publish: []string{python, "python/publish.py"}, session: []string{python, "python/session.py"},
			env: []string{"PYTHONPATH=" + stubs, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"},
		})
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Logf("the snippets in Python are not run: %v", err)
	}
	return all
}

// pythonWith returns an interpreter that has what the snippets import, and a directory with the modules of the protos.
func pythonWith(t *testing.T) (python, stubs string, err error) {
	t.Helper()
	const packages = "apt-get install python3-grpcio python3-protobuf python3-websockets protobuf-compiler protobuf-compiler-grpc libprotobuf-dev"
	for _, python = range []string{"/usr/bin/python3", "python3"} { // Debian's packages are its own interpreter's
		if err = exec.CommandContext(t.Context(), python, "-c", "import grpc, google.protobuf, websockets").Run(); err == nil {
			break
		}
	}
	plugin, missing := exec.LookPath("grpc_python_plugin")
	if err = errors.Join(err, missing); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, packages)
	}
	stubs = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "protoc", "-I", "../../proto", "--python_out="+stubs, "--grpc_python_out="+stubs,
		"--plugin=protoc-gen-grpc_python="+plugin, "realtime/v1/types.proto", "realtime/v1/publisher.proto")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("protoc: %w: %s: %s", err, out, packages)
	}
	return python, stubs, nil
}

// build returns the programs made of main packages.
func build(t *testing.T, packages ...string) []string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", dir + "/"}, packages...)...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	programs := make([]string, len(packages))
	for i, p := range packages {
		programs[i] = filepath.Join(dir, filepath.Base(p))
	}
	return programs
}

// output is what a program has written so far.
type output struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(60 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// program is a snippet that runs, or a node.
type program struct {
	t        *testing.T
	out, err output
	ended    chan struct{}
	code     int
}

// start runs a program until the test ends, without what is set for another node.
func start(t *testing.T, env, command []string) *program {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &program{t: t, ended: make(chan struct{})}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "REALTIME_") && !strings.HasPrefix(kv, "OTEL_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = &p.out, &p.err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // the code tells
		p.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		stop()
		<-p.ended
		if t.Failed() {
			t.Logf("%s\n%s%s", command, p.out.String(), p.err.String())
		}
	})
	return p
}

// over tells whether the program has ended by itself.
func (p *program) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// end waits for that.
func (p *program) end() (code int) {
	p.t.Helper()
	eventually(p.t, "the program ends", p.over)
	return p.code
}

// node is a real one that takes tokens and keys.
type node struct{ sessions, backends string }

func serve(t *testing.T) node {
	t.Helper()
	bin := build(t, "../../cmd/realtime")[0]
	p := start(t, []string{"JWT=" + secret, "KEY=" + key}, []string{
		bin, "serve", "--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--jwt-key=env:JWT", "--grpc-key=env:KEY",
	})
	var n node
	eventually(t, "the node serves", func() bool {
		for line := range strings.Lines(p.out.String()) {
			switch words := strings.Fields(line); {
			case len(words) > 1 && words[0] == "sessions":
				n.sessions = strings.TrimSuffix(strings.TrimPrefix(words[1], "ws://"), "/ws/{room}")
			case len(words) > 1 && words[0] == "gRPC":
				n.backends = words[1]
			}
		}
		if p.over() {
			t.Fatal("the node has ended")
		}
		return n.sessions != "" && n.backends != ""
	})
	return n
}

// backend calls the node.
type backend struct {
	*testing.T
	conn *grpc.ClientConn
}

func (n node) backend(t *testing.T) backend {
	t.Helper()
	conn, err := grpc.NewClient(n.backends, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return backend{t, conn}
}

func (b backend) ctx() context.Context {
	return metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+key)
}

func (b backend) publish(room, data string) {
	b.Helper()
	req := &realtimev1.PublishRequest{Room: room, Message: &realtimev1.MessageContent{From: "test", Data: data}}
	if _, err := realtimev1.NewPublisherServiceClient(b.conn).Publish(b.ctx(), req); err != nil {
		b.Fatal(err)
	}
}

// kept are the data of the room's messages.
func (b backend) kept(room string) (all []string) {
	b.Helper()
	page, err := realtimev1.NewPublisherServiceClient(b.conn).GetHistory(b.ctx(), &realtimev1.GetHistoryRequest{Room: room})
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range page.GetMessages() {
		all = append(all, m.GetData())
	}
	return all
}

// infos are the public data of who is in the room.
func (b backend) infos(room string) (all []string) {
	b.Helper()
	page, err := realtimev1.NewPresenceServiceClient(b.conn).GetPresence(b.ctx(), &realtimev1.GetPresenceRequest{Room: room})
	if err != nil {
		b.Fatal(err)
	}
	for _, u := range page.GetUsers() {
		all = append(all, u.GetInfo())
	}
	return all
}

// giveToken writes a token to a file, from where the snippets take it.
func giveToken(t *testing.T, file string, life time.Duration, info string) {
	t.Helper()
	expires := time.Now().Add(life)
	token, err := auth.SignWith([]byte(secret), auth.Claims{User: "alice", IssuedAt: expires.Add(-time.Hour), Expires: expires, Info: []byte(info)})
	if err != nil {
		t.Fatal(err)
	}
	replace(t, file, token)
}

// replace leaves no moment at which the file is half written.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}
