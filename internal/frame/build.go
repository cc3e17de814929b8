package frame

import (
	"strconv"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/wire"
)

// ownBytes is about what an own frame takes, so that most are rendered into one allocation.
const ownBytes = 256

// A builder renders one own frame: begin, members of data, end.
type builder struct {
	b     []byte
	start int // of the frame
	head  int // bytes left for its header
}

// begin opens a frame of this type about a room ("": none) up to and including the brace of its data.
func begin(b []byte, typ message.Type, room message.Room, size int) builder {
	f := envelope(b, typ, room, size)
	f.key("data")
	f.b = append(f.b, '{')
	return f
}

// event opens a system frame.
func event(b []byte, name string, room message.Room) builder {
	f := begin(b, message.TypeSystem, room, ownBytes)
	f.text("event", name)
	return f
}

// envelope opens a frame up to the member in front of data.
func envelope(b []byte, typ message.Type, room message.Room, size int) builder {
	f := builder{head: headerSize(size)}
	f.b, f.start = reserve(b, size)
	f.b = append(append(f.b, idKey...), hole...)
	f.b = append(f.b, '"')
	f.text("type", string(typ))
	f.name("room", room)
	return f
}

// end closes data and the frame.
func (f *builder) end(now int64, ref string) []byte {
	f.b = append(f.b, '}')
	return f.close(now, ref)
}

// close appends what follows data, and writes the header.
func (f *builder) close(now int64, ref string) []byte {
	f.time("timestamp", now)
	f.optional("ref", ref)
	return seal(append(f.b, '}'), f.start, wire.OpText, f.head)
}

// key appends a member's name. Whether a comma goes before it is seen from what it follows.
func (f *builder) key(name string) {
	if f.b[len(f.b)-1] != '{' {
		f.b = append(f.b, ',')
	}
	f.b = append(append(append(f.b, '"'), name...), '"', ':')
}

func (f *builder) text(name, s string) {
	f.key(name)
	f.b = appendQuoted(f.b, s)
}

// optional appends a text unless it is empty.
func (f *builder) optional(name, s string) {
	if s != "" {
		f.text(name, s)
	}
}

// name appends what sessions call a room, unless there is none.
func (f *builder) name(name string, room message.Room) {
	f.optional(name, string(room.Shown()))
}

func (f *builder) number(name string, n int64) {
	f.key(name)
	f.b = strconv.AppendInt(f.b, n, 10)
}

func (f *builder) bool(name string, v bool) {
	f.key(name)
	f.b = strconv.AppendBool(f.b, v)
}

// flag appends true, or nothing.
func (f *builder) flag(name string, v bool) {
	if v {
		f.bool(name, v)
	}
}

// id appends an id, or nothing if there is none.
func (f *builder) id(name string, id message.ID) {
	if id.IsZero() {
		return
	}
	f.key(name)
	f.b = append(id.AppendTo(append(f.b, '"')), '"')
}

func (f *builder) time(name string, ms int64) {
	f.key(name)
	f.b = appendTime(f.b, ms)
}

// json appends a value as it is; none is null.
func (f *builder) json(name string, v []byte) {
	f.key(name)
	f.b = appendJSON(f.b, v)
}
