package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func taken(id string) *realtimev1.PublishResult {
	return &realtimev1.PublishResult{Outcome: &realtimev1.PublishResult_Receipt{Receipt: &realtimev1.Receipt{Id: id}}}
}

func refusedItem(text string) *realtimev1.PublishResult {
	return &realtimev1.PublishResult{Outcome: &realtimev1.PublishResult_Error{Error: &realtimev1.ItemError{
		Code: int32(codes.ResourceExhausted), Reason: realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, Message: text, RetryAfter: durationpb.New(time.Second),
	}}}
}

func TestNotifyAsksForItsUsersAndPrintsALineForEach(t *testing.T) {
	var got *realtimev1.NotifyRequest
	results := []*realtimev1.PublishResult{taken("ID1"), taken("ID2")}
	results[1].GetReceipt().Duplicate, results[1].GetReceipt().Degraded = true, true
	addr := (&fake{notify: func(r *realtimev1.NotifyRequest) (*realtimev1.NotifyResponse, error) {
		got = r
		return &realtimev1.NotifyResponse{Results: results[:len(r.GetUserIds())]}, nil
	}}).serve(t)
	out, err := command(t, "notify", addr, "alice", "--user=bob, the second", `{"n":1}`, "--type=news", "--from=desk", "--idempotency-key=k", "--ephemeral")
	if want := "alice ID1\n\"bob, the second\" ID2 (duplicate, degraded)\n"; err != nil || out != want {
		t.Errorf("two users: %q, %v, want %q", out, err, want)
	}
	want := &realtimev1.NotifyRequest{UserIds: []string{"alice", "bob, the second"}, IdempotencyKey: "k", Message: &realtimev1.MessageContent{Type: "news", Data: `{"n":1}`, From: "desk", Ephemeral: true}}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	if out, err := command(t, "notify", addr, "alice", "1"); err != nil || out != "ID1\n" {
		t.Errorf("one user: %q, %v", out, err)
	}
	out, err = command(t, "notify", addr, "alice", "--user=bob", "1", "--json")
	for i, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		var back realtimev1.PublishResult
		if err := protojson.Unmarshal([]byte(line), &back); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if d := cmp.Diff(results[i], &back, protocmp.Transform()); d != "" {
			t.Errorf("as JSON (-want +got):\n%s", d)
		}
	}
	if err != nil {
		t.Errorf("as JSON: %v", err)
	}
}

func TestWhatIsRefusedOfSeveralIsToldAndTheRestPrinted(t *testing.T) {
	addr := (&fake{
		notify: func(r *realtimev1.NotifyRequest) (*realtimev1.NotifyResponse, error) {
			return &realtimev1.NotifyResponse{Results: []*realtimev1.PublishResult{refusedItem("too much"), taken("ID2")}[:len(r.GetUserIds())]}, nil
		},
		broadcast: func(*realtimev1.BroadcastRequest) (*realtimev1.BroadcastResponse, error) {
			return &realtimev1.BroadcastResponse{}, nil
		},
	}).serve(t)
	out, errOut, err := both(t, "notify", addr, "alice", "--user=bob", "1")
	if out != "bob ID2\n" || errOut != "alice: too much (try again in 1s)\n" || err == nil || err.Error() != "notify: 1 of 2 refused" || exitCode(err) != 1 {
		t.Errorf("two users: %q, %q, %v", out, errOut, err)
	}
	if out, err := command(t, "notify", addr, "alice", "1"); out != "" || err == nil || err.Error() != "notify: too much (try again in 1s)" {
		t.Errorf("one user: %q, %v", out, err)
	}
	if out, err := command(t, "notify", addr, "alice", "1", "--json"); !strings.Contains(out, "OVERLOADED") || err == nil {
		t.Errorf("as JSON: %q, %v", out, err)
	}
	if _, err := command(t, "broadcast", addr, "--room=a", "1"); err == nil || !strings.Contains(err.Error(), "0 answers about 1 messages") {
		t.Errorf("answers are missing: %v", err)
	}
}

