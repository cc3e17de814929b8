package message

import (
	"fmt"
	"slices"
)

// Type says what a message is: one of the server's own below, or 1 to 64 of a-z 0-9 _ . -, beginning with a letter.
type Type string

// Types with a meaning of their own.
const (
	TypeChat         Type = "chat"
	TypePresence     Type = "presence"
	TypeNotification Type = "notification"
	TypeSystem       Type = "system"
	TypeError        Type = "error"
	TypeAck          Type = "ack"
	TypePing         Type = "ping"
	TypePong         Type = "pong"
	TypeSubscribe    Type = "subscribe"
	TypeUnsubscribe  Type = "unsubscribe"
	TypeWho          Type = "who"
	TypeHistory      Type = "history"
	TypeAuth         Type = "auth"
)

const maxTypeBytes = 64

// reserved are the server's own types: neither sessions nor backends publish them.
var reserved = []Type{TypePresence, TypeError, TypeAck, TypePing, TypePong, TypeSubscribe, TypeUnsubscribe, TypeWho, TypeHistory, TypeAuth}

// Check holds the type to its form; the error is an *Error around ErrForbiddenType.
func (t Type) Check() error {
	ok := t != "" && len(t) <= maxTypeBytes && t[0] >= 'a' && t[0] <= 'z'
	for i := 0; ok && i < len(t); i++ {
		c := t[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
	}
	if ok {
		return nil
	}
	return &Error{Err: ErrForbiddenType, Field: "type", Limit: maxTypeBytes, Size: len(t), Text: fmt.Sprintf("a type is 1 to %d of a-z 0-9 _ . -, beginning with a letter", maxTypeBytes)}
}

// Reserved tells whether only the server itself may send the type.
func (t Type) Reserved() bool { return slices.Contains(reserved, t) }

// BackendOnly tells whether a session may never send the type as a message: the reserved ones, notification and system.
func (t Type) BackendOnly() bool {
	return t == TypeNotification || t == TypeSystem || t.Reserved()
}
