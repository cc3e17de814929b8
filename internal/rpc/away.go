package rpc

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/limit"
)

// away sends off calls that are refused, without keeping anything of them that is not bounded.
//
// gRPC sets a call's deadline before it asks for its credential, and leaves the timer alone if the call is refused then: a stranger
// could leave any number behind, each for as long as he likes. So few are refused in that way and only with a near deadline. Others
// are let in as nobody's, a few at a time, and refused like a missing scope; who brings still more of them loses his connection.
// Both end the timer.
type away struct {
	quick  *limit.Bucket
	inside *atomic.Int64
}

const (
	quickly   = 1000        // calls a second, and so many at once, that may leave a timer behind
	near      = time.Minute // for so long at most
	maxInside = 16          // calls of nobody at the same time, of which up to maxRequestBytes is read
)

func newAway() away { return away{limit.NewBucket(quickly, quickly), new(atomic.Int64)} }

// nobody is the caller of calls that are let in to be refused.
var nobody = &Caller{}

// send returns what the tap answers.
func (a away) send(ctx context.Context) (context.Context, error) {
	end, timed := ctx.Deadline()
	ok := !timed
	if timed && time.Until(end) <= near {
		_, ok = a.quick.Take()
	}
	if ok {
		st, _ := statusFor(errCredential, "")
		return nil, st.Err()
	}
	if a.inside.Add(1) > maxInside {
		hangUp(ctx)
	}
	context.AfterFunc(ctx, func() { a.inside.Add(-1) }) // the call's end, whichever way
	return context.WithValue(ctx, callerKey{}, nobody), nil
}
