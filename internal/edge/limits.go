package edge

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/limit"
	"github.com/slack5/realtime/internal/message"
)

// Limits bound what peers may do; those that are rates let twice as much pass at first, unless it says otherwise. 0 is the
// default, below 0 there is no limit. Those of a user and of an address hold on this node; addresses of this host have none.
type Limits struct {
	SessionFrames     int // frames a second of a session, but for `ping`. 20
	SessionBytes      int // bytes a second of its frames. 512 KiB
	SessionPings      int // `ping` frames a second. 2
	SessionSubscribes int // rooms a second that it subscribes to; at least twice MaxRooms at first. 16
	SessionStatuses   int // `presence` frames a second. 2
	SessionControls   int // WebSocket pings and pongs in a second; one more ends the session, 4504. 100
	Fragments         int // fragments of a message; one more ends the session, 4504. 256

	UserFrames   int // as SessionFrames, of all sessions of a user. 100
	UserBytes    int // as SessionBytes. 2 MiB
	UserNewRooms int // rooms a second that a user may be the first in; at least twice MaxRooms at first. 100
	UserSessions int // sessions of a user at once; 429 above. None

	AddressFrames     int // as UserFrames, of all sessions of an address. None
	AddressBytes      int // None
	AddressSessions   int // None
	AddressHandshakes int // handshakes a second. None
	AddressFailures   int // bad tokens a second, at first twenty times as many; then no token of the address is looked at. 1

	Handshakes int // a second, a quarter of it at once; who comes too early waits for up to a second, then 429. 1,000
}

func (l *Limits) setDefaults() {
	for _, f := range []struct {
		limit *int
		usual int
	}{
		{&l.SessionFrames, 20},
		{&l.SessionBytes, 512 << 10},
		{&l.SessionPings, 2},
		{&l.SessionSubscribes, 16},
		{&l.SessionStatuses, 2},
		{&l.SessionControls, 100},
		{&l.Fragments, 256},
		{&l.UserFrames, 100},
		{&l.UserBytes, 2 << 20},
		{&l.UserNewRooms, 100},
		{&l.AddressFailures, 1},
		{&l.Handshakes, 1000},
	} {
		if *f.limit == 0 {
			*f.limit = f.usual
		}
	}
	for _, f := range []*int{&l.SessionControls, &l.Fragments} {
		if *f < 0 {
			*f = math.MaxInt32
		}
	}
}

// Kind names a limit, as it is counted.
type Kind uint8

// The kinds of limits, in the order of Kinds.
const (
	KindFrames Kind = iota
	KindBytes
	KindPings
	KindSubscribes
	KindStatuses
	KindControls // of WebSocket: pings, pongs and fragments
	KindUserFrames
	KindUserBytes
	KindNewRooms
	KindAddressFrames
	KindAddressBytes
	KindAddressHandshakes
	KindAddressFailures
	KindHandshakes
	kinds
)

var kindNames = [kinds]string{
	"frames", "bytes", "pings", "subscribes", "statuses", "controls", "user_frames", "user_bytes", "new_rooms",
	"address_frames", "address_bytes", "address_handshakes", "address_failures", "handshakes",
}

// String is the kind as metrics name it.
func (k Kind) String() string { return kindNames[k] }

// Kinds returns all kinds.
func Kinds() (all []Kind) {
	for k := range kinds {
		all = append(all, k)
	}
	return all
}

const (
	// gatePatience is how long a handshake may be held up before it is sent away.
	gatePatience = time.Second
	// knownPeers is how many users, and addresses, are known by what they have used, at least.
	knownPeers = 1 << 14
	// failuresBurst is how many seconds' bad tokens an address may send at first: many people may be behind it.
	failuresBurst = 20
)

// limits are Limits at work.
type limits struct {
	rates [kinds]limit.Rate
	texts [kinds]string // of refusals

	perUser, perAddress bool // what sessions send is also held to these

	gate      *limit.Gate
	users     *limit.Table[string, spent]
	addresses *limit.Table[address, spent]

	ofUser    *limit.Seats[string]
	ofAddress *limit.Seats[address]
}

// spent is what all sessions of a user, or of an address, have used.
type spent struct{ frames, bytes, rooms, handshakes, failures limit.Shared }