func TestBroadcastGoesToEveryoneOrToRooms(t *testing.T) {
	addr := (&fake{
		broadcastAll: func(r *realtimev1.BroadcastAllRequest) (*realtimev1.BroadcastAllResponse, error) {
			return &realtimev1.BroadcastAllResponse{Receipt: &realtimev1.Receipt{Id: "ALL" + r.GetMessage().GetData() + r.GetIdempotencyKey()}}, nil
		},
		broadcast: func(r *realtimev1.BroadcastRequest) (*realtimev1.BroadcastResponse, error) {
			resp := &realtimev1.BroadcastResponse{}
			for _, room := range r.GetRooms() {
				resp.Results = append(resp.Results, taken("TO-"+room+r.GetMessage().GetData()+r.GetIdempotencyKey()))
			}
			return resp, nil
		},
	}).serve(t)
	for want, args := range map[string][]string{
		"ALL1\n":               {"1"},
		"ALL2k\n":              {"2", "--idempotency-key=k"},
		"TO-a3\n":              {"3", "--room=a"},
		"a TO-a4k\nb TO-b4k\n": {"4", "--room=a", "--room=b", "--idempotency-key=k"},
	} {
		if out, err := command(t, append([]string{"broadcast", addr}, args...)...); err != nil || out != want {
			t.Errorf("broadcast %q: %q, %v, want %q", args, out, err, want)
		}
	}
}

// input runs `publish general -` with lines on standard input.
func input(t *testing.T, in io.Reader, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e text
	err = execute(append([]string{"publish", "general", "-"}, args...), &env{ctx: t.Context(), in: in, out: &o, err: &e})
	return o.String(), e.String(), err
}

type laneStream = grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]

// each answers every item until the other side ends.
func each(s laneStream, answer func(*realtimev1.PublishStreamRequest) *realtimev1.PublishResult) error {
	for {
		req, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&realtimev1.PublishStreamResponse{Tag: req.GetTag(), Result: answer(req)}); err != nil {
			return err
		}
	}
}

func TestEveryLineOfTheInputIsPublishedAndCounted(t *testing.T) {
	var items []string
	addr := (&fake{publishStream: func(s laneStream) error {
		return each(s, func(r *realtimev1.PublishStreamRequest) *realtimev1.PublishResult {
			m := r.GetItem().GetMessage()
			items = append(items, fmt.Sprint(r.GetItem().GetRoom(), " ", r.GetItem().GetIdempotencyKey(), " ", m.GetType(), " ", m.GetData()))
			result := taken(fmt.Sprint("ID", r.GetTag()))
			switch r.GetTag() {
			case 2:
				return refusedItem("too much")
			case 5:
				result.GetReceipt().Duplicate = true
			}
			return result
		})
	}}).serve(t)
	const lines = "{\"n\":1}\n2\n\n \n5"
	out, errOut, err := input(t, strings.NewReader(lines), addr, "--idempotency-key=k", "--type=x")
	if want := "published 2 (duplicate 1, degraded 0), refused 1\n"; out != want {
		t.Errorf("out = %q, want %q", out, want)
	}
	if want := "line 2: too much (try again in 1s)\n"; errOut != want {
		t.Errorf("err = %q, want %q", errOut, want)
	}
	if err == nil || err.Error() != "publish: 1 of 3 refused" {
		t.Errorf("publish: %v", err)
	}
	if d := cmp.Diff([]string{`general k:1 x {"n":1}`, "general k:2 x 2", "general k:5 x 5"}, items); d != "" {
		t.Errorf("items (-want +got):\n%s", d)
	}
	out, errOut, _ = input(t, strings.NewReader(lines), addr, "--json")
	var tags []uint64
	for line := range strings.Lines(out) {
		var r realtimev1.PublishStreamResponse
		if err := protojson.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		tags = append(tags, r.GetTag())
	}
	if d := cmp.Diff([]uint64{1, 2, 5}, tags); d != "" || !strings.HasPrefix(errOut, "published 2 ") {
		t.Errorf("as JSON (-want +got):\n%s%s", d, errOut)
	}
}

