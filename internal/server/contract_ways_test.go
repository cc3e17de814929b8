package server

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// ways tells for each name of the contract what makes it be seen. A way returns when it has done its part.
func (c *contract) ways() map[string]func(*testing.T) {
	all := make(map[string]func(*testing.T))
	for _, ways := range []map[string]func(*testing.T){c.calls(), c.operations(), c.events(), c.errors(), c.closes(), c.refusals(), c.hooked()} {
		maps.Copy(all, ways)
	}
	return all
}

// done fails a call that should have gone well.
func done(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

var said = &realtimev1.MessageContent{Data: `{"text":"hello"}`}

func (c *contract) calls() map[string]func(*testing.T) {
	pub := func(t *testing.T) realtimev1.PublisherServiceClient {
		return realtimev1.NewPublisherServiceClient(c.backend(t, c.Running))
	}
	who := func(t *testing.T) realtimev1.PresenceServiceClient {
		return realtimev1.NewPresenceServiceClient(c.backend(t, c.Running))
	}
	return map[string]func(*testing.T){
		"rpc PublisherService.Publish": func(t *testing.T) {
			_, err := pub(t).Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: said})
			done(t, err)
		},
		"rpc PublisherService.PublishBatch": func(t *testing.T) {
			_, err := pub(t).PublishBatch(t.Context(), &realtimev1.PublishBatchRequest{Items: []*realtimev1.PublishItem{{Room: "general", Message: said}}})
			done(t, err)
		},
		"rpc PublisherService.PublishStream": func(t *testing.T) {
			st, err := pub(t).PublishStream(t.Context())
			done(t, err)
			done(t, st.Send(&realtimev1.PublishStreamRequest{Item: &realtimev1.PublishItem{Room: "general", Message: said}}))
			_, err = st.Recv()
			done(t, err)
		},
		"rpc PublisherService.Broadcast": func(t *testing.T) {
			_, err := pub(t).Broadcast(t.Context(), &realtimev1.BroadcastRequest{Rooms: []string{"a", "b"}, Message: said})
			done(t, err)
		},
		"rpc PublisherService.BroadcastAll": func(t *testing.T) {
			_, err := pub(t).BroadcastAll(t.Context(), &realtimev1.BroadcastAllRequest{Message: said})
			done(t, err)
		},
		"rpc PublisherService.Notify": func(t *testing.T) {
			_, err := pub(t).Notify(t.Context(), &realtimev1.NotifyRequest{UserIds: []string{"alice"}, Message: said})
			done(t, err)
		},
		"rpc PublisherService.GetHistory": func(t *testing.T) {
			_, err := pub(t).GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "general"})
			done(t, err)
		},
		"rpc PublisherService.DeleteHistory": func(t *testing.T) {
			_, err := pub(t).DeleteHistory(t.Context(), &realtimev1.DeleteHistoryRequest{Room: "general"})
			done(t, err)
		},
		"rpc SubscriberService.Subscribe": func(t *testing.T) { c.subscribe(t, c.Running) },
		"rpc PresenceService.GetPresence": func(t *testing.T) {
			_, err := who(t).GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "general"})
			done(t, err)
		},
		"rpc PresenceService.CountPresence": func(t *testing.T) {
			_, err := who(t).CountPresence(t.Context(), &realtimev1.CountPresenceRequest{Rooms: []string{"general"}})
			done(t, err)
		},
		"rpc PresenceService.GetUsers": func(t *testing.T) {
			_, err := who(t).GetUsers(t.Context(), &realtimev1.GetUsersRequest{UserIds: []string{"alice"}})
			done(t, err)
		},
		"rpc PresenceService.ListRooms": func(t *testing.T) {
			_, err := who(t).ListRooms(t.Context(), &realtimev1.ListRoomsRequest{})
			done(t, err)
		},
		"rpc PresenceService.WatchPresence": func(t *testing.T) {
			st, err := who(t).WatchPresence(t.Context(), &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Rooms{Rooms: &realtimev1.RoomSet{Rooms: []string{"general"}}}})
			done(t, err)
			_, err = st.Recv()
			done(t, err)
		},
	}
}

