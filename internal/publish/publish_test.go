package publish

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

const node = 77

// bus takes what is published, and answers as it is told.
type bus struct {
	broker.Broker // only Publish may be called
	answer        broker.Receipt
	err           error
	got           []broker.Publication
}

func (b *bus) Publish(_ context.Context, p broker.Publication) (broker.Receipt, error) {
	b.got = append(b.got, p)
	return b.answer, b.err
}

// gate is a Gate of one function.
type gate func(message.Room) error

func (g gate) Ready(_ context.Context, room message.Room) error { return g(room) }

func open(message.Room) error { return nil }

func publisher(t *testing.T, cfg Config, g gate, b broker.Broker) *Publisher {
	t.Helper()
	return New(cfg, g, b, message.NewMinter(node), slog.New(slog.NewTextHandler(t.Output(), nil)))
}

func chat() *message.Message {
	return &message.Message{Type: message.TypeChat, Room: "general", Data: []byte(`{"text":"Hello"}`)}
}

func TestEachOriginSendsItsOwnTypesOnly(t *testing.T) {
	serverOnly := strings.Fields("ack ping pong subscribe unsubscribe who history auth")
	for _, c := range []struct {
		by        Origin
		may, mayn []string
	}{
		{Session, []string{"chat", "order.created"}, append([]string{"notification", "system", "presence", "error", "", "Chat"}, serverOnly...)},
		{Backend, []string{"chat", "order.created", "notification", "system"}, append([]string{"presence", "error", "", "Chat"}, serverOnly...)},
		{Embedded, []string{"chat", "order.created", "notification", "system", "presence", "error"}, append([]string{"", "Chat"}, serverOnly...)},
		{origins, nil, []string{"chat"}}, // an origin nobody knows may nothing
	} {
		for _, typ := range slices.Concat(c.may, c.mayn) {
			b := &bus{}
			m := chat()
			m.Type = message.Type(typ)
			_, err := publisher(t, Config{}, open, b).Do(t.Context(), Request{Message: m, Origin: c.by})
			if slices.Contains(c.may, typ) {
				if err != nil || len(b.got) != 1 {
					t.Errorf("origin %d, %q: %v, want it published", c.by, typ, err)
				}
				continue
			}
			var bad *message.Error
			if !errors.Is(err, message.ErrForbiddenType) || !errors.As(err, &bad) || bad.Field != "type" || len(b.got) != 0 {
				t.Errorf("origin %d, %q: %v, want ErrForbiddenType of the field type", c.by, typ, err)
			}
		}
	}
}

func TestPresenceAndErrorOfAProgramAreNeverStored(t *testing.T) {
	for typ, want := range map[message.Type]bool{message.TypePresence: true, message.TypeError: true, message.TypeChat: false, message.TypeSystem: false} {
		b := &bus{}
		m := chat()
		m.Type = typ
		if _, err := publisher(t, Config{}, open, b).Do(t.Context(), Request{Message: m, Origin: Embedded}); err != nil {
			t.Fatal(err)
		}
		if got := b.got[0].Message; got.Ephemeral != want || got.ID.Low.Unstored() != want {
			t.Errorf("%s: ephemeral %v, P %v, want %v", typ, got.Ephemeral, got.ID.Low.Unstored(), want)
		}
	}
}

func TestAnIdentityTellsNodeRoomAndWhetherItIsStored(t *testing.T) {
	for _, ephemeral := range []bool{false, true} {
		b := &bus{}
		m := chat()
		m.Ephemeral = ephemeral
		if _, err := publisher(t, Config{}, open, b).Do(t.Context(), Request{Message: m, Origin: Backend}); err != nil {
			t.Fatal(err)
		}
		low := b.got[0].Message.ID.Low
		if low.Unstored() != ephemeral || low.Node() != node || low.Tag() != m.Room.Tag() {
			t.Errorf("ephemeral %v: P %v, node %d, tag %#x, want node %d, tag %#x", ephemeral, low.Unstored(), low.Node(), low.Tag(), node, m.Room.Tag())
		}
	}
}

func TestDataIsHeldToTheConfiguredLimit(t *testing.T) {
	for _, c := range []struct {
		name      string
		max, size int
		ok        bool
	}{
		{"below the default", 0, 64<<10 - 1, true},
		{"at the default", 0, 64 << 10, true},
		{"above the default", 0, 64<<10 + 1, false},
		{"at a smaller limit", 100, 100, true},
		{"above a smaller limit", 100, 101, false},
		{"at a larger limit", 1 << 20, 1 << 20, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := chat()
			m.Data = []byte(`"` + strings.Repeat("a", c.size-2) + `"`)
			_, err := publisher(t, Config{MaxDataBytes: c.max}, open, &bus{}).Do(t.Context(), Request{Message: m, Origin: Session})
			if c.ok != (err == nil) || err != nil && !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%d bytes: %v, want accepted %v", c.size, err, c.ok)
			}
		})
	}
}

