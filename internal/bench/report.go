package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Report is what a run came to. Figures of rate, latency and CPU are of the measured time only; faults are of everything
// that was published.
type Report struct {
	Sessions   sessionFigures  `json:"sessions"`
	Messages   messageFigures  `json:"messages"`
	Deliveries deliveryFigures `json:"deliveries"`
	faults
	Strays  int64 `json:"strays"` // messages that came to a room they were not published to
	Broken  int64 `json:"broken"` // what was no frame of the protocol
	Foreign int64 `json:"foreign"`

	Gaps       map[string]int64 `json:"gaps"`       // gap frames by reason
	Errors     map[string]int64 `json:"errors"`     // error frames by code
	Reconnects int64            `json:"reconnects"` // connections after a session's first
	Causes     map[string]int64 `json:"causes"`     // why connections ended: a close code, own, cut, …
	Server     *serverFigures   `json:"server,omitempty"`
	OwnCPU     float64          `json:"own_cpu_percent"`
	Strikes    []strike         `json:"faults,omitempty"`
	OK         bool             `json:"ok"`
}

type sessionFigures struct {
	Asked     int     `json:"asked"`
	Opened    int64   `json:"opened"`
	Held      int64   `json:"held"` // at the end
	PerSecond float64 `json:"opened_per_second"`
	Problem   string  `json:"problem,omitempty"` // the first there was
}

type messageFigures struct {
	Published int       `json:"published"`
	PerSecond float64   `json:"per_second"`
	Failed    int64     `json:"failed"`
	Problem   string    `json:"problem,omitempty"` // the first there was
	Ack       quantiles `json:"ack_ms"`
}

type deliveryFigures struct {
	Total     int64     `json:"total"`
	PerSecond float64   `json:"per_second"`
	Latency   quantiles `json:"latency_ms"`
}

type serverFigures struct {
	CPUPerDelivery float64 `json:"cpu_us_per_delivery"`
	CPU            float64 `json:"cpu_percent"`
	PerSession     float64 `json:"rss_kb_per_session"` // what opening added: of a server that was fresh
	RSS            float64 `json:"rss_mb"`
}

// quantiles are in milliseconds.
type quantiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func quantilesOf(h *hdrhistogram.Histogram) quantiles {
	at := func(p float64) float64 { return float64(h.ValueAtPercentile(p)) / 1000 }
	return quantiles{at(50), at(90), at(99), at(99.9), float64(h.Max()) / 1000}
}

// report sums up. Everything that ran has ended.
func (b *bench) report() *Report {
	c := b.swarm.counts()
	r := &Report{Gaps: map[string]int64{}, Errors: map[string]int64{}, Causes: map[string]int64{}}
	r.Sessions = sessionFigures{Asked: b.c.Sessions, Opened: b.opened, Held: c.live, PerSecond: float64(b.opened) / b.opening.Seconds()}
	if err := b.swarm.blamed(); err != nil {
		r.Sessions.Problem = err.Error()
	}
	latency, acks := newHistogram(latencyDigits), newHistogram(ackDigits)
	for _, w := range b.swarm.watchers {
		latency.Merge(w.latency)
		for reason, n := range w.gaps {
			r.Gaps[string(reason)] += n
		}
		add(r.Errors, w.refused)
		add(r.Causes, w.causes)
		r.Strays += w.strays
		r.Broken += w.broken
		r.Foreign += w.alien
		r.Reconnects += w.reconnects
	}
	measured := int64(0)
	for _, p := range b.publishers {
		acks.Merge(p.acks)
		measured += p.measured
	}
	failed, first := b.failures()
	published := min(time.Duration(b.order.end-b.order.from), time.Duration(max(0, b.order.stopped-b.order.from)))
	r.Messages = messageFigures{Published: b.receipts(), Failed: failed, PerSecond: perSecond(measured, published), Ack: quantilesOf(acks)}
	if first != nil {
		r.Messages.Problem = first.Error()
	}
	span := time.Duration(max(0, c.lastDelivery-b.order.from))
	r.Deliveries = deliveryFigures{Total: c.deliveries, PerSecond: perSecond(c.measured, span), Latency: quantilesOf(latency)}
	r.usage(b, c.measured)
	r.Strikes = b.strikes
	sums := b.judge()
	for i, f := range sums {
		r.faults.add(f)
		if i > 0 {
			r.Strikes[i-1].faults = f
		}
	}
	r.OK = r.faults.none() && r.Strays == 0 && r.Broken == 0
	return r
}