func newLimits(c *Config) *limits {
	l := &c.Limits
	m := &limits{
		gate:      limit.NewGate(limit.Per(l.Handshakes, (l.Handshakes+3)/4), gatePatience),
		users:     limit.NewTable[string, spent](max(knownPeers, 2*c.MaxSessions)),
		addresses: limit.NewTable[address, spent](max(knownPeers, 2*c.MaxSessions)),
		ofUser:    limit.NewSeats[string](l.UserSessions),
		ofAddress: limit.NewSeats[address](l.AddressSessions),
	}
	for _, r := range []struct {
		kind  Kind
		rate  int
		burst int
		text  string
	}{
		{KindFrames, l.SessionFrames, 2 * l.SessionFrames, "frames a second"},
		{KindBytes, l.SessionBytes, 2 * l.SessionBytes, "bytes a second"},
		{KindPings, l.SessionPings, 2 * l.SessionPings, "pings a second"},
		{KindSubscribes, l.SessionSubscribes, 2 * max(l.SessionSubscribes, c.MaxRooms), "rooms subscribed to a second"},
		{KindStatuses, l.SessionStatuses, 2 * l.SessionStatuses, "changes of status a second"},
		{KindUserFrames, l.UserFrames, 2 * l.UserFrames, "frames a second of this user's sessions"},
		{KindUserBytes, l.UserBytes, 2 * l.UserBytes, "bytes a second of this user's sessions"},
		{KindNewRooms, l.UserNewRooms, 2 * max(l.UserNewRooms, c.MaxRooms), "rooms a second that nobody else is in"},
		{KindAddressFrames, l.AddressFrames, 2 * l.AddressFrames, "frames a second of this address's sessions"},
		{KindAddressBytes, l.AddressBytes, 2 * l.AddressBytes, "bytes a second of this address's sessions"},
		{KindAddressHandshakes, l.AddressHandshakes, 2 * l.AddressHandshakes, "connections a second of this address"},
		{KindAddressFailures, l.AddressFailures, failuresBurst * l.AddressFailures, "bad tokens a second of this address"},
	} {
		m.rates[r.kind] = limit.Per(r.rate, r.burst)
		m.texts[r.kind] = fmt.Sprintf("more than %d %s", r.rate, r.text)
	}
	m.perUser = !m.rates[KindUserFrames].None() || !m.rates[KindUserBytes].None() || !m.rates[KindNewRooms].None()
	m.perAddress = !m.rates[KindAddressFrames].None() || !m.rates[KindAddressBytes].None()
	m.texts[KindHandshakes] = "too many come at once"
	return m
}

// now is the clock of all meters.
func (e *Edge) now() int64 { return int64(time.Since(e.wheel.started)) }

// ofUsers is this node's part of a user's rate.
func (e *Edge) ofUsers(k Kind, user string) limit.Rate {
	r := e.limits.rates[k]
	if e.cfg.UserNodes != nil {
		r = r.Share(e.cfg.UserNodes(user))
	}
	return r
}

// admit holds a handshake to what its address, and all together, may do in a second. It may wait.
func (e *Edge) admit(ctx context.Context, from address, token bool) *refusal {
	switch {
	case e.state.Load() != serving:
		return refuseDraining
	case e.sessions.Load() >= int64(e.cfg.MaxSessions):
		return refuseFull
	}
	now := e.now()
	if r := e.limits.rates[KindAddressHandshakes]; from != 0 && !r.None() {
		if wait, ok := e.limits.addresses.Of(from).handshakes.Take(r, now, 1); !ok {
			return e.tooMany(KindAddressHandshakes, wait)
		}
	}
	if token {
		if wait, ok := e.mayFail(from, now); !ok {
			return e.tooMany(KindAddressFailures, wait)
		}
	}
	wait, ok := e.limits.gate.Enter(now)
	if !ok {
		return e.tooMany(KindHandshakes, wait)
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done(): // nobody is there to be let in
			return e.tooMany(KindHandshakes, wait)
		}
	}
	return nil
}

// tooMany refuses over HTTP what comes too fast.
func (e *Edge) tooMany(k Kind, wait time.Duration) *refusal {
	e.metrics.rateLimited[k].Add(1)
	seconds := int((wait + time.Second - 1) / time.Second)
	return &refusal{status: http.StatusTooManyRequests, code: frame.CodeRateLimited, text: e.limits.texts[k], retry: max(1, seconds)}
}

