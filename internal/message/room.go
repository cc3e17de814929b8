package message

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Room is the name of a room: an ordinary one that ParseRoom accepts, Global, or a user's (UserRoom).
type Room string

const (
	// Global is the room every session is in.
	Global Room = "@global"
	// Me is what a session calls its user's room. It never names a room inside the server.
	Me Room = "@me"

	// MaxRoomBytes is the longest ordinary room name.
	MaxRoomBytes = 128

	userPrefix = "@user/"
)

// ParseRoom accepts the name of an ordinary room: 1 to 128 of A-Z a-z 0-9 _ . : @ / -, not beginning with ".", "/" or
// "@", without an empty, "." or ".." segment or a trailing "/". So a room is safe in a path, a Redis channel, a pattern
// and a hash tag. The error is an *Error around ErrInvalidRoom.
func ParseRoom(s string) (Room, error) {
	if roomOK(s) {
		return Room(s), nil
	}
	return "", &Error{
		Err: ErrInvalidRoom, Field: "room", Limit: MaxRoomBytes, Size: len(s),
		Text: fmt.Sprintf("a room name is 1 to %d of A-Z a-z 0-9 _ . : @ / -, no . / or @ first, no empty, . or .. segment, no / last", MaxRoomBytes),
	}
}

func roomOK(s string) bool {
	if s == "" || len(s) > MaxRoomBytes || s[0] == '.' || s[0] == '@' {
		return false
	}
	for i := range len(s) {
		if !roomByte(s[i]) {
			return false
		}
	}
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
	}
	return true
}

func roomByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.:@/-", c) >= 0
}

// UserRoom is the room of a user's notifications.
func UserRoom(user string) Room { return Room(userPrefix + user) }

// User returns the user whose room it is.
func (r Room) User() (string, bool) { return strings.CutPrefix(string(r), userPrefix) }

// Ordinary tells a room that sessions may name from Global and users' rooms.
func (r Room) Ordinary() bool { return r != "" && r[0] != '@' }

// Shown is the name a session sees: Me for its user's room, else the room itself.
func (r Room) Shown() Room {
	if strings.HasPrefix(string(r), userPrefix) {
		return Me
	}
	return r
}

// Tag is the 13 bits of the room's name that its ids carry: the low bits of FNV-1a-32.
func (r Room) Tag() uint16 {
	h := uint32(2166136261)
	for i := range len(r) {
		h = (h ^ uint32(r[i])) * 16777619
	}
	return uint16(h & tagMask)
}

// CheckUser accepts a user id: 1 to 128 bytes of printable UTF-8. The error is an *Error around ErrInvalidUser.
func CheckUser(s string) error {
	if s == "" || len(s) > MaxUserBytes || !printable(s) {
		return &Error{Err: ErrInvalidUser, Field: "user_id", Limit: MaxUserBytes, Size: len(s), Text: fmt.Sprintf("a user id is 1 to %d bytes of printable UTF-8", MaxUserBytes)}
	}
	return nil
}

// printable: UTF-8 without control characters, line or paragraph separators, or the marks that reorder text on a screen.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		switch {
		case r < 0x20, r >= 0x7f && r < 0xa0, r >= 0x2028 && r <= 0x202e, r == 0x200e, r == 0x200f, r == 0x061c, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
			return false
		}
	}
	return true
}
