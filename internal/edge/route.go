package edge

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
)

const (
	badRoomText  = "not a room name: 1 to 128 of A-Z a-z 0-9 _ . : @ / -, no . / or @ first, no empty, . or .. segment, no / last"
	reservedText = "names that begin with @ are the server's own"
)

// asked is what a request's URL asks for.
type asked struct {
	rooms   []askedRoom // each once, in order: the path's, then those of the query
	lastIDs []message.ID
	token   string
	from    address
	inFrame bool // refuse=close: refusals of token or room come as a frame and a close code
}

type askedRoom struct {
	name string
	room message.Room // "" if refused
	why  *refusal     // nil: well-formed
	more bool         // a hook's, behind those that the URL names
}

// maxLastIDs is far above one for each room a session can have.
const maxLastIDs = 1024

// path returns what follows the base path, still escaped, or false for somebody else's path. Nothing is cleaned or
// redirected. Behind http.StripPrefix it is the whole path; the request line tells.
func (e *Edge) path(r *http.Request) (rest string, ok bool) {
	base := strings.TrimSuffix(e.cfg.Path, "/")
	p := r.URL.EscapedPath()
	line, _, _ := strings.Cut(r.RequestURI, "?")
	if stripped, found := strings.CutSuffix(line, p); found && stripped != "" && base != "" && strings.HasSuffix(stripped, base) {
		return strings.TrimPrefix(p, "/"), true
	}
	if p == base {
		return "", true
	}
	return strings.CutPrefix(p, base+"/")
}

// ask reads rest, what follows the base path, and the query. A second ? in the query is read as &: simple programs append
// "?last_id=" to a URL that has a query already. What cannot be unescaped stays as it is: as a room it is refused by its
// characters, as a last_id it is none.
func ask(rest, query string) *asked {
	a := &asked{}
	if rest != "" {
		a.add(unescape(rest, url.PathUnescape))
	}
	for pair := range strings.SplitSeq(strings.ReplaceAll(query, "?", "&"), "&") {
		k, v, _ := strings.Cut(pair, "=")
		v = unescape(v, url.QueryUnescape)
		switch unescape(k, url.QueryUnescape) {
		case "room":
			a.add(v)
		case "token":
			a.token = v
		case "refuse":
			a.inFrame = v == "close"
		case "last_id":
			for s := range strings.SplitSeq(v, ",") {
				if id, ok := message.ParseID(strings.TrimSpace(s)); ok && len(a.lastIDs) < maxLastIDs {
					a.lastIDs = append(a.lastIDs, id)
				}
			}
		}
	}
	return a
}

func unescape(s string, f func(string) (string, error)) string {
	if u, err := f(s); err == nil {
		return u
	}
	return s
}

func (a *asked) add(name string) {
	if slices.ContainsFunc(a.rooms, func(r askedRoom) bool { return r.name == name }) {
		return
	}
	r := askedRoom{name: name}
	switch room, err := message.ParseRoom(name); {
	case err == nil:
		r.room = message.Room(strings.Clone(string(room))) // a session keeps it, and would keep the URL with it, and the token in that
	case strings.HasPrefix(name, "@"):
		r.why = refuseReserved
	default:
		r.why = refuseRoom
	}
	a.rooms = append(a.rooms, r)
}

// permit refuses rooms that are not granted.
func (a *asked) permit(g *auth.Grants) {
	for i := range a.rooms {
		if r := &a.rooms[i]; r.why == nil && g.For(r.room)&auth.Receive == 0 {
			r.why = refuseDenied
		}
	}
}

// adopt takes in rooms that a hook adds, whatever the grants say of them.
func (a *asked) adopt(rooms []message.Room) {
	for _, room := range rooms {
		if i := slices.IndexFunc(a.rooms, func(r askedRoom) bool { return r.room == room }); i >= 0 {
			a.rooms[i].why = nil
		} else {
			a.rooms = append(a.rooms, askedRoom{name: string(room), room: room, more: true})
		}
	}
}

// refused tells why the URL's rooms let nobody in: there are some, and none can be joined.
func (a *asked) refused() (why *refusal) {
	for _, r := range a.rooms {
		switch {
		case r.more:
		case r.why == nil:
			return nil
		case why == nil:
			why = r.why
		}
	}
	return why
}

// upgradable checks what the library would refuse in plain text, and what it would let pass: a body, which would be read
// as frames.
func upgradable(r *http.Request) *refusal {
	key := r.Header["Sec-Websocket-Key"]
	version := r.Header["Sec-Websocket-Version"]
	switch {
	case r.Method != http.MethodGet:
		return refuseMethod
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return refuseBody
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return refuseProto
	case !strings.HasPrefix(r.RequestURI, "/"):
		return refuseAbsolute
	case !hasToken(r.Header["Connection"], "upgrade") || !hasToken(r.Header["Upgrade"], "websocket"):
		return refuseProto
	case len(version) != 1 || version[0] != "13":
		return refuseVersion
	case len(key) != 1 || !keyOK(strings.TrimSpace(key[0])):
		return refuseKey
	}
	return nil
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

func keyOK(k string) bool {
	var raw [18]byte
	if len(k) != 24 {
		return false
	}
	n, err := base64.StdEncoding.Decode(raw[:], []byte(k))
	return err == nil && n == 16
}