// subscribe begins a stream and waits until its room is live.
func (c *contract) subscribe(t testing.TB, r *Running) realtimev1.SubscriberService_SubscribeClient {
	t.Helper()
	st, err := realtimev1.NewSubscriberServiceClient(c.backend(t, r)).Subscribe(t.Context(), &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{{Room: "general"}}})
	if err == nil {
		_, err = st.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (c *contract) events() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"event welcome":    func(t *testing.T) { c.open(t, c.Running, "/ws") },
		"event subscribed": func(t *testing.T) { c.open(t, c.Running, "/ws/general") },
		"event unsubscribed": func(t *testing.T) {
			c.open(t, c.Running, "/ws/general").say(`{"type":"unsubscribe","room":"general"}`)
		},
		"event gap": func(t *testing.T) {
			c.open(t, c.Running, "/ws/forgotten").want("subscribed")
			pub := realtimev1.NewPublisherServiceClient(c.backend(t, c.Running))
			_, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "forgotten", Message: said})
			done(t, err)
			_, err = pub.DeleteHistory(t.Context(), &realtimev1.DeleteHistoryRequest{Room: "forgotten"})
			done(t, err)
		},
		"event expiring": func(t *testing.T) { c.open(t, c.Running, "/ws?token="+c.token(4*time.Second)) },
		"event renewed": func(t *testing.T) {
			c.open(t, c.Running, "/ws?token="+c.token(time.Minute)).say(`{"type":"auth","data":{"token":"` + c.token(time.Hour) + `"}}`)
		},
		"event reconnect": c.drain,
		"event degraded":  c.outage,
		"event restored":  c.outage,
	}
}

// drain ends a server of its own with sessions and a stream on it.
func (c *contract) drain(t *testing.T) {
	r := StartServer(t, "--drain-window=2s", "--drain-timeout=8s")
	for range 2 { // the second one's turn is a second later
		c.open(t, r, "/ws/general").want("subscribed")
	}
	st := c.subscribe(t, r)
	r.stop()
	if _, err := st.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	before := c.times("error draining")
	eventually(t, "nobody is let in", func() bool {
		c.handshake(t, r, "/ws/general")
		return c.times("error draining") > before
	})
	_, err := r.wait(time.Now())
	done(t, err)
}

// outage kills the Redis of a server of its own that takes nothing meanwhile, and starts it again.
func (c *contract) outage(t *testing.T) {
	redis := redistest.Start(t)
	r := StartServer(t, "--redis-url="+redis.Addr, "--degraded=reject", "--drain-window=0s")
	s := c.open(t, r, "/ws/general").want("subscribed")
	pub := realtimev1.NewPublisherServiceClient(c.backend(t, r))
	redis.Kill()
	if _, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: said}); err == nil {
		t.Error("taken")
	}
	s.want("degraded").say(`{"type":"chat"}`)
	s.want("error")
	redis.Restart()
	s.want("restored")
}

// never is a room that does not become live: its node may not subscribe any more.
func (c *contract) never(t *testing.T) {
	redis := redistest.Start(t)
	redis.Do("ACL", "SETUSER", "ann", "on", ">right", "allcommands", "allkeys", "allchannels")
	r := StartServer(t, "--redis-url=redis://ann:right@"+redis.Addr)
	redis.Do("ACL", "SETUSER", "ann", "resetchannels")
	c.open(t, r, "/ws/general")
}

// says is a way in which a session sends frames.
func (c *contract) says(target string, frames ...string) func(*testing.T) {
	return func(t *testing.T) { c.open(t, c.Running, target).say(frames...) }
}

// asks is a way in which a handshake is refused.
func (c *contract) asks(target string, headers ...string) func(*testing.T) {
	return func(t *testing.T) { c.handshake(t, c.Running, target, headers...) }
}

func (c *contract) errors() map[string]func(*testing.T) {
	rooms := make([]string, 129)
	many := make([]string, 60)
	for i := range rooms {
		rooms[i] = fmt.Sprintf(`"r%d":null`, i)
	}
	for i := range many {
		many[i] = `{"type":"presence","data":{"status":"online"}}`
	}
	return map[string]func(*testing.T){
		"error bad_frame":      c.says("/ws", `{`),
		"error unknown_type":   c.says("/ws", `{"type":"none"}`),
		"error forbidden_type": c.says("/ws", `{"type":"system"}`),
		"error bad_room":       c.says("/ws", `{"type":"subscribe","room":"a//b"}`),
		"error not_permitted":  c.says("/ws", `{"type":"subscribe","room":"@user/bob"}`),
		"error not_joined":     c.says("/ws/general", `{"type":"chat","room":"elsewhere"}`),
		"error too_large":      c.says("/odd/general", `{"type":"chat","data":"`+strings.Repeat("x", 70<<10)+`"}`),
		"error room_limit":     c.says("/ws", `{"type":"subscribe","data":{"rooms":{`+strings.Join(rooms, ",")+`}}}`),
		"error rate_limited":   c.says("/ws", many...),
		"error busy":           c.says("/ws/general", `{"type":"history"}`, `{"type":"history"}`),
		"error bad_token":      c.asks("/ws?token=none"),
		"error internal":       c.says("/odd/fail", `{"type":"chat"}`),
		"error bad_request":    c.asks("/elsewhere"),
		"error bad_origin":     c.asks("/ws", "Origin", "https://example.com"),
		"error at_capacity": func(t *testing.T) {
			r := StartServer(t, "--max-sessions=1")
			c.open(t, r, "/ws").want("welcome")
			c.handshake(t, r, "/ws")
		},
		"error session_limit": func(t *testing.T) {
			r := StartServer(t, "--jwt-key=env:CONTRACT_SECRET", "--user-sessions=1")
			c.open(t, r, "/ws?token="+c.token(time.Minute)).want("welcome")
			c.handshake(t, r, "/ws?token="+c.token(time.Minute))
		},
		"error draining":           c.drain,
		"error overloaded":         c.overload,
		"error broker_unavailable": c.outage,
	}
}

