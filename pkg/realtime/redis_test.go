package realtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/redis/redistest"
	"github.com/slack5/realtime/internal/server"
	"github.com/slack5/realtime/pkg/realtime"
)

// exampleTB is what a server of redistest needs of a test.
type exampleTB struct {
	testing.TB
	example
	dir  string
	last []func()
}

func (t *exampleTB) Helper()                           {}
func (t *exampleTB) Fatalf(format string, args ...any) { t.example.Fatalf(format, args...) }
func (t *exampleTB) Fatal(args ...any)                 { t.Fatalf("%v", args) }
func (t *exampleTB) Cleanup(f func())                  { t.last = append(t.last, f) }
func (t *exampleTB) Context() context.Context          { return context.Background() }
func (t *exampleTB) TempDir() string                   { return t.dir }

// redisOfExample is a redis-server that an example ends.
type redisOfExample struct {
	*redistest.Server
	end func()
}

func exampleRedis() redisOfExample {
	dir, err := os.MkdirTemp("", "realtime")
	if err != nil {
		panic(err)
	}
	t := &exampleTB{dir: dir}
	return redisOfExample{redistest.Start(t), func() {
		for _, f := range t.last {
			f()
		}
		_ = os.RemoveAll(dir)
	}}
}

func at(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{addr}}
}

// on is a hub that runs on Redis with one handler.
func (p *program) on(addr string, cfg realtime.HandlerConfig, hub ...realtime.HubConfig) *program {
	p.run(realtime.NewHub(p.logger, hub...))
	cfg.Broadcaster = realtime.NewRedisBroadcaster(at(addr), p.hub, p.logger)
	p.connects(cfg.Broadcaster)
	p.mount(cfg)
	return p
}

// service is `realtime serve`, seen as a program.
func service(t *testing.T, args ...string) *program {
	t.Helper()
	var cfg config.Serve
	k, err := kong.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse(append([]string{"--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--drain-delay=0s", "--drain-window=0s"}, args...)); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.New(t.Context(), &cfg, io.Discard, logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the service: %v", err)
		}
	})
	edge, _, _ := s.Addrs()
	p := &program{t: t, logger: logger, server: &httptest.Server{URL: "http://" + edge}}
	t.Cleanup(func() {
		for _, s := range p.peers {
			s.leave()
		}
	})
	return p
}

// messages are the data of a room's history as a session gets it.
func (s *peer) messages() (data []string) {
	s.t.Helper()
	s.say(`{"type":"history","data":{"limit":100}}`)
	var page struct{ Messages []realtime.Message }
	if err := json.Unmarshal(s.want("history").Data, &page); err != nil {
		s.t.Fatalf("history: %v", err)
	}
	for _, m := range page.Messages {
		data = append(data, string(m.Data))
	}
	return data
}

// who is the answer to the question who is there.
func (s *peer) who() string {
	s.t.Helper()
	s.say(`{"type":"who","ref":"who"}`)
	for {
		r, err := s.read()
		if err != nil {
			s.t.Fatalf("waiting for who is there: %v", err)
		}
		if r.Ref == "who" {
			return string(r.Data)
		}
	}
}

