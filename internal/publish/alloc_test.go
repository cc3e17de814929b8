//go:build !race

package publish

import (
	"context"
	"testing"

	"github.com/slack5/realtime/internal/broker"
)

// Under the race detector a sync.Pool drops what it likes.
func TestPublishingWithoutATracerAllocatesNothing(t *testing.T) {
	p, ctx := publisher(t, Config{}, open, nowhere{}), t.Context()
	m := chat()
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Do(ctx, Request{Message: m, Origin: Backend}) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// nowhere takes everything and keeps nothing.
type nowhere struct{ broker.Broker }

func (nowhere) Publish(context.Context, broker.Publication) (broker.Receipt, error) {
	return broker.Receipt{}, nil
}