// overload fills a room most of whose members read nothing, while another of them speaks.
func (c *contract) overload(t *testing.T) {
	pub := realtimev1.NewPublisherServiceClient(c.backend(t, c.Running))
	big := &realtimev1.MessageContent{Data: `"` + strings.Repeat("x", 60<<10) + `"`}
	for range 2 {
		ws, nc := c.handshake(t, c.Running, "/ws/full")
		if err := nc.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
	}
	speaker := c.open(t, c.Running, "/ws/full").want("subscribed")
	told, answered := c.times("error overloaded"), c.times("reason OVERLOADED")
	full := make(chan struct{})
	go func() {
		defer close(full)
		for {
			if _, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "full", Message: big}); err != nil {
				if status.Code(err) != codes.ResourceExhausted {
					t.Errorf("publish: %v", err)
				}
				return
			}
		}
	}()
	eventually(t, "the room is full", func() bool {
		select {
		case <-full:
			return true
		case <-time.After(60 * time.Millisecond): // what a session may send
			speaker.say(`{"type":"chat"}`)
			return false
		}
	})
	eventually(t, "both are told", func() bool {
		return c.times("error overloaded") > told && c.times("reason OVERLOADED") > answered
	})
}

func (c *contract) closes() map[string]func(*testing.T) {
	sends := func(target, bytes string) func(*testing.T) {
		return func(t *testing.T) { c.open(t, c.Running, target).want("welcome").send(bytes) }
	}
	return map[string]func(*testing.T){
		"close 1000": sends("/ws", wire(0x88, "\x03\xe8")),
		"close 1001": sends("/ws", wire(0x88, "\x03\xe9")),
		"close 1002": sends("/ws", "\x81\x00"), // not masked
		"close 1003": sends("/ws", wire(0x82, "binary")),
		"close 1005": sends("/ws", wire(0x88, "")),
		"close 1006": func(t *testing.T) { // nobody sees it but who counts
			_ = c.open(t, c.Running, "/ws").want("welcome").nc.Close()
			eventually(t, "it is counted", func() bool {
				_, got := c.scrape()
				return got["realtime_sessions_closed_total 1006"] > 0
			})
			c.saw("close 1006")
		},
		"close 1007": sends("/ws", wire(0x81, "\xff")),
		"close 1009": sends("/ws", wire(0x81, strings.Repeat(" ", 65<<10))),
		"close 1011": c.says("/odd/panic", `{"type":"chat"}`),
		"close 1012": c.drain,
		"close 1013": c.never,
		"close 4000": c.says("/odd/slow", `{"type":"chat"}`),
		"close 4001": sends("/odd", "\x81"),
		"close 4500": func(t *testing.T) { c.open(t, c.Running, "/ws?token="+c.token(2*time.Second)).want("expiring") },
		"close 4502": func(t *testing.T) { c.open(t, c.Running, "/ws?refuse=close&token=none") },
		"close 4504": sends("/ws", strings.Repeat(wire(0x89, ""), 200)),
	}
}

