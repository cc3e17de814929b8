package realtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/pkg/realtime"
)

func TestNeitherGRPCNorFlagsNorExportersAreLinked(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "github.com/slack5/realtime/internal/node\n") {
		t.Fatalf("not this package's dependencies:\n%s", out)
	}
	for pkg := range strings.Lines(string(out)) {
		for _, unwanted := range []string{
			"flag\n", "google.golang.org/", "github.com/alecthomas/", "github.com/prometheus/", "go.opentelemetry.io/otel/exporters/",
			"go.opentelemetry.io/otel/sdk", "github.com/slack5/realtime/gen/", "github.com/slack5/realtime/internal/server",
		} {
			if strings.HasPrefix(pkg, unwanted) {
				t.Errorf("%s is linked", strings.TrimSpace(pkg))
			}
		}
	}
}

func TestAPublishedMessageGetsItsIDAndTimeAndKeepsWhatWasSet(t *testing.T) {
	p := start(t).with(realtime.HandlerConfig{})
	s := p.join("/ws/general")
	at := time.Date(2024, 1, 15, 10, 30, 0, 123456789, time.FixedZone("", 3600))
	for name, c := range map[string]struct {
		msg  realtime.Message
		want realtime.Message
	}{
		"defaults": {realtime.Message{Room: "general"}, realtime.Message{Room: "general", Type: "chat", Data: []byte(`null`)}},
		"all set": {
			realtime.Message{ID: "mine", Room: "general", Type: "vote", From: "the jury", Data: []byte(`{"n": 1}`), Timestamp: at},
			realtime.Message{Room: "general", Type: "vote", From: "the jury", Data: []byte(`{"n": 1}`), Timestamp: at.Truncate(time.Millisecond)},
		},
		"for everyone": {realtime.Message{Type: realtime.MessageTypeNotification}, realtime.Message{Room: "@global", Type: "notification", Data: []byte(`null`)}},
		"presence":     {realtime.Message{Type: realtime.MessageTypePresence}, realtime.Message{Room: "@global", Type: "presence", Data: []byte(`null`)}},
		"error":        {realtime.Message{Type: realtime.MessageTypeError, Room: "general"}, realtime.Message{Room: "general", Type: "error", Data: []byte(`null`)}},
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now().Truncate(time.Millisecond)
			if err := p.hub.Publish(t.Context(), &c.msg); err != nil {
				t.Fatal(err)
			}
			got := s.want(string(c.want.Type))
			if got.ID != c.msg.ID || got.Room != c.want.Room || got.From != c.want.From || string(got.Data) != string(c.want.Data) {
				t.Errorf("received %+v, published %+v", got, c.msg)
			}
			if !got.Timestamp.Equal(c.msg.Timestamp) || !c.want.Timestamp.IsZero() && !got.Timestamp.Equal(c.want.Timestamp) || c.want.Timestamp.IsZero() && got.Timestamp.Before(before) {
				t.Errorf("received of %v, published of %v", got.Timestamp, c.msg.Timestamp)
			}
		})
	}
}

