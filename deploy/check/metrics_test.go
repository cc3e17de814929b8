package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// metric is a row of docs/metrics.md.
type metric struct {
	kind, labels, row string
}

func documented(t *testing.T) map[string]metric {
	t.Helper()
	all := make(map[string]metric)
	for line := range strings.Lines(string(read(t, "docs/metrics.md"))) {
		cells := strings.Split(line, " | ")
		if name, ok := strings.CutPrefix(cells[0], "| `realtime_"); ok && len(cells) >= 4 {
			all["realtime_"+strings.TrimSuffix(name, "`")] = metric{kind: cells[1], labels: cells[3], row: line}
		}
	}
	if len(all) < 20 {
		t.Fatalf("docs/metrics.md has %d metrics only", len(all))
	}
	return all
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []rule `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict(read(t, "deploy/alerts.yml"), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

var (
	used     = regexp.MustCompile(`\b((?:realtime|process|go)_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// foreign are the labels that Prometheus adds, and histograms.
var foreign = []string{"instance", "job", "le"}

// faults tells what of a query docs/metrics.md does not know: metrics, their labels, and the values of these.
func faults(doc map[string]metric, page, query string) (all []string) {
	var groups []string // labels that its metrics must have one of
	for _, m := range used.FindAllStringSubmatch(query, -1) {
		name, row := m[1], metric{}
		if !strings.HasPrefix(name, "realtime_") {
			continue // the Prometheus library's
		}
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			base, has := strings.CutSuffix(name, suffix)
			if !has {
				continue
			}
			if found, ok := doc[base]; ok && (suffix != "") == (found.kind == "histogram") {
				row = found
			}
		}
		if row.row == "" {
			all = append(all, name+" is no metric")
			continue
		}
		groups = append(groups, row.labels)
		for _, by := range matcher.FindAllStringSubmatch(m[2], -1) {
			label, values := by[1], by[2]
			if slices.Contains(foreign, label) {
				continue
			}
			if !strings.Contains(row.labels, "`"+label+"`") {
				all = append(all, fmt.Sprintf("%s has no label %s", name, label))
			}
			for value := range strings.SplitSeq(values, "|") {
				if !strings.Contains(row.row, "`"+value+"`") && !strings.Contains(page, label+`="`+value+`"`) {
					all = append(all, fmt.Sprintf("%s: %s is never %q", name, label, value))
				}
			}
		}
	}
	for _, by := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(strings.ReplaceAll(by[1], " ", ""), ",") {
			known := slices.Contains(foreign, label) || slices.ContainsFunc(groups, func(labels string) bool {
				return strings.Contains(labels, "`"+label+"`")
			})
			if !known {
				all = append(all, fmt.Sprintf("no metric of %q has the label %s", query, label))
			}
		}
	}
	return all
}

func TestAlertsSpeakOfWhatIsMeasuredAndHaveARunbook(t *testing.T) {
	doc, page, runbooks := documented(t), string(read(t, "docs/metrics.md")), string(read(t, "docs/operations.md"))
	var names []string
	tests := string(read(t, "deploy/alerts_test.yml"))
	for _, r := range alerts(t) {
		names = append(names, r.Alert)
		for _, f := range faults(doc, page, r.Expr) {
			t.Errorf("%s: %s", r.Alert, f)
		}
		if want := "https://github.com/slack5/realtime/blob/main/docs/operations.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: its runbook is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		if !strings.Contains(runbooks, "\n### "+r.Alert+"\n") {
			t.Errorf("docs/operations.md has no section %s", r.Alert)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) {
			t.Errorf("%s does not say what is wrong, or how badly", r.Alert)
		}
		if !strings.Contains(tests, "alertname: "+r.Alert+"\n        exp_alerts:") || !strings.Contains(tests, "alertname: "+r.Alert+"}") {
			t.Errorf("%s: alerts_test.yml does not show it firing and silent", r.Alert)
		}
	}
	want := []string{"RedisDown", "ProbeStale", "OutboxGrowing", "GapsLost", "DeliveryLatencyP99", "SessionsNearLimit", "HookFailing", "AuthFailuresSpike"}
	if !slices.Equal(names, want) {
		t.Errorf("alerts %v, want %v", names, want)
	}
}

func TestTheOperatorsPageNamesMetricsThatAreThere(t *testing.T) {
	doc := documented(t)
	for _, m := range regexp.MustCompile("`(realtime_\\w+)").FindAllStringSubmatch(string(read(t, "docs/operations.md")), -1) {
		if _, ok := doc[m[1]]; !ok {
			t.Errorf("%s is no metric", m[1])
		}
	}
}

// target is a query of a panel.
type target struct {
	RefID        string         `json:"refId"`
	Datasource   map[string]any `json:"datasource"`
	Expr         string         `json:"expr"`
	LegendFormat string         `json:"legendFormat"`
}

