package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// taken reads all whole frames that are there.
func taken(p *pipe) (frames [][]byte) {
	for p.fetch() {
		for f := p.next(); f != nil; f = p.next() {
			frames = append(frames, slices.Clone(f))
		}
	}
	return frames
}

// ofHub is a pipe whose session does nothing: its hub never runs.
func ofHub(t testing.TB) *pipe {
	t.Helper()
	p := newPipe()
	s, err := hub.New(hub.Config{}, dead{}, message.NewMinter(1), slog.New(slog.DiscardHandler)).Open(hub.Open{Writer: p})
	if err != nil {
		t.Fatal(err)
	}
	p.session = s
	return p
}

func chatFrame(size int) []byte {
	return frame.AppendMessage(nil, &message.Message{Type: "chat", Room: "room", Data: []byte(pattern(0, size))})
}

func TestAPipeTakesWhatItHasRoomForAndSaysSo(t *testing.T) {
	p := ofHub(t)
	f := chatFrame(1000)
	var in []byte
	for len(in) < 2*pipeBytes {
		in = append(in, f...)
	}
	n, err := p.TryWrite(in)
	if n != pipeBytes || err != nil || !p.full {
		t.Fatalf("took %d, %v", n, err)
	}
	if n, err := p.TryWrite(in[n:]); n != 0 || err != nil {
		t.Fatalf("a full pipe took %d, %v", n, err)
	}
	if !p.fetch() || !p.full {
		t.Fatal("what is taken but not sent still fills it")
	}
	for got := 0; got < pipeStep; got += len(p.next()) {
		if !p.full {
			t.Fatal("room before a step was sent")
		}
	}
	p.next()
	if p.full {
		t.Fatal("a step was sent, but the shard is not told")
	}
	if m, err := p.TryWrite(in[n:]); m < pipeStep || m > pipeStep+len(f) || err != nil {
		t.Errorf("took %d more, %v, want a step", m, err)
	}
	p.close()
	if n, err := p.TryWrite(f); n != 0 || !errors.Is(err, errPipeClosed) {
		t.Errorf("a closed pipe took %d, %v", n, err)
	}
	if !p.fetch() {
		t.Error("what a closed pipe holds cannot be taken")
	}
}

func FuzzAnySplitOfFramesGivesTheFrames(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(5))
	f.Add([]byte{0, 125, 126, 127, 200, 255}, uint16(1))
	f.Add([]byte{255, 255, 0, 255}, uint16(60000))
	f.Fuzz(func(t *testing.T, kinds []byte, step uint16) {
		p := ofHub(t)
		var want [][]byte
		var in []byte
		for _, k := range kinds[:min(len(kinds), 40)] {
			switch {
			case k < 10:
				want = append(want, frame.AppendPing(nil))
			case k < 20:
				want = append(want, frame.AppendClose(nil, closeSlow, "slow"))
			case k == 255:
				want = append(want, chatFrame(70_000))
			default:
				want = append(want, chatFrame(int(k)*8))
			}
			in = append(in, want[len(want)-1]...)
		}
		var got [][]byte
		for len(in) > 0 {
			n, err := p.TryWrite(in[:min(len(in), 1+int(step))])
			if err != nil {
				t.Fatal(err)
			}
			in = in[n:]
			if n <= int(step) || len(in)%3 == 0 {
				got = append(got, taken(p)...)
			}
		}
		got = append(got, taken(p)...)
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%d frames of %d, or others", len(got), len(want))
		}
	})
}

func FuzzAPipeNeverPanics(f *testing.F) {
	f.Add([]byte("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("\x81\x7e\x00"))
	f.Add(frame.AppendMessage(nil, &message.Message{Type: "chat", Room: "room", Data: []byte("1")}))
	f.Add(frame.Gap{Room: "room", Reason: "new"}.Append(nil, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := ofHub(t)
		d := &delivery{pipe: p}
		if _, err := p.TryWrite(b); err != nil {
			t.Fatal(err)
		}
		for _, f := range taken(p) {
			_, _ = d.response(f)
		}
	})
}

// sending is a stream whose Send does what a test says.
type sending struct {
	grpc.ServerStreamingServer[realtimev1.SubscribeResponse]
	send func(*realtimev1.SubscribeResponse)
}

func (s sending) Send(resp *realtimev1.SubscribeResponse) error { s.send(resp); return nil }

// What is written before the node goes away is handed over; nothing is written from then on, so that it ends.
func TestWhatIsWrittenWhileASendWaitsIsHandedOverAtTheEnd(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	p := ofHub(t)
	var got int
	write := func() error { _, err := p.TryWrite(chatFrame(10)); return err }
	d := &delivery{pipe: p, keepalive: time.Hour, out: sending{send: func(*realtimev1.SubscribeResponse) {
		if got++; got == 1 {
			if err := write(); err != nil {
				t.Error(err)
			}
			end(errDraining)
		} else if err := write(); !errors.Is(err, errPipeClosed) {
			t.Errorf("while it ends: %v", err)
		}
	}}}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	if err := d.run(ctx); !errors.Is(err, errDraining) || got != 2 {
		t.Errorf("ended with %v after %d of 2", err, got)
	}
}

func TestAControlFrameSaysNothing(t *testing.T) {
	d := &delivery{}
	for _, f := range [][]byte{frame.AppendPing(nil), frame.AppendPong(nil, []byte("x")), frame.AppendClose(nil, closeSlow, "slow")} {
		if resp, err := d.response(f); resp != nil || err != nil {
			t.Errorf("%v, %v", resp, err)
		}
	}
	for _, f := range [][]byte{frame.Reconnect{}.Append(nil, 0), frame.Outage{}.Append(nil, 0)} {
		if resp, err := d.response(f); resp != nil || err != nil {
			t.Errorf("%s: %v, %v", f, resp, err)
		}
	}
}

func BenchmarkDelivery(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := &delivery{rooms: map[string]*place{"room": {room: "room", live: true}}}
			f := frame.AppendMessage(nil, &message.Message{Type: "chat", Room: "room", From: "u1", Data: []byte(`"` + strings.Repeat("x", size) + `"`)})
			b.ReportAllocs()
			b.SetBytes(int64(len(f)))
			for b.Loop() {
				if _, err := d.response(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
