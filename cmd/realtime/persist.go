package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// maxWait is between two calls at most, without jitter: a node that is back is noticed soon.
	maxWait = 10 * time.Second
	// keepalive is what is asked of a node that has nothing to send; twice and a half of it without anything: the connection is
	// dead, though nothing told so.
	keepalive = 25 * time.Second
	silence   = 60 * time.Second
)

// errStream is a stream that ended for no fault of this side's.
var errStream = errors.New("the stream ended")

// persist calls f again, with growing waits, as long as that may help. f tells by alive that it gets on, which makes the next
// wait a short one. It returns nil when f does, e.ctx's error if that ends first, else what f was refused.
func (d *dial) persist(e *env, command string, f func(ctx context.Context, alive func()) error) error {
	waits := backoff.NewExponentialBackOff()
	waits.MaxInterval = maxWait
	for {
		err := f(e.ctx, waits.Reset)
		if err == nil {
			return nil
		}
		if e.ctx.Err() != nil {
			return e.ctx.Err()
		}
		least, ok := again(err)
		if !ok {
			return fmt.Errorf("%s: %w", command, refusal(d.Addr, err))
		}
		text, _ := explain(d.Addr, err)
		if text == "" {
			text = err.Error()
		}
		fmt.Fprintf(e.err, "%s: %s: calling again\n", command, text)
		timer := time.NewTimer(max(least, waits.NextBackOff()))
		select {
		case <-timer.C:
		case <-e.ctx.Done():
			timer.Stop()
			return e.ctx.Err()
		}
	}
}

// received is a stream of answers.
type received[T any] interface{ Recv() (*T, error) }

// tail hands what a stream brings to take, and opens another one when it breaks. It ends with take's error, with nil when
// e.ctx ends.
func tail[T any](d *dial, e *env, command string, open func(context.Context) (received[T], error), take func(*T) error) error {
	err := d.persist(e, command, func(ctx context.Context, alive func()) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		dead := time.AfterFunc(silence, func() { cancel(fmt.Errorf("%w: nothing came for %v", errStream, silence)) })
		defer dead.Stop()
		stream, err := open(ctx)
		for err == nil {
			var event *T
			if event, err = stream.Recv(); err == nil {
				dead.Reset(silence)
				alive()
				err = take(event)
			}
		}
		if cause := context.Cause(ctx); errors.Is(cause, errStream) {
			return cause
		}
		if errors.Is(err, io.EOF) {
			return errStream
		}
		return err
	})
	if e.ctx.Err() != nil {
		return nil
	}
	return err
}

func keepaliveRequest() *durationpb.Duration { return durationpb.New(keepalive) }