func TestAMessageWithoutATimeGetsTheTimeOfItsArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		late := gate(func(message.Room) error { time.Sleep(time.Second); return nil })
		arrival := time.Now().UnixMilli()
		p := publisher(t, Config{}, late, b)
		for _, at := range []int64{0, 1234} {
			m := chat()
			m.Timestamp = at
			if _, err := p.Do(t.Context(), Request{Message: m, Origin: Backend}); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.got[0].Message.Timestamp; got != arrival {
			t.Errorf("timestamp %d, want the arrival's %d, not that after the wait", got, arrival)
		}
		if got := b.got[1].Message.Timestamp; got != 1234 {
			t.Errorf("timestamp %d, want the backend's own", got)
		}
	})
}

// Over the embedded broker: what counts is who is taken for the same caller.
func TestAKeyIsTheCallersOwnOnly(t *testing.T) {
	b := broker.NewMemory(broker.MemoryConfig{NodeID: "n1"})
	ctx, end := context.WithCancel(t.Context())
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- b.Run(ctx, nobody{}, func() { close(up) }) }()
	<-up
	defer func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	p := publisher(t, Config{}, open, b)
	publish := func(by Origin, caller, key string, room message.Room) broker.Receipt {
		t.Helper()
		m := chat()
		m.Room = room
		r, err := p.Do(t.Context(), Request{Message: m, Origin: by, Caller: caller, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := publish(Backend, "shop", "k1", "general")
	if first.Duplicate || first.ID.IsZero() {
		t.Fatalf("the first is %+v", first)
	}
	if again := publish(Backend, "shop", "k1", "general"); !again.Duplicate || again.ID != first.ID {
		t.Errorf("the repeat is %+v, want a duplicate with id %s", again, first.ID)
	}
	for name, other := range map[string]broker.Receipt{
		"another origin":                  publish(Session, "shop", "k1", "general"),
		"a third origin":                  publish(Embedded, "shop", "k1", "general"),
		"a session that calls itself one": publish(Session, "backend/shop", "k1", "general"),
		"another caller":                  publish(Backend, "mail", "k1", "general"),
		"another key":                     publish(Backend, "shop", "k2", "general"),
		"another room":                    publish(Backend, "shop", "k1", "other"),
		"no key":                          publish(Backend, "shop", "", "general"),
		"no key again":                    publish(Backend, "shop", "", "general"),
	} {
		if other.Duplicate {
			t.Errorf("%s: a duplicate of %s", name, first.ID)
		}
	}
	if got := p.Received(Backend); got != 6 {
		t.Errorf("%d messages of backends accepted, want 6: a duplicate is not a message", got)
	}
}

// nobody is a Sink without rooms.
type nobody struct{}

func (nobody) Append(message.Entry)                                                    {}
func (nobody) Live(message.Room, message.Position, bool)                               {}
func (nobody) Gap(message.Room, message.Position, message.Position, message.GapReason) {}
func (nobody) Deleted(message.Room, message.Position)                                  {}
func (nobody) Degraded(message.Room)                                                   {}
func (nobody) Restored(message.Room)                                                   {}

func TestWithoutAKeyNobodyIsRemembered(t *testing.T) {
	b := &bus{}
	if _, err := publisher(t, Config{}, open, b).Do(t.Context(), Request{Message: chat(), Origin: Session, Caller: "u1"}); err != nil {
		t.Fatal(err)
	}
	if got := b.got[0]; got.Caller != "" || got.Key != "" {
		t.Errorf("caller %q, key %q given to the broker, want none", got.Caller, got.Key)
	}
}

func TestWhatGateAndBrokerSayReachesTheCaller(t *testing.T) {
	want := broker.Receipt{ID: message.ID{Position: 5, Low: 7}, Timestamp: 9, Degraded: true}
	got, err := publisher(t, Config{}, open, &bus{answer: want}).Do(t.Context(), Request{Message: chat(), Origin: Backend})
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("receipt: %v\n%s", err, d)
	}
	for _, c := range []struct {
		name string
		gate error
		bus  error
	}{
		{"the room cannot take more", hub.ErrOverloaded, nil},
		{"the caller gave up waiting", context.DeadlineExceeded, nil},
		{"the bus is away", nil, broker.ErrUnavailable},
		{"the bus is full", nil, broker.ErrOverloaded},
		{"the bus has ended", nil, broker.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bus{err: c.bus, answer: want}
			observed := 0
			var asked []message.Room
			p := publisher(t, Config{Observe: func(context.Context, Origin, time.Duration) { observed++ }}, func(r message.Room) error { asked = append(asked, r); return c.gate }, b)
			got, err := p.Do(t.Context(), Request{Message: chat(), Origin: Backend})
			if !errors.Is(err, errors.Join(c.gate, c.bus)) && !errors.Is(err, c.gate) && !errors.Is(err, c.bus) || err == nil {
				t.Errorf("error %v, want %v", err, errors.Join(c.gate, c.bus))
			}
			if got != (broker.Receipt{}) {
				t.Errorf("a receipt came with the error: %+v", got)
			}
			if want := map[bool]int{true: 0, false: 1}[c.gate != nil]; len(b.got) != want {
				t.Errorf("%d publications reached the broker, want %d", len(b.got), want)
			}
			if d := cmp.Diff([]message.Room{"general"}, asked); d != "" {
				t.Errorf("the gate was asked for:\n%s", d)
			}
			if p.Received(Backend) != 0 || observed != 0 {
				t.Errorf("a refusal counts as accepted: %d, %d", p.Received(Backend), observed)
			}
		})
	}
}

