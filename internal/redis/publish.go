package redis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// What one script publishes at most.
const (
	batchMessages = 128
	batchBytes    = 256 << 10
)

// job is a publication under way.
type job struct {
	m    *message.Message // the caller's
	env  string
	key  string // the key of its receipt; empty: it has none
	done chan outcome

	sent, gone bool // guarded by the queues' lock
}

type outcome struct {
	receipt broker.Receipt
	err     error
}

// queue is what waits to be published in a room. It exists while there is something, or a script is under way.
type queue struct {
	room message.Room
	jobs []*job
}

// queues are those of all rooms.
type queues struct {
	mu     sync.Mutex
	rooms  map[message.Room]*queue
	bytes  int64 // of what waits
	closed bool
}

// publish is Publish. What is published in a room while a script of it is under way makes up the next one.
func (b *Broker) publish(ctx context.Context, p broker.Publication) (broker.Receipt, error) {
	if err := b.usable(ctx); err != nil {
		return broker.Receipt{}, err
	}
	m := p.Message
	j := &job{m: m, env: string(appendEnv(nil, m, 0)), done: make(chan outcome, 1)}
	if p.Key != "" {
		j.key = b.keys.receipt(b.keys.channel(m.Room), keyHash(p.Caller, p.Key))
	}
	if err := b.enqueue(j); err != nil {
		return broker.Receipt{}, err
	}
	select {
	case o := <-j.done:
		return o.receipt, o.err
	case <-ctx.Done():
	}
	if b.queues.withdraw(j) {
		return broker.Receipt{}, ctx.Err()
	}
	select { // it was sent: perhaps the answer has come
	case o := <-j.done:
		return o.receipt, o.err
	default:
		return broker.Receipt{}, ctx.Err()
	}
}

// keyHash stands for a caller and a key of his.
func keyHash(caller, key string) string {
	b := binary.AppendUvarint(nil, uint64(len(caller))) // so that the two cannot be cut elsewhere
	sum := sha256.Sum256(append(append(b, caller...), key...))
	return hex.EncodeToString(sum[:16])
}

func (b *Broker) enqueue(j *job) error {
	q := &b.queues
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return broker.ErrClosed
	case q.bytes+int64(len(j.env)) > b.cfg.MaxQueued:
		return broker.ErrOverloaded
	}
	q.bytes += int64(len(j.env))
	if r := q.rooms[j.m.Room]; r != nil {
		r.jobs = append(r.jobs, j)
		return nil
	}
	r := &queue{room: j.m.Room, jobs: []*job{j}}
	q.rooms[r.room] = r
	b.tasks.Go(func() { b.publishAll(r) })
	return nil
}

// withdraw takes a job out that was not sent yet.
func (q *queues) withdraw(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.gone = true
	return !j.sent
}

// take takes the next batch out of a room's queue. None: the queue is no more.
func (q *queues) take(r *queue) (batch []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for _, j := range r.jobs {
		if !j.gone && len(batch) > 0 && (len(batch) == batchMessages || size+len(j.env) > batchBytes) {
			break
		}
		n++
		q.bytes -= int64(len(j.env))
		if !j.gone {
			j.sent = true
			size += len(j.env)
			batch = append(batch, j)
		}
	}
	clear(r.jobs[:n])
	r.jobs = r.jobs[n:]
	if len(batch) == 0 {
		delete(q.rooms, r.room)
	}
	return batch
}

// close refuses what comes from now on. What is queued is still published.
func (q *queues) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// publishAll publishes what is in a room's queue, until it is empty.
func (b *Broker) publishAll(r *queue) {
	for batch := b.queues.take(r); len(batch) > 0; batch = b.queues.take(r) {
		b.publishBatch(r.room, batch)
	}
}

// publishBatch publishes a batch and answers its jobs. While the outcome is unknown it is tried again, with a position
// behind which the script looks for what it may have stored already.
func (b *Broker) publishBatch(name message.Room, batch []*job) {
	ch := b.keys.channel(name)
	b.barrier.wait(ch)
	known := b.position(ch)
	floors := floors{}
	if time.Duration(b.guard.Load()) > b.elapsed() {
		floors.guard = b.least(name, ch)
	}
	begin := time.Now()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if b.isAway(ch) && b.parkAll(name, ch, batch, floors.retry) {
			return
		}
		keys, args := b.publishArgs(name, ch, batch, floors)
		reply, err := b.wire.script(b.root, ScriptPublish, keys, args)
		if err == nil {
			b.published(name, ch, batch, reply)
			return
		}
		b.stats.publishErrors.Add(1)
		b.wire.doubt()
		if text, ok := answered(err); ok && denied(text) {
			b.refused.warn(b.log, "redis denies a right that publishing takes", "error", err)
		}
		what := judge(err)
		if what == unknown {
			floors.retry, floors.guard = known, b.least(name, ch)
			b.kick()
		}
		switch {
		case what == hopeless || !b.open.Load():
			b.refuse(batch, what, err)
			return
		case time.Since(begin) > b.cfg.Grace:
			b.lose(b.partOf(ch, err), err)
		default:
			pause(b.root, wait)
		}
	}
}

// refuse answers jobs that could not be published.
func (b *Broker) refuse(batch []*job, what fault, err error) {
	err = fmt.Errorf("redis: publish: %w: %w", broker.ErrUnavailable, err)
	if what == hopeless {
		err = fmt.Errorf("redis: publish: a key of the room holds something else: %w", err)
	}
	if !b.open.Load() {
		err = broker.ErrClosed
	}
	b.refused.warn(b.log, "messages could not be published", "error", err)
	for _, j := range batch {
		j.done <- outcome{err: err}
	}
}

