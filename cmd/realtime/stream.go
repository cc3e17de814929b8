package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
	"google.golang.org/grpc"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

const (
	// window is how many messages are under way at once: enough to hide the way there and back.
	window = 256
	// maxLine bounds them in bytes. It is far above what nodes take: how much may be data is theirs to say.
	maxLine = 1 << 20
)

// lane publishes lines, each once: a key per line makes what was sent twice, because the answer was lost, one message.
type lane struct {
	p     *publish
	e     *env
	key   string // of a line: this and its number
	lines chan line
	slots chan struct{} // one for each message under way
	bar   *mpb.Bar

	mu      sync.Mutex
	waiting []*realtimev1.PublishStreamRequest // sent or about to be, not answered; in order

	// Of send's goroutine.
	taken int64
	end   *line // all lines have been taken

	answered, published, duplicate, degraded, refused int64 // of run's goroutine
}

// line is one of the input, or its end.
type line struct {
	number uint64
	data   string
	end    bool
	err    error // with end: why it could not be read on
}

// stream publishes what standard input says, line by line and in order.
func (p *publish) stream(e *env) error {
	conn, err := p.connect(e.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	screen := e.err
	if p.JSON { // lines of data and a bar do not share a terminal
		screen = io.Discard
	}
	bars := mpb.New(mpb.WithOutput(screen)) // silent if that is no terminal
	l := &lane{
		p: p, e: e, key: p.IdempotencyKey + ":", lines: make(chan line), slots: make(chan struct{}, window),
		bar: bars.AddBar(0, mpb.PrependDecorators(decor.Name("answered "), decor.CountersNoUnit("%d / %d")), mpb.AppendDecorators(decor.AverageSpeed(0, "%.0f/s"))),
	}
	if f, ok := screen.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		l.e = &env{ctx: e.ctx, in: e.in, out: e.out, err: bars} // above the bar
	}
	if p.IdempotencyKey == "" {
		l.key = "cli-" + rand.Text() + ":"
	}
	// The reading of a terminal or pipe cannot be broken off: if the command is, the reader is left to the process's end.
	reading, stop := context.WithCancel(e.ctx)
	defer stop()
	var reader sync.WaitGroup
	reader.Go(func() { l.read(reading, e.in) })
	err = p.persist(l.e, "publish", func(ctx context.Context, alive func()) error { return l.run(ctx, conn, alive) })
	l.bar.Abort(false)
	bars.Wait()
	if l.end != nil {
		reader.Wait()
		err = errors.Join(err, l.end.err)
	}
	return l.summary(e, err)
}

// read hands over line by line, and what is no line as the end.
func (l *lane) read(ctx context.Context, input io.Reader) {
	give := func(n line) bool {
		select {
		case l.lines <- n:
			return true
		case <-ctx.Done():
			return false
		}
	}
	in := bufio.NewScanner(input)
	in.Buffer(nil, maxLine)
	number := uint64(0)
	for in.Scan() {
		number++
		if !utf8.Valid(in.Bytes()) {
			give(line{end: true, err: fmt.Errorf("line %d is not UTF-8: nothing behind it was published", number)})
			return
		}
		if len(bytes.TrimSpace(in.Bytes())) > 0 && !give(line{number: number, data: in.Text()}) {
			return
		}
	}
	err := in.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("line %d is longer than %d bytes: send an id and let the receiver fetch the rest; nothing from there on was published", number+1, maxLine)
	}
	give(line{end: true, err: err})
}

