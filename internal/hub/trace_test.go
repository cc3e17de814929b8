package hub

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/message"
)

// under is the span that the test's publishes are traced by, on some node.
var under = message.Trace{TraceID: [16]byte{1, 15: 2}, SpanID: [8]byte{3, 7: 4}, Flags: 1}

func sampled(m *message.Message) { t := under; m.Trace = &t }

func recorder(opts ...sdktrace.TracerProviderOption) (*tracetest.SpanRecorder, trace.Tracer) {
	rec := tracetest.NewSpanRecorder()
	return rec, sdktrace.NewTracerProvider(append(opts, sdktrace.WithSpanProcessor(rec))...).Tracer("test")
}

// stuck is a socket whose writes of a text do not return before they are let go.
type stuck struct {
	*socket
	text string
	free chan struct{}
}

func (w *stuck) TryWrite(b []byte) (int, error) {
	if strings.Contains(string(b), w.text) {
		<-w.free
	}
	return w.socket.TryWrite(b)
}

// openStuck opens a session of a room whose shard is held up by the first write of text.
func (r *rig) openStuck(room message.Room, text string) *stuck {
	r.t.Helper()
	w := &stuck{&socket{}, text, make(chan struct{})}
	s, err := r.h.Open(Open{ID: "s", User: "s", Writer: w, Anchor: room, Fallback: message.Global, Joins: []Join{{Room: room}, {Room: message.Global}}})
	if err != nil {
		r.t.Fatal(err)
	}
	w.s = s
	synctest.Wait()
	return w
}

func TestATracedMessageHasOneSpanHereUntilTheLastShardHasCarriedIt(t *testing.T) {
	rec, tracer := recorder()
	inBubble(t, Config{Shards: 2, Tracer: tracer}, func(r *rig) {
		quick, slow := r.open(0, nil, "a"), r.openStuck("a", "hold")
		id := r.publish("a", `"hold"`, sampled)
		synctest.Wait()
		if got := chats(quick.take(1<<20), "a"); len(got) != 1 {
			t.Fatalf("the other shard's member has %q", got)
		}
		if n := len(rec.Ended()); n != 0 || len(rec.Started()) != 1 {
			t.Fatalf("%d of %d spans have ended while a shard still writes, want 0 of 1", n, len(rec.Started()))
		}
		time.Sleep(time.Second)
		close(slow.free)
		synctest.Wait()
		if len(rec.Ended()) != 1 {
			t.Fatalf("%d spans have ended, want 1", len(rec.Ended()))
		}
		s := rec.Ended()[0]
		if s.Name() != "fan-out" || s.SpanContext().TraceID() != under.TraceID || s.Parent().SpanID() != under.SpanID || !s.Parent().IsRemote() {
			t.Errorf("span %s of trace %s under %s, want fan-out under the publish's", s.Name(), s.SpanContext().TraceID(), s.Parent().SpanID())
		}
		if took := s.EndTime().Sub(s.StartTime()); took != time.Second {
			t.Errorf("it took %v, want the second that the shard was held up", took)
		}
		got := make(map[string]string)
		for _, kv := range s.Attributes() {
			got[string(kv.Key)] = kv.Value.String()
		}
		if d := cmp.Diff(map[string]string{"messaging.destination.name": "a", "messaging.message.id": id.String(), "realtime.members": "2"}, got); d != "" {
			t.Errorf("attributes (-want +got):\n%s", d)
		}
	})
}

func TestAMessageWithoutATraceOrMembersHasNoSpan(t *testing.T) {
	rec, tracer := recorder()
	inBubble(t, Config{Tracer: tracer}, func(r *rig) {
		p := r.open(0, nil, "a")
		r.publish("a", `1`)
		r.publish("nobody", `1`, sampled)
		p.w.s.Gone()
		synctest.Wait()
		r.publish("a", `2`, sampled) // the room lingers
		synctest.Wait()
		if n := len(rec.Started()); n != 0 {
			t.Errorf("%d spans", n)
		}
	})
}

func TestWithoutATracerATraceIsCarriedPast(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "a")
		r.publish("a", `1`, sampled)
		if got := chats(p.drain(), "a"); len(got) != 1 {
			t.Errorf("the member has %q", got)
		}
	})
}

func TestASamplerOfThisNodeMayDecideAgainstASpan(t *testing.T) {
	rec, tracer := recorder(sdktrace.WithSampler(sdktrace.NeverSample()))
	inBubble(t, Config{Tracer: tracer}, func(r *rig) {
		p := r.open(0, nil, "a")
		r.publish("a", `1`, sampled)
		if got := chats(p.drain(), "a"); len(got) != 1 || len(rec.Started()) != 0 {
			t.Errorf("the member has %q, there are %d spans", got, len(rec.Started()))
		}
	})
}

func TestSpansOfARoomThatIsHeldUpAreBounded(t *testing.T) {
	rec, tracer := recorder()
	inBubble(t, Config{Shards: 1, Tracer: tracer}, func(r *rig) {
		w := r.openStuck("a", "hold")
		r.publish("a", `"hold"`)
		for range maxTraced + 10 {
			r.publish("a", `1`, sampled)
		}
		close(w.free)
		synctest.Wait()
		if n := len(rec.Ended()); n != maxTraced {
			t.Errorf("%d spans have ended, want %d", n, maxTraced)
		}
	})
}

// What a traversal is observed with is the span of a message it carried: it becomes the exemplar of its delivery.
func TestAnObservedDeliveryNamesASpanThatItCarried(t *testing.T) {
	rec, tracer := recorder()
	type seen struct {
		trace  trace.TraceID
		age    time.Duration
		itsOwn bool
	}
	var got []seen
	cfg := Config{Shards: 1, Tracer: tracer, Observe: func(sc trace.SpanContext, age time.Duration) {
		own := len(rec.Started()) > 0 && sc.SpanID() == rec.Started()[0].SpanContext().SpanID()
		got = append(got, seen{sc.TraceID(), age, own})
	}}
	inBubble(t, cfg, func(r *rig) {
		w := r.openStuck("a", "hold")
		r.publish("a", `"hold"`)
		synctest.Wait()
		r.publish("a", `1`)
		time.Sleep(time.Second)
		r.publish("a", `2`, sampled)
		close(w.free)
		synctest.Wait()
		r.publish("a", `3`)
		synctest.Wait()
	})
	want := []seen{{age: time.Second}, {under.TraceID, time.Second, true}, {}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(seen{})); d != "" {
		t.Errorf("observed (-want +got):\n%s", d)
	}
}
