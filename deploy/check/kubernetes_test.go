package check

import (
	"bytes"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifests are what deploy/kubernetes.yaml makes.
type manifests struct {
	deployment appsv1.Deployment
	services   []corev1.Service
	budget     policyv1.PodDisruptionBudget
}

// cluster reads the file as strictly as a cluster can be told to: unknown and repeated fields are errors.
func cluster(t *testing.T) (m manifests) {
	t.Helper()
	for doc := range bytes.SplitSeq(read(t, "deploy/kubernetes.yaml"), []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 Deployment":
			into = &m.deployment
		case "v1 Service":
			m.services = append(m.services, corev1.Service{})
			into = &m.services[len(m.services)-1]
		case "policy/v1 PodDisruptionBudget":
			into = &m.budget
		default:
			t.Fatalf("%s %s is not known here", kind.APIVersion, kind.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
	}
	return m
}

func TestTheManifestsFitEachOther(t *testing.T) {
	m := cluster(t)
	spec := m.deployment.Spec
	labels := spec.Template.Labels
	selects := func(what string, selector map[string]string) {
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s selects %s=%s, pods have %q", what, k, v, labels[k])
			}
		}
		if len(selector) == 0 {
			t.Errorf("%s selects everything", what)
		}
	}
	selects("the deployment", spec.Selector.MatchLabels)
	selects("the budget", m.budget.Spec.Selector.MatchLabels)
	selects("the spread", spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels)
	node := spec.Template.Spec.Containers[0]
	var ports []string
	for _, p := range node.Ports {
		ports = append(ports, p.Name)
	}
	for _, s := range m.services {
		selects(s.Name, s.Spec.Selector)
		for _, p := range s.Spec.Ports {
			if !slices.Contains(ports, p.TargetPort.String()) {
				t.Errorf("%s leads to the port %s, there are %v", s.Name, p.TargetPort.String(), ports)
			}
		}
	}
	if len(m.services) != 2 || m.services[1].Spec.ClusterIP != corev1.ClusterIPNone {
		t.Error("backends have no headless service")
	}
	if *spec.Replicas < 2 || m.budget.Spec.MaxUnavailable.IntValue() != 1 || spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Error("there may be no node for a while")
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": node.LivenessProbe, "/readyz": node.ReadinessProbe} {
		if probe == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != "ops" {
			t.Errorf("%s is not asked for", path)
		}
	}
	// REALTIME_DRAIN_DELAY and REALTIME_DRAIN_TIMEOUT
	if p := node.ReadinessProbe; p.PeriodSeconds*p.FailureThreshold > 5 {
		t.Error("a node that drains is noticed when it takes nobody any more")
	}
	if grace := *spec.Template.Spec.TerminationGracePeriodSeconds; grace <= 25 {
		t.Errorf("nodes are killed after %d s, while they still drain", grace)
	}
	if c, p := node.SecurityContext, spec.Template.Spec.SecurityContext; !*c.ReadOnlyRootFilesystem || *c.AllowPrivilegeEscalation || !*p.RunAsNonRoot || *p.RunAsUser != 65532 {
		t.Error("pods keep privileges")
	}
	if mode := spec.Template.Spec.Volumes[0].Secret.DefaultMode; *mode&0o007 != 0 {
		t.Errorf("everyone may read the key: %o", *mode)
	}
}