// floors are positions that a publish must know of: behind retry a first try may have stored it; what is stored must lie
// behind guard.
type floors struct{ retry, guard message.Position }

// position is one behind which whatever is published next in the room will lie.
func (b *Broker) position(ch string) message.Position {
	return cmp.Or(b.delivered(ch), message.At(b.clock.millis()-10_000, 0))
}

// delivered is the position that was delivered last in a room with members; else 0.
func (b *Broker) delivered(ch string) message.Position {
	if r := b.find(ch); r != nil {
		return r.delivered()
	}
	return 0
}

// least is the position that the next one in the room must exceed, so far as this node knows.
func (b *Broker) least(name message.Room, ch string) message.Position {
	p := b.journal.newest(name)
	if r := b.find(ch); r != nil {
		p = max(p, r.least())
	}
	return p
}

func (b *Broker) publishArgs(name message.Room, ch string, batch []*job, f floors) (keys, args []string) {
	keep := b.retention(name)
	how, threshold := "MINID", strconv.FormatInt(b.clock.millis()-keep.Age.Milliseconds(), 10)
	if keep.Messages < 0 || b.chanceOf(16) == 0 {
		how, threshold = "MAXLEN", strconv.Itoa(max(keep.Messages, 0))
	}
	keys = []string{b.keys.stream(ch), b.keys.tip(ch)}
	args = []string{
		ch, b.wire.verb(), how, threshold, seconds(keep.Age + streamSpare), seconds(tipTTL(keep)), seconds(b.cfg.IdempotencyTTL),
		streamID(f.retry), streamID(f.guard),
	}
	index := make([]string, len(batch))
	for i, j := range batch {
		args = append(args, j.env)
		if j.key != "" {
			keys = append(keys, j.key)
			index[i] = strconv.Itoa(len(keys))
		}
	}
	if len(keys) > 2 {
		args = append(append(args, index...), strconv.Itoa(len(batch)))
	}
	return keys, args
}

// published delivers a batch on this node, so far as it has members, and answers its jobs.
func (b *Broker) published(name message.Room, ch string, batch []*job, reply []string) {
	results, pushes, err := readReply(batch, reply, b.clock.now)
	if err != nil {
		b.refuse(batch, unknown, err)
		return
	}
	for _, p := range pushes {
		if p.first != 0 {
			b.touch(name)
			break
		}
	}
	b.record(name, batch, reply)
	b.own(ch, pushes)
	for i, j := range batch {
		j.done <- results[i]
	}
}

// touch notes that a room has history.
func (b *Broker) touch(name message.Room) {
	if name.Ordinary() && b.wire.queries() && b.retention(name).Messages > 0 {
		b.touched.add(name)
	}
}

// own delivers what this node has published, if it has members of the room.
func (b *Broker) own(ch string, pushes []push) {
	if r := b.find(ch); r != nil {
		for _, p := range pushes {
			r.offer(p, true)
		}
	}
}

// readReply reads what publish.lua says of each message: its outcome, and what is to be delivered for it.
func readReply(batch []*job, reply []string, now func() message.Position) (results []outcome, pushes []push, err error) {
	if len(reply) != len(batch)+1 {
		return nil, nil, fmt.Errorf("%d answers to %d messages: %w", len(reply), len(batch), errJunk)
	}
	prev, ok := parseStreamID(reply[0])
	if !ok {
		return nil, nil, errJunk
	}
	fresh, last := push{prev: prev}, prev
	for i, j := range batch {
		m := *j.m // the Sink's own
		receipt := broker.Receipt{ID: m.ID, Timestamp: m.Timestamp}
		say, rest := reply[i+1][:min(1, len(reply[i+1]))], reply[i+1][min(1, len(reply[i+1])):]
		switch say {
		case "~":
			if receipt.ID.Position = last; last == 0 {
				receipt.ID.Position = now()
			}
			fresh.items = append(fresh.items, item{m: &m})
		case "+":
			if last, ok = parseStreamID(rest); !ok {
				return nil, nil, errJunk
			}
			if fresh.first == 0 {
				fresh.first = last
			}
			receipt.ID.Position = last
			fresh.items = append(fresh.items, item{m: &m})
		case "=":
			at, before, _ := strings.Cut(rest, "|")
			p := push{items: []item{{m: &m}}}
			var ok2 bool
			p.first, ok = parseStreamID(at)
			if p.prev, ok2 = parseStreamID(before); !ok || !ok2 || p.first == 0 {
				return nil, nil, errJunk
			}
			receipt.ID.Position = p.first
			pushes = append(pushes, p)
		case "!":
			if receipt, ok = readReceipt(rest, now); !ok {
				return nil, nil, errJunk
			}
		default:
			return nil, nil, errJunk
		}
		results = append(results, outcome{receipt: receipt})
	}
	if len(fresh.items) > 0 {
		pushes = append(pushes, fresh)
	}
	return results, pushes, nil
}

// readReceipt reads the receipt of an earlier publication: its position, and the head of its envelope.
func readReceipt(s string, now func() message.Position) (broker.Receipt, bool) {
	at, env, _ := strings.Cut(s, "|")
	pos, ok := parseStreamID(at)
	if !ok || len(env) < envHead {
		return broker.Receipt{}, false
	}
	if env[8]&envOriginal != 0 && len(env) >= envHead+8 {
		pos = readHalf(env[envHead:])
	}
	if pos == 0 {
		pos = now()
	}
	return broker.Receipt{
		ID:        message.ID{Position: pos, Low: message.Low(binary.BigEndian.Uint64([]byte(env[:8])))},
		Timestamp: int64(binary.BigEndian.Uint64([]byte(env[9:envHead]))),
		Duplicate: true,
	}, true
}
