package edge

import (
	"bufio"
	"bytes"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/hooks"
)

// subprotocol is what browsers offer beside their token; it is echoed, the token never.
const subprotocol = "realtime"

// ServeHTTP lets a session in or refuses it. It returns when the session has begun; the session outlives it.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := e.path(r)
	if !ok {
		e.refuse(w, refuseAbsent)
		return
	}
	a := ask(rest, r.URL.RawQuery)
	sender := e.proxies.sender(r)
	a.token, a.from = e.token(r, a.token), addressOf(sender)
	f := e.check(r, a)
	if f == nil {
		f = e.admit(r.Context(), a.from, a.token != "")
	}
	if f == nil && !e.reserve() {
		f = refuseFull
		if e.state.Load() != serving {
			f = refuseDraining
		}
	}
	if f != nil {
		e.refuse(w, f)
		return
	}
	id, place, f := e.enter(r, a, sender)
	if f != nil && !(a.inFrame && f.close != 0) {
		e.released()
		e.refuse(w, f)
		return
	}
	nc, answer, held, err := accept(w, r)
	nc, held = unwrap(nc, held)
	switch {
	case err != nil:
		e.log.Debug("handshake not completed", "err", err)
		e.metrics.failed.Add(1)
		if f == nil {
			place.release()
			e.rise(id.User, a.from)
		}
		e.released()
	case f != nil:
		e.metrics.refused(f)
		e.farewell(nc, answer, a, f)
		e.released()
	default:
		e.metrics.accepted.Add(1)
		e.begin(nc, answer, held, a, id, place, newAbout(r, id.address))
		if place.over {
			e.trim(id)
		}
	}
}

// enter tells who comes, refuses rooms of the URL that are not for him, and if he may come in takes his seat.
func (e *Edge) enter(r *http.Request, a *asked, sender netip.Addr) (id identity, place claimed, f *refusal) {
	if id, f = e.identify(a.token, a.from); f != nil {
		return id, place, f
	}
	id.session, id.address = newSessionID(), sender.String()
	if e.cfg.Hooks.Asks(hooks.Connect) && a.refused() == nil {
		if f = e.consult(r, a, &id); f != nil {
			return id, place, f
		}
	}
	a.permit(id.Grants)
	a.adopt(id.added)
	e.permitNew(a, id.User)
	if f = a.refused(); f != nil {
		return id, place, f
	}
	if f = e.seat(id.User, a.from); f != nil {
		return id, place, f
	}
	if place, f = e.claim(id); f != nil {
		e.rise(id.User, a.from)
	}
	return id, place, f
}

// check is everything that is answered over HTTP whatever the request says.
func (e *Edge) check(r *http.Request, a *asked) *refusal {
	if f := a.refused(); f != nil && !a.inFrame {
		return f
	}
	if f := upgradable(r); f != nil {
		return f
	}
	if len(a.rooms) > 2*e.cfg.MaxRooms {
		return refuseQuery
	}
	if !e.origins.serves(r.Host) {
		return refuseHost
	}
	if !e.origins.allow(r) {
		return refuseOrigin
	}
	return nil
}

// reserve takes a session's place, which released gives back.
func (e *Edge) reserve() bool {
	if e.sessions.Add(1) <= int64(e.cfg.MaxSessions) && e.state.Load() == serving {
		return true
	}
	e.released()
	return false
}

// shim is the connection that the library gets: it reads nothing and closes nothing.
type shim struct{}

var errShim = errors.New("not the library's to read")

func (shim) Read([]byte) (int, error)         { return 0, errShim }
func (shim) Write(p []byte) (int, error)      { return len(p), nil }
func (shim) Close() error                     { return nil }
func (shim) LocalAddr() net.Addr              { return nil }
func (shim) RemoteAddr() net.Addr             { return nil }
func (shim) SetDeadline(time.Time) error      { return nil }
func (shim) SetReadDeadline(time.Time) error  { return nil }
func (shim) SetWriteDeadline(time.Time) error { return nil }

// lent is what one Accept needs. It comes back, since CloseNow leaves nobody who holds it.
type lent struct {
	http.ResponseWriter
	header http.Header
	brw    *bufio.ReadWriter
	nc     net.Conn
	answer []byte
	held   []byte
}

var lents = sync.Pool{New: func() any {
	return &lent{header: make(http.Header), brw: bufio.NewReadWriter(bufio.NewReaderSize(shim{}, 16), bufio.NewWriterSize(shim{}, 16))}
}}

func (l *lent) Header() http.Header { return l.header }

// WriteHeader keeps the 101 back: it goes out with the session's first frames, in one write.
func (l *lent) WriteHeader(code int) {
	if code != http.StatusSwitchingProtocols {
		maps.Copy(l.ResponseWriter.Header(), l.header)
		l.ResponseWriter.WriteHeader(code)
		return
	}
	b := bytes.NewBuffer(make([]byte, 0, 192)) // what a handshake's answer takes
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = l.header.Write(b) // to memory
	b.WriteString("\r\n")
	l.answer = b.Bytes()
}

// Hijack keeps the connection, with what net/http has read of it already, and gives the library the shim.
func (l *lent) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(l.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	l.nc = nc
	if n := brw.Reader.Buffered(); n > 0 {
		b, _ := brw.Reader.Peek(n) // n are there
		l.held = bytes.Clone(b)
	}
	return shim{}, l.brw, nil
}

// accept completes the handshake but for its answer, which is still to be written to nc. Nothing of the library or of
// net/http refers to nc afterwards; held are bytes that came behind the request. Errors have been answered.
func accept(w http.ResponseWriter, r *http.Request) (nc net.Conn, answer, held []byte, err error) {
	l := lents.Get().(*lent)
	l.ResponseWriter = w
	ws, err := websocket.Accept(l, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // our own check stands before it, stricter
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err == nil {
		_ = ws.CloseNow() // of the shim: it lets the library's buffers and finalizer go
	}
	nc, answer, held = l.nc, l.answer, l.held
	l.ResponseWriter, l.nc, l.answer, l.held = nil, nil, nil, nil
	clear(l.header)
	lents.Put(l)
	return nc, answer, held, err
}