// mayFail tells whether a token of this address is looked at.
func (e *Edge) mayFail(from address, now int64) (wait time.Duration, ok bool) {
	if of := e.limits.addresses.Known(from); of != nil && from != 0 {
		return of.failures.Peek(e.limits.rates[KindAddressFailures], now)
	}
	return 0, true
}

// failed charges a bad token to who sent it.
func (e *Edge) failed(from address) {
	if from != 0 && !e.limits.rates[KindAddressFailures].None() {
		e.limits.addresses.Of(from).failures.Take(e.limits.rates[KindAddressFailures], e.now(), 1)
	}
}

// seat takes the places of a user and an address, which rise gives back. An anonymous session's user is "".
func (e *Edge) seat(user string, from address) *refusal {
	if from != 0 && !e.limits.ofAddress.Take(from) {
		return refuseAddressSessions
	}
	if user != "" && !e.limits.ofUser.Take(user) {
		if from != 0 {
			e.limits.ofAddress.Leave(from)
		}
		return refuseUserSessions
	}
	return nil
}

func (e *Edge) rise(user string, from address) {
	if from != 0 {
		e.limits.ofAddress.Leave(from)
	}
	if user != "" {
		e.limits.ofUser.Leave(user)
	}
}

// permitNew refuses rooms of the URL that a user would be the first in when he makes too many.
func (e *Edge) permitNew(a *asked, user string) {
	if user == "" {
		return
	}
	var of *spent
	for i := range a.rooms {
		r := &a.rooms[i]
		if r.why != nil || e.hub.Has(r.room) {
			continue
		}
		if of == nil {
			of = e.limits.users.Of(user)
		}
		if wait, ok := of.rooms.Take(e.ofUsers(KindNewRooms, user), e.now(), 1); !ok {
			r.why = e.tooMany(KindNewRooms, wait)
		}
	}
}

// newUsage is made when a session begins to send.
func (s *session) newUsage() *usage {
	u := &usage{}
	if !s.anonymous && s.e.limits.perUser {
		u.user = s.e.limits.users.Of(s.h.User)
	}
	if s.about.from != 0 && s.e.limits.perAddress {
		u.address = s.e.limits.addresses.Of(s.about.from)
	}
	return u
}

// within holds the session, its user and its address to their rates.
func (s *session) within(t message.Type, size int) error {
	u, l, now := s.use, s.e.limits, s.e.now()
	k, m := KindFrames, &u.frames
	if t == message.TypePing {
		k, m = KindPings, &u.pings
	}
	if wait, ok := m.Take(l.rates[k], now, 1); !ok {
		return s.over(k, wait)
	}
	if wait, ok := u.bytes.Take(l.rates[KindBytes], now, size); !ok {
		return s.over(KindBytes, wait)
	}
	if u.user != nil {
		if wait, ok := u.user.frames.Take(s.e.ofUsers(KindUserFrames, s.h.User), now, 1); !ok {
			return s.over(KindUserFrames, wait)
		}
		if wait, ok := u.user.bytes.Take(s.e.ofUsers(KindUserBytes, s.h.User), now, size); !ok {
			return s.over(KindUserBytes, wait)
		}
	}
	if u.address != nil {
		if wait, ok := u.address.frames.Take(l.rates[KindAddressFrames], now, 1); !ok {
			return s.over(KindAddressFrames, wait)
		}
		if wait, ok := u.address.bytes.Take(l.rates[KindAddressBytes], now, size); !ok {
			return s.over(KindAddressBytes, wait)
		}
	}
	return nil
}

// mayMake holds the session's user to the rate of rooms that nobody is in.
func (s *session) mayMake(room message.Room) error {
	if s.e.hub.Has(room) {
		return nil
	}
	var wait time.Duration
	var ok bool
	if u := s.use; u.user != nil {
		wait, ok = u.user.rooms.Take(s.e.ofUsers(KindNewRooms, s.h.User), s.e.now(), 1)
	} else {
		wait, ok = u.rooms.Take(s.e.limits.rates[KindNewRooms], s.e.now(), 1)
	}
	if !ok {
		return s.over(KindNewRooms, wait)
	}
	return nil
}

// over counts and words what was too much.
func (s *session) over(k Kind, wait time.Duration) error {
	s.e.metrics.rateLimited[k].Add(1)
	return &problem{code: frame.CodeRateLimited, text: s.e.limits.texts[k], retry: wait}
}
