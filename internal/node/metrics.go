package node

import (
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/publish"
)

// Stats is what readiness tells of a node.
type Stats struct {
	Sessions, MaxSessions int
	LogBytes, MaxLogBytes int64
}

// Stats reads the counters.
func (n *Node) Stats() Stats {
	e, most := n.edges.stats()
	return Stats{Sessions: int(e.Sessions), MaxSessions: most, LogBytes: n.hub.Stats().LogBytes, MaxLogBytes: n.cfg.Hub.LogBytes}
}

// instruments are read by callback: what is counted on hot paths are plain atomics.
type instruments struct {
	connections, rooms, blocked, logBytes metric.Int64ObservableGauge
	sent, received, writes, written       metric.Int64ObservableCounter
	closed, handshakes, gaps, replays     metric.Int64ObservableCounter
	limited, lost, replayed, waits        metric.Int64ObservableCounter
	failures                              metric.Int64ObservableCounter
	most                                  metric.Int64ObservableGauge
}

// Instrument registers the node's metrics with m. Call it once.
func (n *Node) Instrument(m metric.Meter) error {
	var i instruments
	b := builder{m: m}
	i.connections = b.gauge("realtime_connections_total", "{session}", "Sessions of this node now (a gauge, despite its name).")
	i.most = b.gauge("realtime_sessions_limit", "{session}", "Sessions that this node admits at once.")
	i.rooms = b.gauge("realtime_rooms_total", "{room}", "Rooms with members on this node now (a gauge, despite its name).")
	i.blocked = b.gauge("realtime_sessions_blocked", "{session}", "Sessions whose socket takes no bytes now.")
	i.logBytes = b.gauge("realtime_room_log_bytes", "By", "Bytes held by the logs of all rooms.")
	i.sent = b.counter("realtime_messages_sent", "{message}", "Message frames written to sessions, replays included.")
	i.received = b.counter("realtime_messages_received", "{message}", "Messages accepted, by who sent them.")
	i.writes = b.counter("realtime_writes", "{write}", "System calls that wrote to sessions; sent messages by them is the size of a batch.")
	i.written = b.counter("realtime_written", "By", "Bytes written to sessions.")
	i.closed = b.counter("realtime_sessions_closed", "{session}", "Sessions ended, by close code; other: a code of the peer's own.")
	i.handshakes = b.counter("realtime_handshakes", "{handshake}", "Handshakes, by result: accepted, failed, or the code of the refusal.")
	i.gaps = b.counter("realtime_gaps", "{gap}", "Gaps told to sessions, by reason.")
	i.replays = b.counter("realtime_replays", "{replay}", "Resumes that ended, by result: recovered, or gap.")
	// These two are the server's too, for what backends are refused: alike in name, unit and description they are one.
	i.limited = b.counter("realtime_rate_limited", "{frame}", "What was refused for its rate, by kind.")
	i.failures = b.counter("realtime_auth_failures", "{failure}", "What was refused for want of a good credential, by reason.")
	i.lost = b.counter("realtime_messages_lost", "{message}", "Messages a member was not written, by reason: closed and left (its session, or membership, ended first), dropped (fell off the log; if it was stored a gap told it).")
	i.replayed = b.counter("realtime_messages_replayed", "{message}", "Message frames written to sessions that resumed.")
	i.waits = b.counter("realtime_publish_waits", "{message}", "Publishes held up because their room's members were late.")
	if b.err != nil {
		return b.err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n.observe(o, &i)
		return nil
	}, b.all...)
	return err
}

type builder struct {
	m   metric.Meter
	all []metric.Observable
	err error
}

func (b *builder) gauge(name, unit, help string) metric.Int64ObservableGauge {
	g, err := b.m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
	b.all, b.err = append(b.all, g), firstError(b.err, err)
	return g
}

func (b *builder) counter(name, unit, help string) metric.Int64ObservableCounter {
	c, err := b.m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
	b.all, b.err = append(b.all, c), firstError(b.err, err)
	return c
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (n *Node) observe(o metric.Observer, i *instruments) {
	label := func(k, v string) metric.MeasurementOption { return metric.WithAttributes(attribute.String(k, v)) }
	h := n.hub.Stats()
	e, most := n.edges.stats()
	o.ObserveInt64(i.connections, e.Sessions)
	o.ObserveInt64(i.most, int64(most))
	o.ObserveInt64(i.rooms, int64(h.Rooms))
	o.ObserveInt64(i.blocked, int64(h.Blocked))
	o.ObserveInt64(i.logBytes, h.LogBytes)
	o.ObserveInt64(i.sent, int64(h.Delivered+h.Replayed))
	o.ObserveInt64(i.replayed, int64(h.Replayed))
	o.ObserveInt64(i.writes, int64(h.Writes))
	o.ObserveInt64(i.written, int64(h.WrittenBytes))
	o.ObserveInt64(i.waits, int64(h.Waits))
	for _, by := range []publish.Origin{publish.Session, publish.Backend, publish.Embedded} {
		o.ObserveInt64(i.received, int64(n.publish.Received(by)), label("from", by.String()))
	}
	for code, c := range e.Closed {
		name := "other"
		if code != 0 {
			name = strconv.Itoa(int(code))
		}
		o.ObserveInt64(i.closed, int64(c), label("code", name))
	}
	o.ObserveInt64(i.handshakes, int64(e.Accepted), label("result", "accepted"))
	o.ObserveInt64(i.handshakes, int64(e.Failed), label("result", "failed"))
	for code, c := range e.Refused {
		o.ObserveInt64(i.handshakes, int64(c), label("result", string(code)))
	}
	for _, why := range []message.GapReason{message.GapExpired, message.GapUnknownPosition, message.GapLimit, message.GapDeleted, message.GapLost} {
		o.ObserveInt64(i.gaps, int64(h.Gaps[why]), label("reason", string(why)))
	}
	o.ObserveInt64(i.replays, int64(h.Recovered), label("result", "recovered"))
	o.ObserveInt64(i.replays, int64(h.NotRecovered), label("result", "gap"))
	for k, c := range e.RateLimited {
		o.ObserveInt64(i.limited, int64(c), label("kind", k.String()))
	}
	o.ObserveInt64(i.failures, int64(e.NoTokens), label("reason", "token_missing"))
	o.ObserveInt64(i.failures, int64(e.BadTokens), label("reason", "token"))
	o.ObserveInt64(i.failures, int64(e.Expired), label("reason", "token_expired"))
	o.ObserveInt64(i.failures, int64(e.UnknownKeys), label("reason", "token_key_unknown"))
	for why, c := range h.Lost {
		o.ObserveInt64(i.lost, int64(c), label("reason", why))
	}
}