// run is one stream: what is not answered yet is sent again, then the lines that come. It returns nil when all is answered.
func (l *lane) run(ctx context.Context, conn *grpc.ClientConn, alive func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	conn.ResetConnectBackoff() // there is one wait already
	calls, err := realtimev1.NewPublisherServiceClient(conn).PublishStream(ctx)
	if err != nil {
		return err
	}
	g.Go(func() error { return l.send(ctx, calls) })
	g.Go(func() error { return l.watch(ctx) })
	g.Go(func() error {
		defer cancel()
		for {
			answer, err := calls.Recv()
			if errors.Is(err, io.EOF) {
				return l.rest()
			}
			if err != nil {
				return err
			}
			alive()
			if err := l.take(answer); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// rest is what a stream that ends must not leave.
func (l *lane) rest() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		return errStream
	}
	return nil
}

// watch ends a stream that nothing comes from though something is waited for.
func (l *lane) watch(ctx context.Context) error {
	tick := time.NewTicker(silence / 2)
	defer tick.Stop()
	for before := (*realtimev1.PublishStreamRequest)(nil); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var first *realtimev1.PublishStreamRequest
		l.mu.Lock()
		if len(l.waiting) > 0 {
			first = l.waiting[0]
		}
		l.mu.Unlock()
		if first != nil && first == before {
			return fmt.Errorf("%w: nothing came for %v", errStream, silence/2)
		}
		before = first
	}
}

// send ends when the input does or the stream breaks, which receiving tells the reason of.
func (l *lane) send(ctx context.Context, calls grpc.BidiStreamingClient[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]) error {
	l.mu.Lock()
	again := slices.Clone(l.waiting)
	l.mu.Unlock()
	for _, req := range again {
		if calls.Send(req) != nil {
			return nil
		}
	}
	for l.end == nil {
		req, ok := l.next(ctx)
		if !ok {
			return nil
		}
		if req != nil && calls.Send(req) != nil {
			return nil
		}
	}
	return calls.CloseSend()
}

// next takes a line, which waits for its answer from then on; nil at the end of the input. It is not ok when ctx ends.
func (l *lane) next(ctx context.Context) (req *realtimev1.PublishStreamRequest, ok bool) {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	select {
	case n := <-l.lines:
		if n.end {
			l.end = &n
			break
		}
		req = &realtimev1.PublishStreamRequest{Tag: n.number, Item: &realtimev1.PublishItem{
			Room: l.p.Room, IdempotencyKey: l.key + strconv.FormatUint(n.number, 10), Message: l.p.message(n.data),
		}}
		l.mu.Lock()
		l.waiting = append(l.waiting, req)
		l.mu.Unlock()
		l.taken++
		l.bar.SetTotal(l.taken, false)
		return req, true
	case <-ctx.Done():
	}
	<-l.slots
	return nil, l.end != nil
}

// take counts an answer. They come in order, so it is the first waiting one's.
func (l *lane) take(r *realtimev1.PublishStreamResponse) error {
	l.mu.Lock()
	if len(l.waiting) == 0 || l.waiting[0].GetTag() != r.GetTag() {
		l.mu.Unlock()
		return fmt.Errorf("an answer about line %d, which is not the next: %s is no node, or of another version", r.GetTag(), l.p.Addr)
	}
	l.waiting = l.waiting[1:]
	l.mu.Unlock()
	<-l.slots
	l.answered++
	l.bar.SetCurrent(l.answered)
	if l.p.JSON {
		if err := printJSON(l.e.out, r); err != nil {
			return err
		}
	}
	if refusal := r.GetResult().GetError(); refusal != nil {
		if l.refused++; !l.p.JSON {
			fmt.Fprintf(l.e.err, "line %d: %v\n", r.GetTag(), itemRefusal(refusal))
		}
		return nil
	}
	l.published++
	if r.GetResult().GetReceipt().GetDuplicate() {
		l.duplicate++
	}
	if r.GetResult().GetReceipt().GetDegraded() {
		l.degraded++
	}
	return nil
}

// summary tells how it went, however it ended.
func (l *lane) summary(e *env, err error) error {
	unknown := len(l.waiting)
	text := fmt.Sprintf("published %d (duplicate %d, degraded %d), refused %d", l.published, l.duplicate, l.degraded, l.refused)
	if unknown > 0 {
		text += fmt.Sprintf(", unknown %d from line %d on", unknown, l.waiting[0].GetTag())
	}
	w := e.out
	if l.p.JSON { // the answers are there
		w = e.err
	}
	if _, printErr := fmt.Fprintln(w, text); err == nil {
		err = printErr
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("publish: interrupted")
	case err != nil:
		return err
	case l.refused > 0:
		return fmt.Errorf("publish: %d of %d refused", l.refused, l.answered)
	}
	return nil
}
