package rpc

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// window is how many items of a stream may be read and not answered, if the broker is away by a network.
const window = 256

// PublishStream publishes what comes, one answer for each item in the order of the items.
//
// The lane reads in a goroutine of its own, because nothing but the end of this method ends a read that waits: a drain
// returns from here once the lane has answered what it has read.
func (s *publisher) PublishStream(st grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]) error {
	ctx := st.Context()
	l := s.newLane(st)
	ended := make(chan error, 1)
	s.lanes.Go(func() { ended <- l.run() })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		l.stop()
		return context.Cause(ctx)
	}
}

// lane is a PublishStream. Items of one room are published one after the other; items of different rooms overlap, as the
// waits for a bus over the network must. The embedded broker answers at once: there the reading goroutine publishes and
// answers by itself. A hand-over would buy nothing and costs a tenth of an item, measured with all items in one room.
type lane struct {
	s   *publisher
	st  grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]
	who *Caller
	ctx context.Context //nolint:containedctx // of all items; the end of the stream is not theirs: an item that was read is published

	inline  bool
	workers sync.WaitGroup

	mu      sync.Mutex // guards what follows
	change  sync.Cond  // of open and stopped
	open    int        // items that were read and not answered
	stopped bool
	rooms   map[string]*[]*entry // what waits behind a room's item under way
	order   []*entry             // not answered yet
	sending bool
}

// entry is an item under way.
type entry struct {
	item *realtimev1.PublishItem
	done bool
	answer
}

func (s *publisher) newLane(st grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]) *lane {
	ctx := context.WithoutCancel(st.Context())
	l := &lane{s: s, st: st, who: callerOf(ctx), ctx: ctx, rooms: make(map[string]*[]*entry)}
	_, l.inline = s.broker.(*broker.Memory)
	l.change.L = &l.mu
	return l
}

// run reads until the caller has said all, has left, or the lane is stopped. It returns when everything is answered.
func (l *lane) run() (err error) {
	defer func() { err = caught(recover(), err) }()
	defer l.workers.Wait()
	var req realtimev1.PublishStreamRequest
	var own answer
	b := new(bounded)
	for {
		if err := l.st.RecvMsg(&req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return &unread{err}
		}
		if !l.begin() {
			return errDraining // as if it had not been read
		}
		if !l.inline {
			l.dispatch(&entry{item: req.GetItem(), answer: answer{tag: req.GetTag()}})
			continue
		}
		own.tag = req.GetTag()
		b = b.renew(l.ctx, l.s.chain.timeout)
		l.publish(b, req.GetItem(), &own)
		err := own.send(l.st)
		l.finish()
		if err != nil {
			return err
		}
	}
}

// begin opens an item once there is place for it, unless the lane is stopped.
func (l *lane) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open == window && !l.stopped {
		l.change.Wait()
	}
	if l.stopped {
		return false
	}
	l.open++
	return true
}

// finish closes an item.
func (l *lane) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open--; l.stopped || l.open == window-1 {
		l.change.Broadcast()
	}
}

// stop lets nothing more in and returns when all that was let in is answered.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.change.Broadcast()
	for l.open > 0 {
		l.change.Wait()
	}
}

// publish publishes an item and fills in its answer.
func (l *lane) publish(ctx *bounded, item *realtimev1.PublishItem, a *answer) {
	err := l.who.take(1)
	var receipt broker.Receipt
	if err == nil {
		receipt, err = l.s.item(ctx, l.who, item)
		ctx.release()
	}
	if err != nil {
		a.refuse(l.s.refusal(l.ctx, err))
		return
	}
	a.accept(item.GetRoom(), receipt)
}

// dispatch puts an item behind those of its room.
func (l *lane) dispatch(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order = append(l.order, e)
	room := e.item.GetRoom()
	if waiting, ok := l.rooms[room]; ok {
		*waiting = append(*waiting, e)
		return
	}
	waiting := new([]*entry)
	l.rooms[room] = waiting
	l.workers.Go(func() { l.work(room, waiting, e) })
}

// work publishes a room's items until none waits.
func (l *lane) work(room string, waiting *[]*entry, e *entry) {
	for e != nil {
		l.publish(bound(l.ctx, l.s.chain.timeout), e.item, &e.answer)
		l.mu.Lock()
		e.done = true
		if e = nil; len(*waiting) > 0 {
			e, *waiting = (*waiting)[0], (*waiting)[1:]
		} else {
			delete(l.rooms, room)
		}
		l.mu.Unlock()
		l.flush()
	}
}

// flush sends the answers that are due, unless somebody does already: he then sees what has become due meanwhile.
func (l *lane) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending {
		return
	}
	l.sending = true
	for len(l.order) > 0 && l.order[0].done {
		e := l.order[0]
		l.order[0], l.order = nil, l.order[1:]
		l.mu.Unlock()
		_ = e.send(l.st) // it fails when the caller has left: the read fails too
		l.finish()
		l.mu.Lock()
	}
	l.sending = false
}

// answer is a response with all its parts, to be filled again and again.
type answer struct {
	tag      uint64
	response realtimev1.PublishStreamResponse
	result   realtimev1.PublishResult
	accepted realtimev1.PublishResult_Receipt
	receipt  realtimev1.Receipt
	at       timestamppb.Timestamp
}

func (a *answer) accept(room string, r broker.Receipt) {
	at := (&message.Message{Timestamp: r.Timestamp}).Time()
	a.at.Seconds, a.at.Nanos = at.Unix(), int32(at.Nanosecond())
	a.receipt.Id, a.receipt.Room, a.receipt.Timestamp = r.ID.String(), room, &a.at
	a.receipt.Duplicate, a.receipt.Degraded = r.Duplicate, r.Degraded
	a.accepted.Receipt = &a.receipt
	a.result.Outcome = &a.accepted
}

func (a *answer) refuse(e *realtimev1.ItemError) {
	a.result.Outcome = &realtimev1.PublishResult_Error{Error: e}
}

func (a *answer) send(st grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]) error {
	a.response.Result, a.response.Tag = &a.result, a.tag
	return st.SendMsg(&a.response)
}