func TestWhatIsPublishedIsTheCallersToChangeAfterwards(t *testing.T) {
	p := start(t).with(realtime.HandlerConfig{})
	msg := &realtime.Message{Room: "general", Data: []byte(`"old"`)}
	if err := p.hub.Publish(t.Context(), &realtime.Message{Room: "general"}); err != nil {
		t.Fatal(err)
	}
	if err := p.hub.Publish(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	copy(msg.Data, `"new"`)
	s := p.join("/ws/general")
	s.say(`{"type":"history"}`)
	if got := s.want("history"); !bytes.Contains(got.Data, []byte(`"old"`)) {
		t.Errorf("history %s", got.Data)
	}
}

func TestPublishSaysWhatIsWrongAndLeavesTheMessageAsItWas(t *testing.T) {
	p := start(t).with(realtime.HandlerConfig{})
	large := json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`)
	for name, c := range map[string]struct {
		msg  *realtime.Message
		err  error
		text string
	}{
		"no message":         {nil, realtime.ErrInvalid, "nil"},
		"a room of no name":  {&realtime.Message{Room: "a//b"}, realtime.ErrInvalid, "room"},
		"the server's room":  {&realtime.Message{Room: "@global"}, realtime.ErrInvalid, "room"},
		"the server's type":  {&realtime.Message{Type: realtime.MessageTypePong}, realtime.ErrInvalid, "type"},
		"a type in capitals": {&realtime.Message{Type: "Chat"}, realtime.ErrInvalid, "type"},
		"no JSON":            {&realtime.Message{Data: []byte(`{"text":"say "hi""}`)}, realtime.ErrInvalid, "JSON"},
		"a system event":     {&realtime.Message{Type: "system", Data: []byte(`{"event":"welcome"}`)}, realtime.ErrInvalid, "event"},
		"too large":          {&realtime.Message{Data: large}, realtime.ErrTooLarge, "65536"},
		"a long name":        {&realtime.Message{From: strings.Repeat("x", 129)}, realtime.ErrInvalid, "128"},
		"before 1970":        {&realtime.Message{Timestamp: time.Unix(-1, 0)}, realtime.ErrInvalid, "timestamp"},
	} {
		t.Run(name, func(t *testing.T) {
			var before realtime.Message
			if c.msg != nil {
				before = *c.msg
			}
			err := p.hub.Publish(t.Context(), c.msg)
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Publish() = %v, want %v with %q", err, c.err, c.text)
			}
			if c.msg != nil && (c.msg.ID != before.ID || !c.msg.Timestamp.Equal(before.Timestamp)) {
				t.Errorf("the message has become %+v", c.msg)
			}
		})
	}
}

func TestASystemMessageNeedsDataThatIsJSON(t *testing.T) {
	if _, err := realtime.SystemMessage("x", make(chan int)); err == nil {
		t.Error("a channel is no JSON")
	}
}

func TestPublishWaitsForAHubThatIsAboutToRun(t *testing.T) {
	p := start(t)
	hub := realtime.NewHub(p.logger)
	published := make(chan error, 1)
	go func() { published <- hub.Publish(t.Context(), &realtime.Message{}) }()
	p.run(hub)
	if err := <-published; err != nil {
		t.Error(err)
	}
}

func TestAHubThatDoesNotRunPublishesNothing(t *testing.T) {
	hub := realtime.NewHub(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hub.Publish(ctx, &realtime.Message{}); !errors.Is(err, realtime.ErrNotRunning) || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := hub.Presence(ctx, "general"); !errors.Is(err, realtime.ErrNotRunning) {
		t.Errorf("presence: %v", err)
	}
	if _, err := hub.Presence(ctx, "@global"); !errors.Is(err, realtime.ErrInvalid) {
		t.Errorf("presence of no room: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		hub := realtime.NewHub(nil)
		begin := time.Now()
		if err := hub.Publish(t.Context(), &realtime.Message{}); !errors.Is(err, realtime.ErrNotRunning) {
			t.Errorf("Publish() = %v", err)
		}
		if d := time.Since(begin); d != 5*time.Second {
			t.Errorf("after %v, want 5 s", d)
		}
	})
}

func TestAHubRunsOnceAndPublishesNothingAfterwards(t *testing.T) {
	p := start(t)
	hub := realtime.NewHub(p.logger)
	p.run(hub)
	if err := hub.Publish(t.Context(), &realtime.Message{}); err != nil {
		t.Fatal(err)
	}
	p.stop()
	if err := p.wait(p.ended); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if err := hub.Run(t.Context()); err == nil {
		t.Error("it runs again")
	}
	if err := hub.Publish(t.Context(), &realtime.Message{}); !errors.Is(err, realtime.ErrNotRunning) {
		t.Errorf("Publish() = %v", err)
	}
}

func TestAHubWhoseContextHasEndedReturnsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := realtime.NewHub(nil).Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestABroadcastThatFailsIsLoggedWithoutItsData(t *testing.T) {
	var log bytes.Buffer
	hub := realtime.NewHub(slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 {
		hub.Broadcast(&realtime.Message{Room: "/", Data: []byte(`"secret"`)})
	}
	if s := log.String(); strings.Count(s, "broadcast failed") != 2 || !strings.Contains(s, "failures=2") || strings.Contains(s, "secret") {
		t.Errorf("log:\n%s", s)
	}
}

func TestTheEndDrainsTheSessionsOfAllHandlers(t *testing.T) {
	p := start(t)
	p.run(realtime.NewHub(p.logger, realtime.HubConfig{DrainWindow: -1}))
	p.mount(realtime.HandlerConfig{})
	other := &program{t: t, logger: p.logger, hub: p.hub}
	other.mount(realtime.HandlerConfig{})
	t.Cleanup(other.server.Close)
	sessions := []*peer{p.join("/ws/a"), p.join("/ws/b"), other.join("/ws/a")}
	if n := p.hub.ConnectionCount(); n != 3 {
		t.Errorf("%d sessions, want 3", n)
	}
	p.stop()
	for _, s := range sessions {
		s.want("reconnect")
		if code, _ := s.closed(); code != 1012 {
			t.Errorf("closed %d, want 1012", code)
		}
	}
	if err := p.wait(p.ended); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if code, _ := p.status("/ws/a"); code != 503 {
		t.Errorf("afterwards: %d, want 503", code)
	}
}

func TestHistoryIsAsLongAsConfigured(t *testing.T) {
	p := start(t)
	p.run(realtime.NewHub(p.logger, realtime.HubConfig{HistorySize: 2}))
	p.mount(realtime.HandlerConfig{})
	for _, data := range []string{`"a"`, `"b"`, `"c"`} {
		if err := p.hub.Publish(t.Context(), &realtime.Message{Room: "general", Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	s := p.join("/ws/general")
	s.say(`{"type":"history"}`)
	var page struct{ Messages []realtime.Message }
	if err := json.Unmarshal(s.want("history").Data, &page); err != nil || len(page.Messages) != 2 || string(page.Messages[0].Data) != `"b"` {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestASessionThatComesBackGetsWhatItMissed(t *testing.T) {
	p := start(t).with(realtime.HandlerConfig{})
	s := p.join("/ws/general")
	publish := func(data string) {
		if err := p.hub.Publish(t.Context(), &realtime.Message{Room: "general", Data: json.RawMessage(data)}); err != nil {
			t.Fatal(err)
		}
	}
	publish(`1`)
	last := s.want("chat").ID
	s.leave()
	publish(`2`)
	publish(`3`)
	s = p.connect("/ws/general?last_id=" + last)
	for _, data := range []string{`2`, `3`} {
		if got := s.next("chat"); string(got.Data) != data {
			t.Errorf("got %s, want %s", got.Data, data)
		}
	}
	var how struct {
		Recovered bool
		Replayed  int
	}
	if err := json.Unmarshal(s.next("subscribed").Data, &how); err != nil || !how.Recovered || how.Replayed != 2 {
		t.Errorf("%+v, %v", how, err)
	}
}
