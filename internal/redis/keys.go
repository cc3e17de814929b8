package redis

import (
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/message"
)

// keys names what lies in Redis; it is the prefix of all names. A room's keys bear its channel as hash tag, so they lie
// with it in one slot of a cluster.
type keys string

const (
	roomChannel   = "realtime:room:"
	userChannel   = "realtime:user:"
	globalChannel = "realtime:global"
	controlName   = "realtime:ctl"
)

// channel is the channel of a room.
func (k keys) channel(room message.Room) string {
	if room == message.Global {
		return string(k) + globalChannel
	}
	if user, ok := room.User(); ok {
		return string(k) + userChannel + escape(user)
	}
	return string(k) + roomChannel + string(room)
}

// room is the room of a channel; false: no channel of a room.
func (k keys) room(channel string) (message.Room, bool) {
	name, ok := strings.CutPrefix(channel, string(k))
	if !ok {
		return "", false
	}
	if name == globalChannel {
		return message.Global, true
	}
	if s, ok := strings.CutPrefix(name, roomChannel); ok {
		room, err := message.ParseRoom(s)
		return room, err == nil
	}
	s, ok := strings.CutPrefix(name, userChannel)
	if !ok {
		return "", false
	}
	user, ok := unescape(s)
	return message.UserRoom(user), ok && message.CheckUser(user) == nil
}

func (k keys) stream(ch string) string { return string(k) + "rt:s:{" + ch + "}" }
func (k keys) tip(ch string) string    { return string(k) + "rt:t:{" + ch + "}" }
func (k keys) cut(ch string) string    { return string(k) + "rt:x:{" + ch + "}" }

// receipt is the key that remembers the receipt of a publication; hash stands for its caller and key.
func (k keys) receipt(ch, hash string) string { return string(k) + "rt:i:{" + ch + "}:" + hash }

// control is the channel of questions to all nodes, and node that of one node's answers.
func (k keys) control() string        { return string(k) + controlName }
func (k keys) node(inc string) string { return string(k) + "rt:node:" + inc }

// probe is the channel on which a connection sends itself messages.
func (k keys) probe(inc string, conn int) string {
	return string(k) + "rt:probe:" + inc + ":" + strconv.Itoa(conn)
}

// check is a key that nobody has, in a slot.
func (k keys) check(slot uint16) string { return string(k) + "rt:check:" + slotTag(slot) }

// shardProbe is a channel in a slot, on which a connection sends itself messages.
func (k keys) shardProbe(name string, slot uint16) string {
	return string(k) + "rt:probe:" + name + ":" + slotTag(slot)
}

// shared is a key of all nodes, all of which lie in one slot.
func (k keys) shared(kind string) string { return string(k) + "rt:" + kind + ":{" + k.control() + "}" }

// history is the key of the list of rooms with history.
func (k keys) history() string { return string(k) + "rt:hist" }

const upperHex = "0123456789ABCDEF"

// escape writes every byte that no room name has as %XX.
func escape(s string) string {
	n := 0
	for i := range len(s) {
		if !plain(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// unescape reverts escape; false: s is nothing that escape gives.
func unescape(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, escape(s) == s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		high, low := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		b = append(b, byte(high<<4|low))
		i += 2
	}
	user := string(b)
	return user, escape(user) == s
}

// plain tells the bytes of room names.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.:@/-", c) >= 0
}
