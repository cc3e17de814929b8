package message

import "errors"

// What can be wrong with a message. They are matched with errors.Is; the text for the sender is in the *Error around them.
var (
	ErrInvalidRoom   = errors.New("room name against the rule")
	ErrForbiddenType = errors.New("type malformed or reserved for the server")
	ErrInvalidData   = errors.New("data is not acceptable JSON")
	ErrTooLarge      = errors.New("data above the limit")
	ErrInvalidUser   = errors.New("user or session id malformed")
	ErrInvalid       = errors.New("invalid argument")
)

// Error tells a sender what was wrong, what the limit is and what to do. Text quotes nothing of the input but names that
// passed a rule, so it is safe to send and to log.
type Error struct {
	Err   error  // one of the sentinels above
	Field string // the field at fault, named as in the proto and the frames
	Text  string
	Limit int // 0: none
	Size  int
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Err }
