package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/message"
)

const (
	// callTimeout is above the server's own, so that its answer is the one that counts.
	callTimeout = 15 * time.Second
	// refusedPause keeps publishers from asking an overloaded server at full speed.
	refusedPause = 20 * time.Millisecond
	// connections is how many gRPC connections the publishers share at most: one is a bottleneck, many cost the server.
	connections = 4
)

// order is what all publishers work off together: message k goes to room k modulo rooms, at begin + k/rate.
type order struct {
	clock   *clock
	rooms   []*room
	rate    float64 // messages a second; 0: as fast as they are acknowledged
	size    int
	begin   int64
	from    int64 // measuring begins
	end     int64
	stopped int64 // all publishers had ended
	next    atomic.Int64
}

// publisher publishes one message after the other, each when the one before it has its receipt. All but the atomic
// count belongs to run.
type publisher struct {
	number int
	calls  realtimev1.PublisherServiceClient
	order  *order

	streams bool // over a stream of its own, not by calls
	stream  grpc.BidiStreamingClient[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]
	cut     context.CancelFunc // ends the stream

	seq      uint32
	receipts []receipt
	acks     *hdrhistogram.Histogram // call to receipt, of the measured messages
	measured int64
	failed   int64
	first    error // of those that failed
	done     atomic.Int64
}

// connectPublishers opens the connections; close them with the function it returns.
func connectPublishers(addrs []string, n int, streams bool, o *order) (_ []*publisher, closeAll func(), err error) {
	var conns []*grpc.ClientConn
	closeAll = func() {
		for _, c := range conns {
			_ = c.Close() // nothing is under way
		}
	}
	for i := range max(len(addrs), min(n, connections)) {
		c, err := grpc.NewClient(addrs[i%len(addrs)], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("--addr %q: %w", addrs[i%len(addrs)], err)
		}
		conns = append(conns, c)
	}
	publishers := make([]*publisher, n)
	for i := range publishers {
		publishers[i] = &publisher{number: i, calls: realtimev1.NewPublisherServiceClient(conns[i%len(conns)]), streams: streams, order: o, acks: newHistogram(ackDigits)}
	}
	return publishers, closeAll, nil
}

// run publishes until the order ends or ctx does. A call that has begun is waited for either way, so that each message
// has a receipt or has failed.
func (p *publisher) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer p.hangUp()
	pause := func(until int64) bool {
		if d := time.Duration(until - p.order.clock.now()); d > 0 {
			timer.Reset(d)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		return ctx.Err() == nil
	}
	if !pause(p.order.begin) {
		return
	}
	var data []byte
	for {
		k := p.order.next.Add(1) - 1
		if p.order.rate > 0 {
			due := p.order.begin + int64(float64(k)/p.order.rate*float64(time.Second))
			if due >= p.order.end || !pause(due) {
				return
			}
		}
		now := p.order.clock.now()
		if now >= p.order.end || ctx.Err() != nil {
			return
		}
		rm := p.order.rooms[k%int64(len(p.order.rooms))]
		data = appendData(data[:0], authorOf(p.number, p.seq), now, p.order.size)
		if err := p.publish(ctx, rm, string(data), now); err != nil {
			if p.failed++; p.first == nil {
				p.first = err
			}
			pause(p.order.clock.now() + int64(refusedPause))
		}
		p.seq++
		p.done.Add(1)
	}
}

var errReceipt = errors.New("the receipt's id is no message id")

func (p *publisher) publish(ctx context.Context, rm *room, data string, sent int64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	content := &realtimev1.MessageContent{Data: data}
	var got *realtimev1.Receipt
	if p.streams {
		var err error
		if got, err = p.send(ctx, &realtimev1.PublishItem{Room: rm.name, Message: content}); err != nil {
			p.hangUp()
			return err
		}
	} else {
		resp, err := p.calls.Publish(ctx, &realtimev1.PublishRequest{Room: rm.name, Message: content})
		if err != nil {
			return err
		}
		got = resp.GetReceipt()
	}
	id, ok := message.ParseID(got.GetId())
	if !ok {
		return errReceipt
	}
	p.receipts = append(p.receipts, receipt{rm.number, authorOf(p.number, p.seq), id, sent, got.GetDegraded()})
	if sent >= p.order.from {
		p.measured++
		_ = p.acks.RecordValue(min(max((p.order.clock.now()-sent)/1000, 1), time.Minute.Microseconds())) // it is in range
	}
	return nil
}

// send publishes over the stream, which it opens if there is none. ctx bounds the answer; the stream outlives it.
func (p *publisher) send(ctx context.Context, item *realtimev1.PublishItem) (*realtimev1.Receipt, error) {
	if p.stream == nil {
		living, cut := context.WithCancel(context.WithoutCancel(ctx))
		stream, err := p.calls.PublishStream(living)
		if err != nil {
			cut()
			return nil, err
		}
		p.stream, p.cut = stream, cut
	}
	defer context.AfterFunc(ctx, p.cut)()
	if err := p.stream.Send(&realtimev1.PublishStreamRequest{Item: item}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err // io.EOF: why it ended is what Recv says
	}
	resp, err := p.stream.Recv()
	if err != nil {
		return nil, err
	}
	if refused := resp.GetResult().GetError(); refused != nil {
		return nil, status.Error(codes.Code(refused.GetCode()), refused.GetMessage())
	}
	return resp.GetResult().GetReceipt(), nil
}

// hangUp ends the stream, if there is one; the next message opens another.
func (p *publisher) hangUp() {
	if p.stream != nil {
		p.cut()
		p.stream = nil
	}
}

// clock tells nanoseconds that never step, on the wall's scale.
type clock struct{ start time.Time }

func newClock() *clock { return &clock{time.Now()} }

func (c *clock) now() int64 { return c.start.UnixNano() + int64(time.Since(c.start)) }
