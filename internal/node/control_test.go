package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/message"
)

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-late:
			t.Fatalf("not in %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

func TestSessionsOfAllEdgesAreListedPageByPage(t *testing.T) {
	r := start(t, compose(t))
	r.ready()
	other := open(t, r.Node, edge.Config{})
	var want []string
	for i := range 9 {
		conn := []func() *websocket.Conn{func() *websocket.Conn { return r.dial("a") }, func() *websocket.Conn { return dial(t, other+"/ws/b") }}[i%2]()
		welcome := find(t, conn, `"welcome"`)
		_, rest, _ := strings.Cut(welcome, `"session":"`)
		id, _, _ := strings.Cut(rest, `"`)
		want = append(want, id)
	}
	slices.Sort(want)
	list := func(f control.Filter, limit int) (got []string) {
		t.Helper()
		for q := (control.Query{Filter: f, Limit: limit}); ; {
			page, next, unreached, err := r.Control().Sessions(t.Context(), q)
			if err != nil || len(unreached) > 0 || len(page) > limit {
				t.Fatalf("%d sessions, unreached %q, %v", len(page), unreached, err)
			}
			for _, s := range page {
				if s.Node != r.Name() {
					t.Errorf("on node %q, want %q", s.Node, r.Name())
				}
				got = append(got, s.ID)
			}
			if q.After = next; next == "" {
				return got
			}
		}
	}
	eventually(t, "all have begun", func() bool { return len(list(control.Filter{}, 100)) == len(want) })
	for limit := range 10 {
		if got := list(control.Filter{}, limit+1); !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q, want %q", limit+1, got, want)
		}
	}
	if a, b := list(control.Filter{Room: "a"}, 2), list(control.Filter{Room: "b"}, 2); len(a) != 5 || len(b) != 4 {
		t.Errorf("%d in a, %d in b", len(a), len(b))
	}
	if got := list(control.Filter{Node: r.Name()}, 4); !slices.Equal(got, want) {
		t.Errorf("of this node: %q", got)
	}
	infos, err := r.Control().Nodes(t.Context())
	if err != nil || len(infos) != 1 || infos[0] != r.Control().Self() || infos[0].Sessions != 9 || infos[0].Rooms != 2 || infos[0].State != control.Serving {
		t.Errorf("nodes %+v, %v, self %+v", infos, err, r.Control().Self())
	}
	closed := 0
	for _, id := range want {
		n, _, err := r.Control().Disconnect(t.Context(), control.Disconnect{Sessions: []string{id}, Code: 4003})
		if err != nil {
			t.Error(err)
		}
		closed += n
	}
	if closed != len(want) {
		t.Errorf("%d sessions closed, want %d", closed, len(want))
	}
}

func TestADrainingNodeSaysSo(t *testing.T) {
	r := start(t, compose(t))
	r.ready()
	r.Drain(t.Context())
	if s := r.Control().Self().State; s != control.Draining {
		t.Errorf("state %q, want draining", s)
	}
}

func TestRoomsOfUsersAreAskedOfTheNode(t *testing.T) {
	r := start(t, compose(t))
	r.Presence().Open("u", nil).Joined("b")
	r.Presence().Open("u", nil).Joined("a")
	r.ready()
	rooms, unreached, err := r.Control().RoomsOf(t.Context(), []string{"nobody", "u"})
	if err != nil || len(unreached) != 0 || len(rooms[0]) != 0 || !slices.Equal(rooms[1], []message.Room{"a", "b"}) {
		t.Errorf("rooms %q, unreached %q, %v", rooms, unreached, err)
	}
}

// withTokens is a way in whose tokens are user names, issued an hour ago.
func withTokens() edge.Config {
	g, _ := auth.CompileGrants(map[string]string{"*": "rwph"})
	return edge.Config{Verify: func(token string) (auth.Identity, error) {
		return auth.Identity{User: token, IssuedAt: time.Now().Add(-time.Hour), Grants: g}, nil
	}}
}

func revoked(user string) broker.Revocation {
	return broker.Revocation{User: user, Before: time.Now(), Expires: time.Now().Add(time.Hour)}
}

func TestARevocationEndsSessionsOfAllEdgesAndLetsNoneIn(t *testing.T) {
	r := start(t, compose(t), withTokens())
	r.ready()
	other := open(t, r.Node, withTokens())
	alice, too, bob := r.as("alice", "a"), dial(t, other+"/ws/a?token=alice"), r.as("bob", "a")
	for _, conn := range []*websocket.Conn{alice, too, bob} {
		find(t, conn, `"subscribed"`)
	}
	eventually(t, "all have begun", func() bool {
		all, _, _, err := r.Control().Sessions(t.Context(), control.Query{Limit: 9})
		return err == nil && len(all) == 3
	})
	if n, unreached, err := r.Control().Revoke(t.Context(), revoked("alice")); n != 2 || len(unreached) != 0 || err != nil {
		t.Errorf("%d sessions ended, %q, %v", n, unreached, err)
	}
	for _, conn := range []*websocket.Conn{alice, too} {
		if code := closed(t, conn); code != 4501 {
			t.Errorf("closed with %d, want 4501", code)
		}
	}
	if _, res, err := websocket.Dial(t.Context(), r.url+"/ws/a?token=alice", nil); err == nil || res == nil || res.StatusCode != 401 {
		t.Errorf("let in: %v", err)
	}
	list, err := r.Control().Revocations(t.Context())
	if err != nil || len(list) != 1 || list[0].User != "alice" {
		t.Errorf("in force: %+v, %v", list, err)
	}
	if err := r.Control().Unrevoke(t.Context(), broker.Revocation{User: "alice"}); err != nil {
		t.Error(err)
	}
	find(t, r.as("alice", "a"), `"subscribed"`)
	say(t, bob, `{"type":"ping"}`)
	find(t, bob, `"pong"`)
}