func TestTwoProgramsAndAServiceShareRoomsHistoryAndWhoIsThere(t *testing.T) {
	t.Setenv("TEST_KEY", secret)
	redis := redistest.Start(t)
	cfg := realtime.HandlerConfig{AuthRequired: true, Auth: realtime.AuthConfig{Keys: []string{"env:TEST_KEY"}}}
	one, two := start(t).on(redis.Addr, cfg), start(t).on(redis.Addr, cfg)
	serve := service(t, "--redis-url="+redis.Addr, "--jwt-key=env:TEST_KEY")
	as := func(user string) string {
		return "Authorization: Bearer " + token(t, secret, jwt.MapClaims{"sub": user})
	}
	all := []*peer{one.join("/ws/general", as("ann")), two.join("/ws/general", as("ben")), serve.join("/ws/general", as("cem"))}

	// What each says reaches all, in one order.
	var want []string
	for i, from := range all {
		data := []string{`"of one"`, `"of two"`, `"of the service"`}[i]
		from.say(`{"type":"chat","data":` + data + `}`)
		for _, to := range all {
			if got := to.want("chat"); string(got.Data) != data || got.From != from.User {
				t.Errorf("%s got %s of %s, want %s of %s", to.User, got.Data, got.From, data, from.User)
			}
		}
		want = append(want, data)
	}
	// So does what a program publishes: to a room, and to everyone.
	for _, room := range []string{"general", ""} {
		msg := &realtime.Message{Room: room, Type: realtime.MessageTypeNotification, Data: []byte(`"of the program"`)}
		if err := two.hub.Publish(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		for _, to := range all {
			if got := to.want("notification"); got.ID != msg.ID || string(got.Data) != string(msg.Data) {
				t.Errorf("%s got %s with %s, want %s", to.User, got.Data, got.ID, msg.ID)
			}
		}
	}
	want = append(want, `"of the program"`)
	for _, s := range all {
		if got := s.messages(); !slices.Equal(got, want) {
			t.Errorf("history where %s is: %s, want %s", s.User, got, want)
		}
	}

	// All know who is there, wherever he is.
	for name, p := range map[string]*program{"one": one, "two": two} {
		for _, room := range []string{"general", ""} {
			p.until(name+" knows who is where", func() bool {
				users, err := p.hub.Presence(t.Context(), room)
				return err == nil && slices.Equal(users, []realtime.PresenceData{
					{Status: realtime.PresenceOnline, UserID: "ann"}, {Status: realtime.PresenceOnline, UserID: "ben"}, {Status: realtime.PresenceOnline, UserID: "cem"},
				})
			})
		}
	}
	serve.until("the service knows who is where", func() bool {
		who := all[2].who()
		return strings.Contains(who, `"ann"`) && strings.Contains(who, `"ben"`) && strings.Contains(who, `"cem"`)
	})

	// Who has seen something of one process comes back at another, and has missed nothing.
	last := ""
	for i, p := range []*program{serve, one, two} {
		data := []string{`1`, `2`, `3`}[i]
		msg := &realtime.Message{Room: "general", Data: json.RawMessage(data)}
		if i == 0 {
			if err := one.hub.Publish(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
			last = all[1].want("chat").ID
			all[1].leave()
			continue
		}
		if err := two.hub.Publish(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
		s := p.connect("/ws/general?last_id="+last, as("ben"))
		if got := s.want("chat"); string(got.Data) != data {
			t.Errorf("replayed %s, want %s", got.Data, data)
		} else {
			last = got.ID
		}
		s.want("subscribed")
		s.leave()
	}
	s := serve.connect("/ws/general?last_id="+all[0].want("chat").ID, as("ben")) // of 1, the first
	for _, data := range []string{`2`, `3`} {
		if got := s.want("chat"); string(got.Data) != data {
			t.Errorf("the service replays %s, want %s", got.Data, data)
		}
	}
}

func TestAHandlerMadeBeforeTheBroadcasterIsOnRedisToo(t *testing.T) {
	redis := redistest.Start(t)
	other := start(t).on(redis.Addr, realtime.HandlerConfig{})
	if err := other.hub.Publish(t.Context(), &realtime.Message{Room: "general", Data: []byte(`"old"`)}); err != nil {
		t.Fatal(err)
	}
	p := start(t)
	p.run(realtime.NewHub(p.logger))
	p.mount(realtime.HandlerConfig{})
	p.connects(realtime.NewRedisBroadcaster(at(redis.Addr), p.hub, p.logger))
	if got := p.join("/ws/general").messages(); !slices.Equal(got, []string{`"old"`}) {
		t.Errorf("history %s", got)
	}
}

func TestAHubInUseIsNotMovedAnyMore(t *testing.T) {
	for name, use := range map[string]func(p *program) error{
		"a session": func(p *program) error { p.join("/ws/general"); return nil },
		"a message": func(p *program) error { return p.hub.Publish(p.ctx, &realtime.Message{}) },
		"a question": func(p *program) error {
			_, err := p.hub.Presence(p.ctx, "general")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			p := start(t).with(realtime.HandlerConfig{})
			if err := use(p); err != nil {
				t.Fatal(err)
			}
			b := realtime.NewRedisBroadcaster(at("127.0.0.1:1"), p.hub, slog.New(slog.NewTextHandler(&log, nil)))
			for what, err := range map[string]error{"Run": b.Run(t.Context()), "Publish": b.Publish(t.Context(), &realtime.Message{})} {
				if err == nil || !strings.Contains(err.Error(), "before its first session") {
					t.Errorf("%s() = %v", what, err)
				}
			}
			if !strings.Contains(log.String(), "the hub is not on redis") {
				t.Errorf("log:\n%s", log.String())
			}
			p.join("/ws/general") // it goes on
			other := &program{t: t, logger: p.logger, hub: p.hub}
			other.mount(realtime.HandlerConfig{Broadcaster: b})
			t.Cleanup(other.server.Close)
			if code, _ := other.status("/ws/general"); code != 500 {
				t.Errorf("a handler with that Broadcaster: %d, want 500", code)
			}
		})
	}
}

func TestAHubHasOneBroadcasterWhichRunsOnce(t *testing.T) {
	redis := redistest.Start(t)
	p := start(t)
	p.run(realtime.NewHub(p.logger))
	b := realtime.NewRedisBroadcaster(at(redis.Addr), p.hub, nil)
	p.connects(b)
	if err := b.Publish(t.Context(), &realtime.Message{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
	if err := realtime.NewRedisBroadcaster(at(redis.Addr), p.hub, nil).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("another one: %v", err)
	}
}

func TestTheEndOfABroadcasterIsThatOfItsHub(t *testing.T) {
	redis := redistest.Start(t)
	p := start(t)
	p.run(realtime.NewHub(p.logger, realtime.HubConfig{DrainWindow: -1}))
	b := realtime.NewRedisBroadcaster(at(redis.Addr), p.hub, p.logger)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	p.mount(realtime.HandlerConfig{})
	s := p.join("/ws/general")
	stop()
	s.want("reconnect")
	if code, _ := s.closed(); code != 1012 {
		t.Errorf("closed %d, want 1012", code)
	}
	if err := errors.Join(p.wait(ended), p.wait(p.ended)); err != nil {
		t.Error(err)
	}
}

func TestABroadcasterWhoseHubDoesNotRunEndsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := realtime.NewRedisBroadcaster(at("127.0.0.1:1"), realtime.NewHub(nil), nil).Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestAHubDoesNotBeginOnARedisThatWillNotDo(t *testing.T) {
	redis := redistest.Start(t)
	redis.Do("CONFIG", "SET", "requirepass", "right")
	wrong := at(redis.Addr)
	wrong.Password = "hunter2"
	for name, c := range map[string]struct {
		opt  rueidis.ClientOption
		text string
	}{
		"a wrong password": {wrong, redis.Addr},
		"no address":       {rueidis.ClientOption{}, "InitAddress"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			hub := realtime.NewHub(nil)
			b := realtime.NewRedisBroadcaster(c.opt, hub, slog.New(slog.NewTextHandler(&log, nil)))
			p := &program{t: t}
			p.run(hub)
			p.connects(b)
			defer p.stop()
			for what, ended := range map[string]chan error{"the broadcaster's": p.left, "the hub's": p.ended} {
				if err := p.wait(ended); err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s Run() = %v, want it to name %s", what, err, c.text)
				}
			}
			if s := log.String(); !strings.Contains(s, c.text) || strings.Contains(s, "hunter2") {
				t.Errorf("log:\n%s", s)
			}
		})
	}
}

func TestARedisThatComesLaterAndWillNotDoEndsTheHub(t *testing.T) {
	redis := redistest.Start(t, "--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
	redis.Kill()
	p := start(t).on(redis.Addr, realtime.HandlerConfig{}, realtime.HubConfig{DrainWindow: -1})
	s := p.join("/ws/general")
	redis.Restart()
	s.want("reconnect")
	if err := p.wait(p.ended); err == nil || !strings.Contains(err.Error(), redis.Addr) {
		t.Errorf("the hub's Run() = %v", err)
	}
	if err := p.wait(p.left); err == nil || !strings.Contains(err.Error(), redis.Addr) {
		t.Errorf("the broadcaster's Run() = %v", err)
	}
	p.hub = nil // it has ended, with an error
}

func TestWhileRedisIsAwayEachHubGoesOnByItself(t *testing.T) {
	redis := redistest.Start(t)
	one, two := start(t).on(redis.Addr, realtime.HandlerConfig{}), start(t).on(redis.Addr, realtime.HandlerConfig{})
	ann, ben := one.join("/ws/general"), two.join("/ws/general")
	redis.Kill()
	ann.want("degraded")
	ben.want("degraded")
	msg := &realtime.Message{Room: "general", Data: []byte(`"meanwhile"`)}
	if err := one.hub.Publish(t.Context(), msg); err != nil || msg.ID == "" {
		t.Errorf("Publish() = %v, its id %q", err, msg.ID)
	}
	if got := ann.want("chat"); string(got.Data) != `"meanwhile"` {
		t.Errorf("got %s", got.Data)
	}
	redis.Restart()
	if got := ben.want("chat"); string(got.Data) != `"meanwhile"` {
		t.Errorf("got %s", got.Data)
	}
}

func TestAHubThatRejectsPublishesNothingWhileRedisIsAway(t *testing.T) {
	redis := redistest.Start(t)
	redis.Kill()
	p := start(t).on(redis.Addr, realtime.HandlerConfig{}, realtime.HubConfig{RejectWhenDegraded: true})
	s := p.join("/ws/general")
	if err := p.hub.Publish(t.Context(), &realtime.Message{Room: "general"}); !errors.Is(err, realtime.ErrUnavailable) {
		t.Errorf("Publish() = %v, want ErrUnavailable", err)
	}
	redis.Restart()
	p.until("it publishes", func() bool {
		return p.hub.Publish(t.Context(), &realtime.Message{Room: "general", Data: []byte(`"back"`)}) == nil
	})
	if got := s.want("chat"); string(got.Data) != `"back"` {
		t.Errorf("got %s", got.Data)
	}
}
