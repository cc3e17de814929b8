package presence

import (
	"bytes"
	"slices"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// activeEvery is how exactly other nodes know when somebody was last active.
const activeEvery = 5 * time.Minute

// Session is a session as presence sees it: a user's, in rooms. Its methods may be called concurrently and never wait;
// after Close they do nothing.
type Session struct {
	p    *Presence
	user *user

	// Guarded by p.mu.
	older  *Session // the user's next older one
	began  int64
	info   []byte
	rooms  []*member
	away   bool
	closed bool
}

// Open begins a session of the user, with what its token says of him publicly (JSON; nil: nothing; its bytes are kept and
// must not change). From now on he is connected.
func (p *Presence) Open(user string, info []byte) *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.openLocked(user, info)
}

func (p *Presence) openLocked(user string, info []byte) *Session {
	now := time.Now().UnixMilli()
	u := p.userNamed(user)
	s := &Session{p: p, user: u, older: u.first, began: now, info: info}
	u.first = s
	u.sessions++
	if u.status == Offline {
		u.status = Online
	}
	if u.since == 0 {
		u.since = now
	}
	if u.sessions == 1 {
		u.due = 0 // no grace runs: he is back
	}
	u.active.Store(now)
	u.told.Store(now)
	p.newest(u)
	p.weigh(u)
	p.changedUser(u)
	return s
}

// Joined says that the session is in the room. Rooms other than ordinary ones are none of its business: everyone is in
// message.Global from Open on.
func (s *Session) Joined(name message.Room) {
	if !name.Ordinary() {
		return
	}
	p, now := s.p, time.Now().UnixMilli()
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.closed {
		return
	}
	r := p.roomNamed(name)
	m := p.memberOf(r, s.user)
	if slices.Contains(s.rooms, m) {
		return
	}
	s.rooms = append(s.rooms, m)
	if u := s.user; m.mine.status == Offline && u.status != u.best() {
		// Who appears somewhere is shown as he is now.
		u.status, u.due = u.best(), 0
		p.changedUser(u)
		p.refresh(u)
	}
	p.enter(m, now)
}

// Left says that the session is in the room no more: because it is closed, then the user stays while the grace runs; or
// because it left.
func (s *Session) Left(name message.Room, closed bool) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rooms[name]
	if r == nil {
		return
	}
	at := slices.Index(s.rooms, p.members[place{r, s.user}])
	if at < 0 {
		return
	}
	p.exit(s.rooms[at], closed)
	s.rooms = slices.Delete(s.rooms, at, at+1)
}

// Away says that the session is away, or no more. Its user is away if all his sessions are.
func (s *Session) Away(away bool) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.closed || s.away == away {
		return
	}
	s.away = away
	if away {
		s.user.away++
	} else {
		s.user.away--
	}
	p.weigh(s.user)
}

// Active is a sign of life of the person. It is cheap enough for every frame.
func (s *Session) Active() {
	u, now := s.user, time.Now().UnixMilli()
	u.active.Store(now)
	if now-u.told.Load() < activeEvery.Milliseconds() {
		return
	}
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.closed {
		u.told.Store(now)
		p.changedUser(u)
		p.refresh(u)
	}
}

// Info replaces what the token says of the user publicly, as in Open.
func (s *Session) Info(info []byte) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.closed {
		return
	}
	s.info = info
	if s == s.user.first {
		p.newest(s.user)
		p.changedUser(s.user)
	}
}

// Close ends the session, in all rooms it is still in.
func (s *Session) Close() {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, m := range s.rooms {
		p.exit(m, true)
	}
	s.rooms = nil
	u := s.user
	at := &u.first
	for *at != s {
		at = &(*at).older
	}
	*at = s.older
	u.sessions--
	if s.away {
		u.away--
	}
	if u.sessions == 0 {
		u.due = p.now() + p.cfg.Grace
		p.timeUser(u)
	} else {
		p.newest(u)
		p.weigh(u)
	}
	p.changedUser(u)
}

// enter counts a session in.
func (p *Presence) enter(m *member, now int64) {
	m.sessions++
	m.due = 0
	if m.since == 0 {
		m.since = now
	}
	p.changed(m, true)
}

// exit counts a session out.
func (p *Presence) exit(m *member, closed bool) {
	m.sessions--
	if m.sessions == 0 && closed {
		m.due = p.now() + p.cfg.Grace
		p.timeMember(m)
	}
	p.changed(m, true)
}

// newest makes the newest session's info the user's.
func (p *Presence) newest(u *user) {
	u.newest = u.first.began
	if !bytes.Equal(u.info, u.first.info) {
		u.info = u.first.info
	}
	p.refresh(u)
}

// best is the status of the user by his sessions.
func (u *user) best() Status {
	switch {
	case u.sessions == 0:
		return u.status // as he was when the last of them closed
	case u.away == u.sessions:
		return Away
	default:
		return Online
	}
}

// weigh notes since when the user's sessions say another status than was told.
func (p *Presence) weigh(u *user) {
	switch {
	case u.best() == u.status:
		u.due = 0
	case u.due == 0:
		u.due = p.now() + p.cfg.Debounce
		p.timeUser(u)
	}
}
