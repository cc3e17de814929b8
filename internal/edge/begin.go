package edge

import (
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// begin makes a session of an accepted connection. answer is what completes its handshake: it is the session's first bytes.
func (e *Edge) begin(nc net.Conn, answer, held []byte, a *asked, id identity, c claimed, about *about) {
	s := &session{e: e, anonymous: id.anonymous, about: about}
	about.claim, about.from = c.Session, a.from
	s.grants.Store(id.Grants)
	if !id.anonymous {
		about.token.Store(tokenOf(id.Identity))
	}
	s.allow()
	s.seen.Store(uint32(e.wheel.now()))
	s.spoke.Store(uint32(e.wheel.now()))
	s.lapse(id.Expires)
	if c := &e.cfg; c.Opened != nil || c.Closed != nil || c.Hooks != nil {
		s.conn = newConn(s, id)
	}
	fast, err := e.poller.handOver(nc, s)
	if err != nil {
		e.log.Error("connection not taken over", "err", err)
		c.release()
		e.rise(id.User, a.from)
		e.released()
		return
	}
	if !fast {
		s.pipe = newPortable(s, nc)
	}
	o := e.open(s, a, id)
	o.Preface = answer
	if s.h, err = e.hub.Open(o); err != nil {
		s.absent()
		if fast {
			s.closeFD()
		} else {
			_ = nc.Close()
		}
		e.rise(id.User, a.from)
		e.released()
		return
	}
	e.cfg.Hooks.Began(s.h.User)
	s.refuseRooms(a)
	// The first ping comes earlier than later ones, by chance: sessions that came together do not stay together.
	late := e.wheel.add(s, e.wheel.now()+e.wheel.ping/2+rand.N(e.wheel.ping/2+1))
	if fast {
		e.poller.add(s, held)
	} else {
		s.pipe.start(held)
	}
	if s.revoked() { // since its token was looked at; who ends such sessions may not have seen this one
		s.close(CloseRevoked, "")
	}
	if late { // it came while the drain listed the sessions: its turn is now
		s.announce(0)
		s.close(CloseDrain, "")
	}
}

// open describes the session to the hub.
func (e *Edge) open(s *session, a *asked, id identity) hub.Open {
	o := hub.Open{ID: id.session, User: id.User, Writer: s, Fallback: message.Global}
	rooms := make([]message.Room, 0, len(a.rooms)+2)
	byURL := 0 // of the rooms
	for i, r := range a.rooms {
		if i == 0 && !r.more {
			s.first = r.room
		}
		if r.why == nil && len(rooms) < e.cfg.MaxRooms {
			rooms = append(rooms, r.room)
			if !r.more {
				byURL = len(rooms)
			}
		}
	}
	named := len(rooms)
	if id.anonymous {
		o.User = o.ID
	} else {
		o.Fallback = message.UserRoom(id.User)
		o.User, _ = o.Fallback.User() // one string for both
		rooms = append(rooms, o.Fallback)
	}
	rooms = append(rooms, message.Global)
	o.Anchor = o.Fallback
	if byURL > 0 {
		o.Anchor = rooms[0]
	}
	if e.cfg.Presence != nil {
		if s.here, s.about.claim = s.about.claim, nil; s.here == nil {
			s.here = e.cfg.Presence.Open(o.User, id.Info)
		}
		o.Presence = s.here
	}
	points := newResumePoints(a.lastIDs, rooms)
	for i, room := range rooms {
		j := hub.Join{Room: room, Presence: true}
		if i < named {
			j = s.join(room, "")
			j.Frame.ByServer = i >= byURL
		}
		j.From, j.Resume = points.of(room)
		o.Joins = append(o.Joins, j)
	}
	if e.cfg.instead != nil {
		return o
	}
	now := nowMS()
	o.Welcome = frame.Welcome{
		Session: o.ID, User: o.User, Node: e.cfg.Node, Time: now, Expires: unixMS(id.Expires), PingMS: int(e.cfg.PingInterval.Milliseconds()),
		MaxFrame: e.cfg.MaxFrameBytes, MaxRooms: e.cfg.MaxRooms,
	}.Append(nil, now)
	return o
}

// refuseRooms tells of the URL's rooms that were not joined.
func (s *session) refuseRooms(a *asked) {
	ok := 0
	for _, r := range a.rooms {
		f := frame.Error{Room: message.Room(r.name), Code: frame.CodeRoomLimit, Text: errRoomLimit.text}
		if r.why != nil {
			f.Code, f.Text, f.RetryAfterMS = r.why.code, r.why.text, int64(r.why.retry)*1000
		} else if ok++; ok <= s.e.cfg.MaxRooms {
			continue
		}
		if len(r.name) > message.MaxRoomBytes {
			f.Room = ""
		}
		s.h.Send(f.Room, f.Append(nil, nowMS()))
	}
}

// farewell is refuse=close: one error frame and a close frame over the completed handshake, then a bounded wait for the
// peer's end. A browser sees nothing of a refusal over HTTP.
func (e *Edge) farewell(nc net.Conn, answer []byte, a *asked, f *refusal) {
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(e.cfg.CloseTimeout))
	id := message.ID{Position: e.hub.Past(), Low: e.minter.Low(message.Global.Tag(), true)}
	if len(a.lastIDs) > 0 { // a simple program keeps it as its next last_id
		id = message.ID{Position: a.lastIDs[0].Position, Low: e.minter.Low(a.lastIDs[0].Low.Tag(), true)}
	}
	b := frame.Error{Code: f.code, Text: f.text}.Append(nil, nowMS())
	frame.Stamp(b, id)
	if _, err := nc.Write(append(answer, frame.AppendClose(b, int(f.close), f.text)...)); err != nil {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, nc, closeJunk)
}
