package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
)

// backend is a node behind gRPC, and a caller of it.
type backend struct {
	*Server
	node   *node.Node
	minter *message.Minter
	addr   string
	sub    realtimev1.SubscriberServiceClient
	log    *lines
}

// backendOf starts a node with its server, both of which end with the test.
func backendOf(t testing.TB, cfg Config, nc node.Config) *backend {
	t.Helper()
	n := node.New(nc, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	run(t, n.Run)
	<-n.Ready()
	b := served1(t, cfg, Parts{Publisher: n.Publisher(), Broker: n.Broker(), Hub: n.Hub()})
	b.node, b.minter = n, message.NewMinter(7)
	return b
}

// run runs part of a node until the test's end.
func run(t testing.TB, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

// served1 starts a server over these parts.
func served1(t testing.TB, cfg Config, p Parts) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: l.Addr().String(), log: &lines{}}
	b.Server = New(context.WithoutCancel(t.Context()), cfg, p, slog.New(slog.NewJSONHandler(b.log, nil)))
	ended := make(chan error, 1)
	go func() { ended <- b.Serve(l) }()
	t.Cleanup(func() {
		b.Shutdown(context.WithoutCancel(t.Context()))
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	b.sub = b.dial(t)
	return b
}

// dial is a connection of its own, with a window that does not grow: what is not read stays with the server.
func (b *backend) dial(t testing.TB) realtimev1.SubscriberServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(b.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return realtimev1.NewSubscriberServiceClient(conn)
}

// publish gives the broker a message: nobody holds it up.
func (b *backend) publish(t testing.TB, room message.Room, data string, change ...func(*message.Message)) message.ID {
	t.Helper()
	m := &message.Message{Type: "chat", Room: room, From: "u1", Data: []byte(data), Timestamp: time.Now().UnixMilli()}
	for _, c := range change {
		c(m)
	}
	m.ID.Low = b.minter.Low(room.Tag(), m.Ephemeral)
	r, err := b.node.Broker().Publish(t.Context(), broker.Publication{Message: m})
	if err != nil {
		t.Error(err)
	}
	return r.ID
}

// feed is a stream as its caller reads it.
type feed struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[realtimev1.SubscribeResponse]
	leave  context.CancelFunc
}

func from(room, after string) *realtimev1.RoomStart {
	return &realtimev1.RoomStart{Room: room, AfterId: after}
}

// open calls Subscribe. The stream ends with the test, or in half a minute.
func open(t *testing.T, sub realtimev1.SubscriberServiceClient, req *realtimev1.SubscribeRequest) *feed {
	t.Helper()
	ctx, leave := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(leave)
	st, err := sub.Subscribe(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &feed{t, st, leave}
}

// live opens a stream from now on and reads until all its rooms are live.
func (b *backend) live(t *testing.T, rooms ...string) *feed {
	t.Helper()
	req := &realtimev1.SubscribeRequest{}
	for _, r := range rooms {
		req.Rooms = append(req.Rooms, from(r, ""))
	}
	f := open(t, b.sub, req)
	for range rooms {
		if got := f.next(); got != "subscribed "+rooms[0] && len(rooms) == 1 {
			t.Fatalf("first came %q", got)
		}
	}
	return f
}

func (f *feed) recv() *realtimev1.SubscribeResponse {
	f.t.Helper()
	resp, err := f.stream.Recv()
	if err != nil {
		f.t.Fatalf("the stream ended: %v", err)
	}
	return resp
}

// next is the next event in words.
func (f *feed) next() string {
	f.t.Helper()
	return words(f.recv())
}

// expect reads events and compares.
func (f *feed) expect(want ...string) {
	f.t.Helper()
	for i, w := range want {
		if got := f.next(); got != w {
			f.t.Fatalf("event %d is %q, want %q", i, got, w)
		}
	}
}

func words(resp *realtimev1.SubscribeResponse) string {
	switch e := resp.GetEvent().(type) {
	case *realtimev1.SubscribeResponse_Message:
		m := e.Message
		s := m.GetRoom() + " " + m.GetType() + " " + m.GetData()
		if m.GetEphemeral() {
			s += " ephemeral"
		}
		if m.GetDegraded() {
			s += " degraded"
		}
		return s
	case *realtimev1.SubscribeResponse_Gap:
		return "gap " + e.Gap.GetRoom() + " " + e.Gap.GetReason().String()
	case *realtimev1.SubscribeResponse_Subscribed:
		if !e.Subscribed.GetRecovered() {
			return "subscribed " + e.Subscribed.GetRoom() + " with a gap"
		}
		return "subscribed " + e.Subscribed.GetRoom()
	case *realtimev1.SubscribeResponse_Keepalive:
		return "keepalive"
	}
	return fmt.Sprintf("%T", resp.GetEvent())
}

// end reads the stream to its end and returns what came, and how it ended.
func (f *feed) end() (all []*realtimev1.SubscribeResponse, err error) {
	for {
		resp, err := f.stream.Recv()
		if err != nil {
			return all, err
		}
		all = append(all, resp)
	}
}