func TestABrokenStreamLosesAndRepeatsNoLine(t *testing.T) {
	const lines, perStream = 500, 150
	var order []string
	seen := make(map[string]bool)
	var streams atomic.Int64
	addr := (&fake{publishStream: func(s laneStream) error {
		streams.Add(1)
		for range perStream {
			req, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			result := taken("ID")
			if key := req.GetItem().GetIdempotencyKey(); seen[key] {
				result.GetReceipt().Duplicate = true
			} else {
				seen[key] = true
				order = append(order, req.GetItem().GetMessage().GetData())
			}
			if err := s.Send(&realtimev1.PublishStreamResponse{Tag: req.GetTag(), Result: result}); err != nil {
				return err
			}
		}
		// One more is taken, and its answer is lost.
		if req, err := s.Recv(); err == nil {
			seen[req.GetItem().GetIdempotencyKey()] = true
			order = append(order, req.GetItem().GetMessage().GetData())
		}
		return draining()
	}}).serve(t)
	var in, want []string
	for i := range lines {
		in = append(in, fmt.Sprint(i))
	}
	want = in
	out, errOut, err := input(t, strings.NewReader(strings.Join(in, "\n")), addr)
	if err != nil || !strings.HasPrefix(out, "published 500 (duplicate ") || !strings.HasSuffix(out, ", refused 0\n") {
		t.Errorf("publish: %q, %v\n%s", out, err, errOut)
	}
	if d := cmp.Diff(want, order); d != "" {
		t.Errorf("published in another order, or not once (-want +got):\n%s", d)
	}
	if !strings.Contains(errOut, "publish: this node goes away: use another (try again in 0s): calling again\n") || streams.Load() < lines/(perStream+1) {
		t.Errorf("%d streams, told:\n%s", streams.Load(), errOut)
	}
}

func TestInputThatCannotBeReadOnEndsBehindWhatCouldBe(t *testing.T) {
	addr := (&fake{publishStream: func(s laneStream) error {
		return each(s, func(*realtimev1.PublishStreamRequest) *realtimev1.PublishResult { return taken("ID") })
	}}).serve(t)
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"too long":  {strings.NewReader("1\n" + strings.Repeat("x", maxLine+1) + "\n3"), "line 2 is longer than"},
		"no UTF-8":  {strings.NewReader("1\n\"\xff\"\n3"), "line 2 is not UTF-8"},
		"a failure": {io.MultiReader(strings.NewReader("1\n"), failing{}), "disk on fire"},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := input(t, c.in, addr)
			if out != "published 1 (duplicate 0, degraded 0), refused 0\n" || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v, want %q", out, err, c.want)
			}
		})
	}
	if out, errOut, err := input(t, strings.NewReader(""), addr); err != nil || !strings.HasPrefix(out, "published 0 ") || errOut != "" {
		t.Errorf("no input: %q, %q, %v", out, errOut, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestWhatIsInterruptedTellsWhatIsUnknown(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	addr := (&fake{publishStream: func(s laneStream) error {
		for range 2 {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		interrupt()
		<-s.Context().Done()
		return s.Context().Err()
	}}).serve(t)
	in, typing := io.Pipe()
	defer func() { _ = typing.Close() }() // ends the reader, which a terminal could not
	go func() { _, _ = io.WriteString(typing, "1\n2\n") }()
	var out text
	err := execute([]string{"publish", "general", "-", addr}, &env{ctx: ctx, in: in, out: &out, err: t.Output()})
	if err == nil || err.Error() != "publish: interrupted" || out.String() != "published 0 (duplicate 0, degraded 0), refused 0, unknown 2 from line 1 on\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestAStreamThatIsRefusedEndsWithTheReason(t *testing.T) {
	addr := (&fake{publishStream: func(laneStream) error {
		return refused(codes.PermissionDenied, "SCOPE_MISSING", "the scope publish is missing")
	}}).serve(t)
	if _, _, err := input(t, strings.NewReader("1"), addr); err == nil || err.Error() != "publish: the scope publish is missing" {
		t.Errorf("refused: %v", err)
	}
	addr = (&fake{publishStream: func(s laneStream) error {
		if _, err := s.Recv(); err != nil {
			return err
		}
		return s.Send(&realtimev1.PublishStreamResponse{Tag: 7, Result: taken("ID")})
	}}).serve(t)
	if _, _, err := input(t, strings.NewReader("1"), addr); err == nil || !strings.Contains(err.Error(), "an answer about line 7, which is not the next") {
		t.Errorf("an answer to nothing: %v", err)
	}
}

func TestAnAnswerThatDoesNotComeEndsTheStreamAndIdlenessDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := (&lane{}).watch(ctx); err != nil {
			t.Errorf("nothing is waited for: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := &lane{waiting: []*realtimev1.PublishStreamRequest{{Tag: 1}, {Tag: 2}}}
		begin, answers := time.Now(), time.NewTimer(45*time.Second)
		defer answers.Stop()
		ended := make(chan error, 1)
		go func() { ended <- l.watch(t.Context()) }()
		<-answers.C
		l.mu.Lock()
		l.waiting = l.waiting[1:]
		l.mu.Unlock()
		if err := <-ended; !errors.Is(err, errStream) || time.Since(begin) != 90*time.Second {
			t.Errorf("ended after %v with %v, want the second tick without an answer", time.Since(begin), err)
		}
	})
}
