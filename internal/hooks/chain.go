package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// Config of a Chain.
type Config struct {
	Hooks  Hooks
	Points [4]Rules // by Point
	// Inside: the hooks are functions of the program around. They have all the time they want, no bound and no breaker, and
	// their failures are returned as they are.
	Inside       bool
	MaxDataBytes int           // of a message that a hook returns; default message.DefaultMaxDataBytes
	FlushTime    time.Duration // for telling of the last ended sessions; default DefaultFlushTime
	// Observe is called with how long each question took, what was waited before included, and how it ended. nil: nobody asks.
	Observe func(ctx context.Context, p Point, r Result, took time.Duration)
}

// Rules of one hook.
type Rules struct {
	Open        bool          // a failure lets pass; Disconnect is repeated in any case
	Timeout     time.Duration // for an answer, what waits for its turn included; default 1 s
	Concurrency int           // questions at once; Disconnect has one. Default 100
}

const (
	defaultTimeout     = time.Second
	defaultConcurrency = 100
	// maxAtOnce is how many rooms of one frame are asked about at once.
	maxAtOnce = 16
)

// Chain asks the hooks. A nil Chain has none. It is safe for concurrent use.
type Chain struct {
	hooks     Hooks
	maxData   int
	flushTime time.Duration
	asks      [points]bool
	guards    [points]*guard
	ended     queue
	log       *slog.Logger
}

// New makes a Chain. It starts nothing; with a hook Disconnect, Run must be called.
func New(cfg Config, logger *slog.Logger) *Chain {
	c := &Chain{hooks: cfg.Hooks, maxData: cfg.MaxDataBytes, log: logger.With("component", "hooks")}
	if c.maxData == 0 {
		c.maxData = message.DefaultMaxDataBytes
	}
	if c.flushTime = cfg.FlushTime; c.flushTime <= 0 {
		c.flushTime = DefaultFlushTime
	}
	h := &cfg.Hooks
	c.asks = [points]bool{Connect: h.Connect != nil, Subscribe: h.Subscribe != nil, Message: h.Message != nil, Disconnect: h.Disconnect != nil}
	for _, p := range Points() {
		c.guards[p] = newGuard(p, cfg.Points[p], cfg, c.log)
	}
	c.ended.init()
	return c
}

// Asks tells whether somebody is asked at a point.
func (c *Chain) Asks(p Point) bool { return c != nil && c.asks[p] }

// Connect asks whether a session may connect. fits judges what the caller must be able to do with the answer; its error is the
// hook's failure. Errors: *Denied with a code to close with, *Unavailable, or the context's.
func (c *Chain) Connect(ctx context.Context, a *Attempt, fits func(*Admission) error) (*Admission, error) {
	admitted := &Admission{}
	err := c.guards[Connect].ask(ctx, func(ctx context.Context) error {
		got, err := c.hooks.Connect(ctx, a)
		if err == nil {
			err = got.check()
		}
		if err == nil {
			err = fits(got)
		}
		if err == nil {
			admitted = got
		}
		return err
	})
	if no, ok := errors.AsType[*Denied](err); ok {
		return nil, no.closing()
	}
	if err != nil {
		return nil, err
	}
	return admitted, nil
}

// Subscribe asks whether a session may join rooms, of some at the same time, and all within the timeout of one question. It
// returns an error for each: nil, *Denied, *Unavailable, or the context's.
func (c *Chain) Subscribe(ctx context.Context, s *Session, rooms []message.Room) []error {
	g := c.guards[Subscribe]
	errs := make([]error, len(rooms))
	ask := func(ctx context.Context, i int) {
		err := g.ask(ctx, func(ctx context.Context) error { return c.hooks.Subscribe(ctx, s, rooms[i]) })
		if no, ok := errors.AsType[*Denied](err); ok {
			err = no.shown()
		}
		errs[i] = err
	}
	if len(rooms) == 1 {
		ask(ctx, 0)
		return errs
	}
	ctx, cancel := g.within(ctx)
	defer cancel()
	var next atomic.Int32
	var wg sync.WaitGroup
	for range min(maxAtOnce, len(rooms)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(rooms); i = int(next.Add(1)) - 1 {
				ask(ctx, i)
			}
		})
	}
	wg.Wait()
	return errs
}

// Message asks what becomes of a message, and returns what is to be published: m itself, or a copy of it that differs as the
// hook wants. nil, nil: nothing. Errors: *Denied, *Unavailable, the context's, or with Inside whatever the hook returns.
func (c *Chain) Message(ctx context.Context, s *Session, m *message.Message) (*message.Message, error) {
	out := m
	err := c.guards[Message].ask(ctx, func(ctx context.Context) error {
		got, err := c.hooks.Message(ctx, s, m)
		if err == nil && got != nil && got != m {
			got, err = c.replacement(m, got)
		}
		if err == nil {
			out = got
		}
		return err
	})
	if no, ok := errors.AsType[*Denied](err); ok {
		return nil, no.shown()
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// replacement is m with what a hook may change, if that can be published. The sender is not to blame for it: what is wrong does
// not come out as a *message.Error.
func (c *Chain) replacement(m, got *message.Message) (*message.Message, error) {
	changed := *m
	changed.Type, changed.From, changed.Data = got.Type, got.From, got.Data
	if changed.Type.BackendOnly() {
		return nil, fmt.Errorf("the hook returned a message of type %s, which is not for sessions to send", changed.Type)
	}
	if err := changed.Check(c.maxData); err != nil {
		return nil, errors.New("the hook returned what cannot be published: " + err.Error())
	}
	return &changed, nil
}

// check holds an Admission to its rules, and brings Info into its compact form.
func (a *Admission) check() error {
	if a.User != "" {
		if err := message.CheckUser(a.User); err != nil {
			return err
		}
	}
	for _, room := range a.Rooms {
		if _, err := message.ParseRoom(string(room)); err != nil {
			return fmt.Errorf("rooms: %w", err)
		}
	}
	if err := checkJSON("session data", a.Data, MaxDataBytes); err != nil {
		return err
	}
	if err := checkJSON("info", a.Info, MaxInfoBytes); err != nil {
		return err
	}
	if len(a.Info) > 0 {
		v := jsontext.Value(bytes.Clone(a.Info))
		if err := v.Compact(); err != nil {
			return errors.New("info: not JSON")
		}
		a.Info = v
	}
	if !a.Expires.IsZero() && !a.Expires.After(time.Now()) {
		return errors.New("expires_at is in the past")
	}
	return nil
}

func checkJSON(what string, b []byte, most int) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) > most {
		return fmt.Errorf("%s: %d bytes, the limit is %d", what, len(b), most)
	}
	if err := message.CheckJSON(b); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// closing makes a denial fit for a close frame. A no stays a no, whatever is wrong with its code.
func (d *Denied) closing() *Denied {
	code := d.Code
	if code != defaultDenial && (code < 4400 || code > 4499) && (code < 4700 || code > 4999) {
		code = defaultDenial
	}
	return &Denied{Code: code, Reason: clip(d.Reason, maxCloseBytes)}
}

// shown makes a denial fit for an error frame.
func (d *Denied) shown() *Denied { return &Denied{Reason: clip(d.Reason, maxReasonBytes)} }

// clip cuts a text to so many bytes of valid UTF-8.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