// A push may be lost: the node finds out by itself.
func TestARevocationThatNobodyTellsOfIsFound(t *testing.T) {
	for name, tell := range map[string]func(*Node){
		"told by the bus": func(n *Node) { n.Revoked(7) },
		"not told at all": func(*Node) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, compose(t), withTokens())
			r.ready()
			alice := r.as("alice", "a")
			find(t, alice, `"subscribed"`)
			if err := r.Broker().Revoke(t.Context(), revoked("alice")); err != nil {
				t.Fatal(err)
			}
			tell(r.Node)
			if code := closed(t, alice); code != 4501 {
				t.Errorf("closed with %d, want 4501", code)
			}
		})
	}
}

// absent is a broker whose revocations cannot be read at first.
type absent struct {
	broker.Broker
	list  []broker.Revocation
	fails atomic.Int32
	reads atomic.Int32
}

func (a *absent) Revocations(ctx context.Context) ([]broker.Revocation, uint64, error) {
	a.reads.Add(1)
	if a.fails.Add(-1) >= 0 {
		return nil, 0, broker.ErrUnavailable
	}
	return a.list, 1, ctx.Err()
}

func TestNobodyIsLetInBeforeTheRevocationsAreRead(t *testing.T) {
	n := compose(t)
	a := &absent{Broker: n.bus, list: []broker.Revocation{revoked("alice")}}
	a.fails.Store(3)
	n.revocations.bus = a
	r := start(t, n, withTokens())
	r.ready()
	if got := a.reads.Load(); got != 4 {
		t.Errorf("ready after %d readings, want 4", got)
	}
	if _, res, err := websocket.Dial(t.Context(), r.url+"/ws/a?token=alice", nil); err == nil || res == nil || res.StatusCode != 401 {
		t.Errorf("let in: %v", err)
	}
}

func TestRevocationsThatDidNotChangeAreNotTakenAnew(t *testing.T) {
	a := &absent{}
	ended := 0
	r := &revocations{bus: a, end: func() int { ended++; return 1 }, log: quiet(t), news: make(chan struct{}, 1)}
	read := func(want int) {
		t.Helper()
		if n, err := r.read(t.Context()); n != want || err != nil {
			t.Errorf("read = %d, %v, want %d", n, err, want)
		}
	}
	if r.revoked("alice", "", time.Time{}) {
		t.Error("revoked before anything was read")
	}
	read(1)
	read(0)
	a.list = []broker.Revocation{revoked("alice")} // as if it had expired, or come: no version tells
	read(1)
	if !r.revoked("alice", "", time.Time{}) || r.revoked("bob", "", time.Time{}) {
		t.Error("it is not what was read")
	}
	a.fails.Store(1)
	if _, err := r.read(t.Context()); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("read = %v", err)
	}
	if !r.revoked("alice", "", time.Time{}) {
		t.Error("what was read last does not hold")
	}
	r.changed(1)
	if len(r.news) != 0 {
		t.Error("a version that is known is read anew")
	}
	r.changed(2)
	r.changed(3)
	if len(r.news) != 1 || ended != 2 {
		t.Errorf("%d readings wait, %d ended", len(r.news), ended)
	}
}

func TestAUsersOldestSessionGivesWayToTheNewest(t *testing.T) {
	g, _ := auth.CompileGrants(map[string]string{"*": "rwph"})
	cfg := edge.Config{Verify: func(token string) (auth.Identity, error) {
		return auth.Identity{User: token, Grants: g, MaxSessions: 2}, nil
	}}
	r := start(t, compose(t), cfg)
	r.ready()
	other := open(t, r.Node, cfg)
	var all []*websocket.Conn
	for i := range 5 { // on both ways in
		conn := dial(t, fmt.Sprintf("%s/ws/a?token=alice", []string{r.url, other}[i%2]))
		find(t, conn, `"subscribed"`)
		all = append(all, conn)
		if i >= 2 {
			if code := closed(t, all[i-2]); code != 4503 {
				t.Errorf("closed with %d, want 4503", code)
			}
		}
		began := time.Now()
		eventually(t, "the next one is newer", func() bool { return time.Since(began) > 2*time.Millisecond })
	}
	for _, conn := range all[3:] {
		say(t, conn, `{"type":"ping"}`)
		find(t, conn, `"pong"`)
	}
}
