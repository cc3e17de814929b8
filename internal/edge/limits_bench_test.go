package edge

import (
	"log/slog"
	"testing"
	"unsafe"

	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// sender is a session that sends, of a user and an address that have limits too, as far as its rates go.
func sender(tb testing.TB) *session {
	tb.Helper()
	m := message.NewMinter(1)
	b := newBus(m)
	e, err := New(Config{Anonymous: true, Limits: Limits{
		SessionFrames: 1e9, SessionBytes: 1e9, UserFrames: 1e9, UserBytes: 1e9, AddressFrames: 1e9, AddressBytes: 1e9,
	}}, hub.New(hub.Config{}, b, m, slog.New(slog.DiscardHandler)), b, m, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	s := &session{e: e, about: &about{from: 1}, h: &hub.Session{User: "alice"}}
	s.use = s.newUsage()
	if s.use.user == nil || s.use.address == nil {
		tb.Fatal("user and address have no limits")
	}
	return s
}

func BenchmarkAFramesLimits(b *testing.B) {
	s := sender(b)
	b.ReportAllocs()
	for b.Loop() {
		_ = s.within(message.TypeChat, 1)
	}
}

func TestAFramesLimitsDoNotAllocate(t *testing.T) {
	s := sender(t)
	var failed error
	if n := testing.AllocsPerRun(100, func() { failed = s.within(message.TypeChat, 1) }); n != 0 || failed != nil {
		t.Errorf("%v allocations, %v", n, failed)
	}
}

// A session's own share of what the limits need: an idle one has eight bytes of it.
func TestLimitsCostASessionLittleMemory(t *testing.T) {
	if n := unsafe.Sizeof(session{}); n > 208 { // a size class of the allocator
		t.Errorf("an idle session has %d bytes", n)
	}
	if n := unsafe.Sizeof(usage{}); n > 144 {
		t.Errorf("one that sends has %d bytes more", n)
	}
}
