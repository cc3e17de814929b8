package server

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// family is a row of docs/metrics.md, or a family of a scrape.
type family struct {
	Type   string
	Labels string // sorted, with blanks between
}

// documented reads the table.
func documented(t *testing.T) map[string]family {
	t.Helper()
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]family)
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 5 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "`realtime_") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name := strings.Trim(cells[0], "`")
		if _, twice := all[name]; twice {
			t.Errorf("%s is documented twice", name)
		}
		labels := strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(cells[3]))
		slices.Sort(labels)
		all[name] = family{Type: cells[1], Labels: strings.Join(labels, " ")}
		for suffix, unit := range map[string]string{"_seconds": "seconds", "_bytes": "bytes", "_bytes_total": "bytes"} {
			if strings.HasSuffix(name, suffix) && cells[2] != unit {
				t.Errorf("%s has the unit %q, want %q", name, cells[2], unit)
			}
		}
		if cells[2] == "" || cells[4] == "" {
			t.Errorf("%s: unit %q, meaning %q", name, cells[2], cells[4])
		}
	}
	return all
}

// ofRedis are families that only a node with --redis-url has.
func ofRedis(name string) bool {
	return strings.HasPrefix(name, "realtime_redis_") || name == "realtime_presence_cache_total" || name == "realtime_presence_dropped_total"
}

func TestAScrapeIsWhatTheDocumentSays(t *testing.T) { both(t, scrapeIsDocumented) }

func scrapeIsDocumented(t *testing.T, args ...string) {
	r := StartServer(t, append(args, (&judge{connect: lets, message: passes}).serve(t)...)...)
	s := r.join("general")
	// A histogram has no series before its first value.
	if _, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}}); err != nil {
		t.Fatal(err)
	}
	s.want("chat")
	if err := s.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":1}`)); err != nil {
		t.Fatal(err)
	}
	s.want("chat")

	want := map[string]float64{
		// two rooms: @global has every session
		"realtime_connections_total": 1, "realtime_rooms_total": 1, "realtime_sessions_blocked": 0, "realtime_draining": 0,
		"realtime_messages_received_total backend": 1, "realtime_messages_received_total session": 1,
		"realtime_messages_received_total embedded": 0, "realtime_messages_sent_total": 2, "realtime_messages_lost_total dropped": 0,
		"realtime_handshakes_total accepted": 1, "realtime_sessions_closed_total 1012": 0, "realtime_gaps_total lost": 0,
		"realtime_rate_limited_total frames": 0, "realtime_rate_limited_total handshakes": 0, "realtime_rate_limited_total publish": 0,
		"realtime_publish_duration_seconds backend": 1, "realtime_publish_duration_seconds session": 1,
		"realtime_hook_duration_seconds connect ok": 1, "realtime_hook_duration_seconds message ok": 1,
		"realtime_hook_passes_total connect": 0, "realtime_hook_disconnects_dropped_total": 0,
	}
	doc := documented(t)
	if len(args) == 0 {
		maps.DeleteFunc(doc, func(name string, _ family) bool { return ofRedis(name) })
	} else {
		want["realtime_redis_up"], want["realtime_redis_outbox_bytes"], want["realtime_redis_degraded_seconds_total"] = 1, 0, 0
	}
	var families map[string]family
	got := make(map[string]float64)
	// A message may be read before those who counted it are done.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && !(cmp.Equal(want, got) && cmp.Equal(doc, families)); {
		var values map[string]float64
		families, values = r.scrape()
		for name := range want {
			if v, ok := values[name]; ok {
				got[name] = v
			}
		}
	}
	if d := cmp.Diff(doc, families); d != "" {
		t.Errorf("docs/metrics.md (-) and a scrape (+) differ:\n%s", d)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

// scrape returns the families that are ours, and values by name and labels' values.
func (r *Running) scrape() (map[string]family, map[string]float64) {
	r.t.Helper()
	families, values := make(map[string]family), make(map[string]float64)
	_, _, body := fetch(r.t, r.http+"/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		r.t.Fatalf("%v in\n%s", err, body)
	}
	for name, f := range all {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		if f.GetHelp() == "" {
			r.t.Errorf("%s has no help", name)
		}
		var labels []string
		for _, m := range f.GetMetric() {
			key := name
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
				if !slices.Contains(labels, l.GetName()) {
					labels = append(labels, l.GetName())
				}
			}
			values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
		slices.Sort(labels)
		families[name] = family{Type: strings.ToLower(f.GetType().String()), Labels: strings.Join(labels, " ")}
	}
	return families, values
}

func TestTheVersionIsTold(t *testing.T) {
	if Version() == "" {
		t.Error("no version")
	}
}