type panel struct {
	ID          int            `json:"id"`
	Type        string         `json:"type"`
	Title       string         `json:"title"`
	Description string         `json:"description"`
	Datasource  map[string]any `json:"datasource"`
	GridPos     struct {
		X int `json:"x"`
		Y int `json:"y"`
		W int `json:"w"`
		H int `json:"h"`
	} `json:"gridPos"`
	FieldConfig map[string]any `json:"fieldConfig"`
	Options     map[string]any `json:"options"`
	Targets     []target       `json:"targets"`
	Collapsed   bool           `json:"collapsed"`
	Panels      []panel        `json:"panels"`
}

type dashboard struct {
	UID           string         `json:"uid"`
	Title         string         `json:"title"`
	Tags          []string       `json:"tags"`
	SchemaVersion int            `json:"schemaVersion"`
	Version       int            `json:"version"`
	Editable      bool           `json:"editable"`
	Timezone      string         `json:"timezone"`
	Refresh       string         `json:"refresh"`
	Time          map[string]any `json:"time"`
	Templating    struct {
		List []struct {
			Name       string         `json:"name"`
			Type       string         `json:"type"`
			Label      string         `json:"label"`
			Datasource map[string]any `json:"datasource"`
			Query      string         `json:"query"`
			Refresh    int            `json:"refresh"`
			IncludeAll bool           `json:"includeAll"`
			Multi      bool           `json:"multi"`
			Sort       int            `json:"sort"`
			Current    map[string]any `json:"current"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

// panels reads the dashboard: what it does not know of Grafana's format is an error.
func panels(t *testing.T) []panel {
	t.Helper()
	file := read(t, "deploy/grafana/dashboards/realtime.json")
	var d dashboard
	if err := yaml.UnmarshalStrict(file, &d); err != nil || !json.Valid(file) {
		t.Fatalf("the dashboard is no JSON, or of another form: %v", err)
	}
	for _, v := range d.Templating.List {
		for _, f := range faults(documented(t), "", v.Query) {
			t.Errorf("$%s: %s", v.Name, f)
		}
	}
	return d.Panels
}

func TestTheDashboardSpeaksOfWhatIsMeasured(t *testing.T) {
	doc, page := documented(t), string(read(t, "docs/metrics.md"))
	ids, queries := make(map[int]string), 0
	all := panels(t)
	for i, p := range all {
		if other, twice := ids[p.ID]; twice {
			t.Errorf("%s and %s have one id", p.Title, other)
		}
		ids[p.ID] = p.Title
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing, or does not say what", p.Title)
		}
		for _, q := range p.Targets {
			queries++
			for _, f := range faults(doc, page, q.Expr) {
				t.Errorf("%s: %s", p.Title, f)
			}
		}
		for _, o := range all[:i] {
			a, b := p.GridPos, o.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies over %s", p.Title, o.Title)
			}
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is beyond the edge", p.Title)
		}
	}
	if queries < 30 {
		t.Errorf("%d queries only", queries)
	}
}

// The queries are PromQL: promtool reads them as if they were rules.
func TestTheDashboardsQueriesCanBeAsked(t *testing.T) {
	check := func(queries []string) (string, error) {
		var rules []map[string]string
		for i, q := range queries {
			q = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(q)
			rules = append(rules, map[string]string{"record": fmt.Sprintf("q%d", i), "expr": q})
		}
		file, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "queries", "rules": rules}}})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "rules.yml")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		return run(t.Context(), nil, "promtool", "check", "rules", path)
	}
	var queries []string
	for _, p := range panels(t) {
		for _, q := range p.Targets {
			queries = append(queries, q.Expr)
		}
	}
	if out, err := check(queries); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := check([]string{"sum(rate(realtime_writes_total[1m])"}); err == nil {
		t.Errorf("a bracket that is missing is not found: %s", out)
	}
}

func TestAQueryThatIsWrongIsFound(t *testing.T) {
	doc, page := documented(t), string(read(t, "docs/metrics.md"))
	for query, want := range map[string]string{
		`rate(realtime_gaps_totl[1m])`:                                     "no metric",
		`realtime_gaps_total{why="lost"}`:                                  "no label",
		`realtime_gaps_total{reason=~"lost|gone"}`:                         `never "gone"`,
		`sum by (instance, kind) (realtime_gaps_total)`:                    "has the label kind",
		`rate(realtime_writes_total_bucket[1m])`:                           "no metric",
		`realtime_delivery_latency_seconds`:                                "no metric",
		`realtime_handshakes_total{result="at_capacity"}`:                  "",
		`sum by (le) (rate(realtime_delivery_latency_seconds_bucket[1m]))`: "",
	} {
		got := strings.Join(faults(doc, page, query), "; ")
		if !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}
