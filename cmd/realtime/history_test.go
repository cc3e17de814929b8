package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// keeper keeps messages 101 to 100+n and pages as the contract says, but at most perPage at once.
func keeper(n, perPage int) *fake {
	return &fake{getHistory: func(r *realtimev1.GetHistoryRequest) (*realtimev1.GetHistoryResponse, error) {
		if r.GetPageSize() < 1 || r.GetPageSize() > 1000 {
			return nil, refused(codes.InvalidArgument, "ARGUMENT_INVALID", "page_size")
		}
		size := min(int(r.GetPageSize()), perPage)
		resp := &realtimev1.GetHistoryResponse{OldestId: "101", LatestId: strconv.Itoa(100 + n)}
		from, to, forwards := 101, 101+n, false // [from, to)
		if start, ok := r.GetStart().(*realtimev1.GetHistoryRequest_AfterId); ok {
			at, _ := strconv.Atoi(start.AfterId) // beginning is no number: 0
			if at != 0 || start.AfterId == beginning {
				forwards, from, resp.Truncated = true, max(at+1, from), at < 100
			}
		} else if r.GetBeforeId() != "" {
			to, _ = strconv.Atoi(r.GetBeforeId())
		}
		scope := fmt.Sprint(r.GetRoom(), from, to, forwards, "/")
		if token := r.GetPageToken(); token != "" {
			rest, ok := strings.CutPrefix(token, scope)
			if !ok {
				return nil, refused(codes.InvalidArgument, "POSITION_INVALID", "a page token of another question")
			}
			if at, _ := strconv.Atoi(rest); forwards {
				from = at
			} else {
				to = at
			}
		}
		if forwards {
			if to-from > size {
				to = from + size
				resp.NextPageToken = scope + strconv.Itoa(to)
			}
		} else if to-from > size {
			from = to - size
			resp.NextPageToken = scope + strconv.Itoa(from)
		}
		for i := from; i < to; i++ {
			resp.Messages = append(resp.Messages, messageOf(strconv.Itoa(i), r.GetRoom(), strconv.Itoa(i)))
		}
		return resp, nil
	}}
}

func TestHistoryIsOldestFirstWhereverItBegins(t *testing.T) {
	for _, c := range []struct {
		kept, perPage int
		args          string
		first, last   int
	}{
		{500, 1000, "", 501, 600},
		{50, 1000, "", 101, 150},
		{50, 7, "", 101, 150},
		{50, 7, "--limit=10", 141, 150},
		{2500, 1000, "--limit=2100", 501, 2600},
		{50, 7, "--before=131 --limit=10", 121, 130},
		{50, 7, "--before=105", 101, 104},
		{50, 7, "--after=131 --limit=10", 132, 141},
		{50, 7, "--after=131", 132, 150},
		{500, 7, "--after=131", 132, 231},
		{2500, 1000, "--all", 101, 2600},
		{500, 7, "--all --after=131", 132, 600},
		{0, 7, "", 101, 100},
		{0, 7, "--all", 101, 100},
	} {
		addr := keeper(c.kept, c.perPage).serve(t)
		out, errOut, err := both(t, append([]string{"history", addr, "--json", "general"}, strings.Fields(c.args)...)...)
		var got, want []string
		for line := range strings.Lines(out) {
			var m realtimev1.Message
			if err := protojson.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			got = append(got, m.GetId())
		}
		for i := c.first; i <= c.last; i++ {
			want = append(want, strconv.Itoa(i))
		}
		if err != nil || errOut != "" || !slices.Equal(got, want) {
			t.Errorf("%d kept, history %s: %v, %s\n got %v\nwant %v", c.kept, c.args, err, errOut, got, want)
		}
	}
}

func TestHistoryIsALinePerMessageAndTellsWhatIsGone(t *testing.T) {
	addr := keeper(2, 10).serve(t)
	out, errOut, err := both(t, "history", addr, "@user/alice b", "--after=7")
	const want = `2026-03-01T12:00:00.007Z "@user/alice b" chat alice 101
2026-03-01T12:00:00.007Z "@user/alice b" chat alice 102
`
	if err != nil || out != want || errOut != "messages behind 7 are gone: the oldest kept is 101\n" {
		t.Errorf("%v\n%s%s", err, out, errOut)
	}
}
