package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Port is what the ordering logic of a Broker asks of Redis, and all it asks. Each call ends when its context does; its
// outcome is then unknown. An answer that is an error is a ServerError.
type Port interface {
	// Open dials. redialled is called when a connection for commands ends, before another can follow it, and with each further
	// one: another server may be behind it. After an error Open may be called again.
	Open(ctx context.Context, redialled func()) error
	// Script runs one of our scripts where keys[0] lives; its reply is a flat list of texts: numbers are written out, a nil
	// is "", and what is no list is a list of one.
	Script(ctx context.Context, s Script, keys, args []string) ([]string, error)
	// Values reads string keys; "" for one that is absent.
	Values(ctx context.Context, keys []string) ([]string, error)
	// Range reads a room's stream with its tip and cut, as one view or nearly so: tip and cut are never newer than the
	// entries.
	Range(ctx context.Context, r StreamRange) (StreamPart, error)
	// Publish sends text to a channel that is no room's.
	Publish(ctx context.Context, channel, text string) error
	// Listen opens a connection for subscriptions; ctx bounds the opening alone.
	Listen(ctx context.Context, on Events) (Listener, error)
	// Close ends all connections. Nothing is called any more afterwards but Open.
	Close()
}

// Script is one of our scripts.
type Script uint8

// The scripts; each is told in its file.
const (
	ScriptPublish Script = iota
	ScriptDelete
	ScriptRestore
	ScriptLease
	ScriptLeaseEnd
	ScriptRevoke

	scriptCount
)

// StreamRange is what is read of a room's stream.
type StreamRange struct {
	Stream, Tip, Cut string // keys
	From, To         string // the least and the greatest id, as XRANGE takes them: "-", "+", "(1-2"
	Backward         bool   // newest first
	Count            int
}

// StreamPart is what Range has read.
type StreamPart struct {
	Tip, Cut string // "" if absent
	Length   int64  // of the whole stream
	Entries  []StreamEntry
}

// StreamEntry is an entry of a room's stream; a field that is absent is "".
type StreamEntry struct{ ID, Prev, Env string }

// Events are what a connection for subscriptions brings. They are called by the connection's readers, one channel's one at a
// time, and never wait. Lost is called once, last; it is also called behind Close.
type Events struct {
	Message                  func(channel, text string)
	Subscribed, Unsubscribed func(channel string) // Unsubscribed also without having been asked for
	Trouble                  func(error)          // what the Listener tries again by itself
	Lost                     func(error)
}

// Listener is a connection for subscriptions. One goroutine at a time calls its methods. A call that failed leaves open
// what of it was done. No event comes when Close has returned.
type Listener interface {
	Subscribe(ctx context.Context, channels ...string) error
	Unsubscribe(ctx context.Context, channels ...string) error
	Close()
}

// ServerError is an error that Redis itself answered, such as "WRONGTYPE Operation against a key …", without "ERR ".
type ServerError string

func (e ServerError) Error() string { return string(e) }

// errNotDialled: Redis was never reached.
var errNotDialled = errors.New("redis was not reached yet")

// fault is what a failed call means for the next.
type fault uint8

const (
	notExecuted fault = iota // try again
	unknown                  // it may have been executed
	hopeless                 // the next one fails the same way
)

// answered is what Redis answered, if the error is that.
func answered(err error) (text string, ok bool) {
	var e ServerError
	ok = errors.As(err, &e)
	return string(e), ok
}

// judge tells what an error of a script means.
func judge(err error) fault {
	if text, ok := answered(err); ok {
		switch code, _, _ := strings.Cut(text, " "); code {
		case "WRONGTYPE":
			return hopeless
		case "OOM", "READONLY", "LOADING", "BUSY", "MASTERDOWN", "NOREPLICAS", "NOSCRIPT", "CLUSTERDOWN", "TRYAGAIN", "MOVED":
			return notExecuted
		default: // perhaps of a command behind the writes: a publication that is not allowed says nothing in its first word
			return unknown
		}
	}
	var op *net.OpError
	if errors.Is(err, errNotDialled) || errors.As(err, &op) && op.Op == "dial" {
		return notExecuted
	}
	return unknown
}

// denied tells that a right is missing: to send a command, or to what a script does.
func denied(text string) bool {
	return strings.HasPrefix(text, "NOPERM") || strings.Contains(text, "The user executing the script can't") ||
		strings.Contains(text, "ACL failure in script")
}

// refused tells an error that no dialling again cures.
func refused(err error) bool {
	if errors.Is(err, errNoSharding) || errors.Is(err, errHidden) {
		return true
	}
	text, ok := answered(err)
	codes := []string{"WRONGPASS", "NOAUTH", "NOPERM", "AUTH ", "SELECT is not allowed", "DB index is out of range"}
	return ok && slices.ContainsFunc(codes, func(code string) bool { return strings.HasPrefix(text, code) })
}

// refusal is what Run ends with then.
func refusal(err error) error {
	if _, ok := answered(err); !ok { // it says what to do
		return err
	}
	return fmt.Errorf("redis refuses us: check user, password, rights and database: %w", err)
}