func TestWhatIsWrongIsRefusedWithoutWaiting(t *testing.T) {
	m := chat()
	m.Data = []byte(`{`)
	closed := gate(func(message.Room) error { t.Error("waited for the room"); return nil })
	if _, err := publisher(t, Config{}, closed, &bus{}).Do(t.Context(), Request{Message: m, Origin: Session}); !errors.Is(err, message.ErrInvalidData) {
		t.Errorf("error %v, want ErrInvalidData", err)
	}
}

func TestTheWaitForTheRoomIsPartOfTheTimeThatIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type took struct {
			By Origin
			D  time.Duration
		}
		var got []took
		late := gate(func(message.Room) error { time.Sleep(300 * time.Millisecond); return nil })
		b := &bus{}
		p := publisher(t, Config{Observe: func(_ context.Context, o Origin, d time.Duration) { got = append(got, took{o, d}) }}, late, b)
		for _, by := range []Origin{Session, Backend, Embedded} {
			if _, err := p.Do(t.Context(), Request{Message: chat(), Origin: by}); err != nil {
				t.Fatal(err)
			}
			if p.Received(by) != 1 {
				t.Errorf("%v: %d received, want 1", by, p.Received(by))
			}
		}
		b.answer.Duplicate = true
		if _, err := p.Do(t.Context(), Request{Message: chat(), Origin: Session, Key: "k"}); err != nil {
			t.Fatal(err)
		}
		want := []took{{Session, 300 * time.Millisecond}, {Backend, 300 * time.Millisecond}, {Embedded, 300 * time.Millisecond}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("observed (-want +got):\n%s", d)
		}
	})
}

func TestTheDebugLineNamesTheMessageAndNotWhatItSays(t *testing.T) {
	var log bytes.Buffer
	for level, want := range map[slog.Level]int{slog.LevelInfo: 0, slog.LevelDebug: 1} {
		log.Reset()
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level}))
		id := message.ID{Position: message.At(1, 2), Low: 1 << 63}
		p := New(Config{}, gate(open), &bus{answer: broker.Receipt{ID: id}}, message.NewMinter(node), logger)
		if _, err := p.Do(t.Context(), Request{Message: chat(), Origin: Session, Caller: "u1", Key: "k1"}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(log.String(), "\n")
		if lines != want || want == 1 && !(strings.Contains(log.String(), id.String()) && strings.Contains(log.String(), "general")) {
			t.Errorf("at %v: %q, want %d lines with id and room", level, log.String(), want)
		}
		for _, secret := range []string{"Hello", "k1"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("the log tells %q: %s", secret, log.String())
			}
		}
	}
}

func BenchmarkDo(b *testing.B) {
	p := New(Config{}, gate(open), &last{}, message.NewMinter(node), slog.New(slog.DiscardHandler))
	data := []byte(`{"text":"Hello"}`)
	b.ReportAllocs()
	for b.Loop() {
		m := &message.Message{Type: message.TypeChat, Room: "general", Data: data}
		if _, err := p.Do(b.Context(), Request{Message: m, Origin: Backend, Caller: "local"}); err != nil {
			b.Fatal(err)
		}
	}
}

// last is a bus that keeps nothing.
type last struct{ broker.Broker }

func (last) Publish(context.Context, broker.Publication) (broker.Receipt, error) {
	return broker.Receipt{}, nil
}