func (c *contract) refusals() map[string]func(*testing.T) {
	publish := func(room string, m *realtimev1.MessageContent) func(*testing.T) {
		return c.refused(func(ctx context.Context, pub realtimev1.PublisherServiceClient) error {
			_, err := pub.Publish(ctx, &realtimev1.PublishRequest{Room: room, Message: m})
			return err
		})
	}
	history := func(req *realtimev1.GetHistoryRequest) func(*testing.T) {
		return c.refused(func(ctx context.Context, pub realtimev1.PublisherServiceClient) error {
			_, err := pub.GetHistory(ctx, req)
			return err
		})
	}
	return map[string]func(*testing.T){
		"reason ROOM_INVALID":   publish("a//b", said),
		"reason TYPE_FORBIDDEN": publish("general", &realtimev1.MessageContent{Type: "ack"}),
		"reason DATA_INVALID":   publish("general", &realtimev1.MessageContent{Data: "{"}),
		"reason DATA_TOO_LARGE": publish("general", &realtimev1.MessageContent{Data: `"` + strings.Repeat("x", 65<<10) + `"`}),
		"reason TOO_MANY_ITEMS": c.refused(func(ctx context.Context, pub realtimev1.PublisherServiceClient) error {
			_, err := pub.PublishBatch(ctx, &realtimev1.PublishBatchRequest{Items: make([]*realtimev1.PublishItem, 1001)})
			return err
		}),
		"reason POSITION_INVALID": history(&realtimev1.GetHistoryRequest{Room: "general", Start: &realtimev1.GetHistoryRequest_AfterId{AfterId: "none"}}),
		"reason USER_INVALID": c.refused(func(ctx context.Context, pub realtimev1.PublisherServiceClient) error {
			_, err := pub.Publish(ctx, &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{ExcludeUserIds: []string{""}}})
			return err
		}),
		"reason ARGUMENT_INVALID": c.refused(func(ctx context.Context, pub realtimev1.PublisherServiceClient) error {
			_, err := pub.PublishBatch(ctx, &realtimev1.PublishBatchRequest{})
			return err
		}),
		"reason INTERNAL":   history(&realtimev1.GetHistoryRequest{Room: "faulty"}),
		"reason OVERLOADED": c.overload,
		"reason DRAINING":   c.drain,

		"reason BROKER_UNAVAILABLE": c.outage,
		"reason CREDENTIAL_INVALID": func(t *testing.T) {
			t.Setenv("CONTRACT_KEY", "0123456789abcdef")
			c.publishUntil(t, StartServer(t, "--grpc-key=env:CONTRACT_KEY"), codes.Unauthenticated)
		},
		"reason SCOPE_MISSING": func(t *testing.T) {
			r := StartServer(t, "--grpc-jwt-key=env:CONTRACT_SECRET", "--grpc-jwt-audience=backends")
			token, err := auth.SignWith([]byte(contractSecret), auth.Claims{User: "shop", Audience: "backends", Scope: "presence", Expires: time.Now().Add(time.Hour)})
			done(t, err)
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
			if _, err := realtimev1.NewPublisherServiceClient(c.backend(t, r)).Publish(ctx, &realtimev1.PublishRequest{Room: "general", Message: said}); status.Code(err) != codes.PermissionDenied {
				t.Error(err)
			}
		},
		"reason FEATURE_OFF": func(t *testing.T) {
			who := realtimev1.NewPresenceServiceClient(c.backend(t, StartServer(t, "--no-presence")))
			_, get := who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "general"})
			_, count := who.CountPresence(t.Context(), &realtimev1.CountPresenceRequest{Rooms: []string{"general"}})
			_, users := who.GetUsers(t.Context(), &realtimev1.GetUsersRequest{UserIds: []string{"ada"}})
			_, rooms := who.ListRooms(t.Context(), &realtimev1.ListRoomsRequest{})
			watch, err := who.WatchPresence(t.Context(), &realtimev1.WatchPresenceRequest{})
			if err == nil {
				_, err = watch.Recv()
			}
			for _, err := range []error{get, count, users, rooms, err} {
				if status.Code(err) != codes.FailedPrecondition {
					t.Error(err)
				}
			}
		},
		"reason RATE_LIMITED": func(t *testing.T) { c.publishUntil(t, StartServer(t, "--grpc-rate=1"), codes.ResourceExhausted) },
	}
}

// refused is a way in which a call is refused.
func (c *contract) refused(call func(context.Context, realtimev1.PublisherServiceClient) error) func(*testing.T) {
	return func(t *testing.T) {
		if err := call(t.Context(), realtimev1.NewPublisherServiceClient(c.backend(t, c.Running))); err == nil {
			t.Error("taken")
		}
	}
}

// publishUntil publishes until it is refused so.
func (c *contract) publishUntil(t *testing.T, r *Running, want codes.Code) {
	pub := realtimev1.NewPublisherServiceClient(c.backend(t, r))
	eventually(t, want.String(), func() bool {
		_, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: said})
		return status.Code(err) == want
	})
}