func add(to, from map[string]int64) {
	for k, n := range from {
		to[k] += n
	}
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

func (r *Report) usage(b *bench, deliveries int64) {
	span := time.Duration(b.doneAt - b.begunAt).Seconds()
	if !b.measuring || span <= 0 {
		return
	}
	r.OwnCPU = 100 * (b.ownDone.cpu - b.ownBegun.cpu).Seconds() / span
	if !b.known {
		return
	}
	cpu := b.done.cpu - b.begun.cpu
	r.Server = &serverFigures{
		CPUPerDelivery: float64(cpu.Microseconds()) / float64(max(deliveries, 1)),
		CPU:            100 * cpu.Seconds() / span,
		PerSession:     float64(b.held.rss-b.idle.rss) / 1024 / float64(b.opened),
		RSS:            float64(b.done.rss) / (1 << 20),
	}
}

// judge holds every room and session against the receipts. The sums are by strike, the first those of what was sent before.
func (b *bench) judge() []faults {
	times := make([]int64, len(b.strikes))
	for i, s := range b.strikes {
		times[i] = s.at
	}
	sums := make([]faults, len(times)+1)
	receipts := make([][]receipt, len(b.rooms))
	for _, p := range b.publishers {
		for _, x := range p.receipts {
			receipts[x.room] = append(receipts[x.room], x)
		}
	}
	members := make([][]*session, len(b.rooms))
	for _, s := range b.swarm.sessions {
		members[s.room.number] = append(members[s.room.number], s)
	}
	for i, rm := range b.rooms {
		j := newJudge(rm, receipts[i], len(b.publishers), times)
		j.room()
		for _, s := range members[i] {
			j.session(&s.record)
		}
		for k, f := range j.sums {
			sums[k].add(f)
		}
	}
	return sums
}

// verdict is nil if the server kept its promises.
func (r *Report) verdict() error {
	if r.OK {
		return nil
	}
	what := []string{}
	for _, f := range r.faultList() {
		if f.n > 0 {
			what = append(what, fmt.Sprintf("%d %s", f.n, f.name))
		}
	}
	return fmt.Errorf("%w: %s", ErrFaults, strings.Join(what, ", "))
}

type countOf struct {
	name string
	n    int64
}

func (r *Report) faultList() []countOf {
	return []countOf{{"lost", r.Lost}, {"duplicated", r.Duplicated}, {"reordered", r.Reordered}, {"astray", r.Strays}, {"broken", r.Broken}, {"unjudged", r.Spilled}}
}

func (r *Report) print(out io.Writer, asJSON bool) error {
	if asJSON {
		if err := json.MarshalWrite(out, r, json.Deterministic(true), jsontext.WithIndent("  ")); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("sessions", "%d of %d opened (%.0f/s), %d held at the end", r.Sessions.Opened, r.Sessions.Asked, r.Sessions.PerSecond, r.Sessions.Held)
	if r.Sessions.Problem != "" {
		row("", "first problem: %s", r.Sessions.Problem)
	}
	row("published", "%d (%.0f/s), %d failed", r.Messages.Published, r.Messages.PerSecond, r.Messages.Failed)
	if r.Messages.Problem != "" {
		row("", "first problem: %s", r.Messages.Problem)
	}
	row("acknowledged", "%v", r.Messages.Ack)
	row("deliveries", "%d (%.0f/s)", r.Deliveries.Total, r.Deliveries.PerSecond)
	row("latency", "%v", r.Deliveries.Latency)
	for _, f := range append(r.faultList()[:3], countOf{"repeated", r.Repeated}, countOf{"gapped", r.Gapped}) {
		row(f.name, "%d", f.n)
	}
	for _, f := range append(r.faultList()[3:], countOf{"foreign", r.Foreign}) {
		if f.n > 0 {
			row(f.name, "%d", f.n)
		}
	}
	row("gaps told", "%s", list(r.Gaps))
	if len(r.Errors) > 0 {
		row("error frames", "%s", list(r.Errors))
	}
	row("reconnects", "%d; ends: %s", r.Reconnects, list(r.Causes))
	if s := r.Server; s != nil {
		row("server CPU", "%.2f µs per delivery (%.0f%%)", s.CPUPerDelivery, s.CPU)
		row("server memory", "%.2f kB per session, %.1f MB in all", s.PerSession, s.RSS)
	}
	row("own CPU", "%.0f%%", r.OwnCPU)
	if len(r.Strikes) > 0 {
		row("", "")
		fmt.Fprintln(w, "fault\tat\taway\tlate until\tlost\tduplicated\treordered\trepeated\tgapped")
	}
	for _, s := range r.Strikes {
		fmt.Fprintf(w, "%s\t%.1f s\t%.2f s\t%.2f s\t%d\t%d\t%d\t%d\t%d\n", s.Fault, s.At, s.Away, s.Healed, s.Lost, s.Duplicated, s.Reordered, s.Repeated, s.Gapped)
	}
	return w.Flush()
}

func (q quantiles) String() string {
	return fmt.Sprintf("p50 %.2f  p90 %.2f  p99 %.2f  p999 %.2f  max %.2f ms", q.P50, q.P90, q.P99, q.P999, q.Max)
}

// list shows counts by name, the largest first.
func list(m map[string]int64) string {
	if len(m) == 0 {
		return "none"
	}
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		if m[a] != m[b] {
			return int(min(max(m[b]-m[a], -1), 1))
		}
		return strings.Compare(a, b)
	})
	for i, n := range names {
		names[i] = fmt.Sprintf("%s %d", n, m[n])
	}
	return strings.Join(names, ", ")
}
