package check

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// compose loads docker-compose.yml as docker would, with these variables and no others.
func compose(t *testing.T, env ...string) *types.Project {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	o, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")}, cli.WithWorkingDirectory(dir), cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestComposeStartsTwoNodesAndAllTheyNeed(t *testing.T) {
	p := compose(t)
	if got, want := p.ServiceNames(), []string{"grafana", "haproxy", "prometheus", "realtime", "redis"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	node := p.Services["realtime"]
	if got := node.GetScale(); got != 2 {
		t.Errorf("%d nodes", got)
	}
	if node.StopGracePeriod == nil || time.Duration(*node.StopGracePeriod) <= 25*time.Second {
		t.Errorf("nodes are killed after %v, while they still drain", node.StopGracePeriod)
	}
	if node.HealthCheck != nil {
		t.Error("the health check of the image is overruled")
	}
	pinned := regexp.MustCompile(`:v?\d+\.\d+\.\d+(-alpine)?$`)
	for name, s := range p.Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: %s names no exact version", name, s.Image)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q", name, port.Published, port.HostIP)
			}
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s keeps privileges", name)
		}
		if name != "grafana" && !s.ReadOnly { // it keeps its database beside itself
			t.Errorf("%s may write to its image", name)
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if !v.ReadOnly {
					t.Errorf("%s may write to %s", name, v.Source)
				}
				rel, err := filepath.Rel(filepath.Dir(p.ComposeFiles[0]), v.Source)
				if err != nil {
					t.Fatal(err)
				}
				if found, err := filepath.Glob(filepath.Join(root, rel)); err != nil || len(found) == 0 {
					t.Errorf("%s mounts %s, which is not there", name, rel)
				}
			}
		}
	}
}

// Everything secret can be said from outside, and then no trace of a default is left.
func TestComposeTakesEverySecretFromOutside(t *testing.T) {
	secrets := []string{"JWT_KEY", "GRPC_KEY", "REDIS_PASSWORD", "GRAFANA_PASSWORD"}
	var env []string
	for _, name := range secrets {
		env = append(env, name+"=Other"+strings.ReplaceAll(name, "_", ""))
	}
	shown := func(p *types.Project) string {
		y, err := p.MarshalYAML()
		if err != nil {
			t.Fatal(err)
		}
		return string(y)
	}
	if !strings.Contains(shown(compose(t)), "laptop") {
		t.Error("no default says that it is for a laptop only")
	}
	text := shown(compose(t, env...))
	for line := range strings.Lines(text) {
		if strings.Contains(line, "laptop") {
			t.Errorf("a default is left: %s", line)
		}
	}
	for _, e := range env {
		if _, value, _ := strings.Cut(e, "="); !strings.Contains(text, value) {
			t.Errorf("%s has no effect", e)
		}
	}
}

func TestTheBalancerAndPrometheusFindTheNodesOfCompose(t *testing.T) {
	node := compose(t).Services["realtime"]
	port := func(option string) string {
		v := node.Environment[option]
		if v == nil {
			t.Fatalf("%s is not set", option)
		}
		return (*v)[strings.LastIndex(*v, ":")+1:]
	}
	balancer, scrape := string(read(t, "deploy/haproxy.cfg")), string(read(t, "deploy/prometheus.yml"))
	for _, want := range []string{" realtime:" + port("REALTIME_EDGE_ADDR"), " realtime:" + port("REALTIME_GRPC_ADDR"), "check port " + port("REALTIME_OPS_ADDR")} {
		if !strings.Contains(balancer, want) {
			t.Errorf("haproxy.cfg: no %q", want)
		}
	}
	if !strings.Contains(scrape, "names: [realtime]") || !strings.Contains(scrape, "port: "+port("REALTIME_OPS_ADDR")) {
		t.Error("prometheus.yml asks other nodes")
	}
	for _, m := range regexp.MustCompile(`server-template node (\d+)`).FindAllStringSubmatch(balancer, -1) {
		if n, err := strconv.Atoi(m[1]); err != nil || n < node.GetScale() {
			t.Errorf("haproxy.cfg has room for %s nodes of %d", m[1], node.GetScale())
		}
	}
}
