package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// bus carries questions between the nodes of a test.
type bus struct {
	nodes   map[string]func(context.Context, broker.Request) broker.Reply
	silent  []string
	failure error

	mu      sync.Mutex
	revoked []broker.Revocation
}

func (b *bus) Ask(ctx context.Context, r broker.Request) (replies []broker.Reply, unreached []string, err error) {
	if b.failure != nil {
		return nil, nil, b.failure
	}
	for name, serve := range b.nodes {
		if slices.Contains(b.silent, name) {
			unreached = append(unreached, name)
			continue
		}
		reply := serve(ctx, r)
		reply.Node = name
		replies = append(replies, reply)
	}
	return replies, unreached, nil
}

func (b *bus) Revoke(_ context.Context, r broker.Revocation) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revoked = append(b.revoked, r)
	return b.failure
}

func (b *bus) Revocations(context.Context) ([]broker.Revocation, uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.revoked), 1, b.failure
}

// node has sessions that are nothing but names.
type node struct {
	name string
	part int // sessions of one answer at most; 0: as many as are asked for

	mu       sync.Mutex
	sessions []Session
	placed   []Placing
	failing  bool
}

var errNode = errors.New("broken")

func (n *node) Sessions(_ context.Context, q Query) (list []Session, more bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failing {
		return nil, false, errNode
	}
	limit := q.Limit
	if n.part > 0 {
		limit = min(limit, n.part)
	}
	for _, s := range n.sessions {
		if s.ID <= q.After || q.User != "" && s.User != q.User || q.Node != "" && q.Node != n.name {
			continue
		}
		if len(list) == limit {
			return list, true, nil
		}
		list = append(list, s)
	}
	return list, false, nil
}

func (n *node) Disconnect(d Disconnect) (done Disconnected) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sessions = slices.DeleteFunc(n.sessions, func(s Session) bool {
		meant := d.User != "" && s.User == d.User || slices.Contains(d.Sessions, s.ID)
		if meant {
			done.Found++
		}
		if meant && !slices.Contains(d.Except, s.ID) {
			done.Closed++
			return true
		}
		return false
	})
	return done
}

func (n *node) place(p Placing) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.placed = append(n.placed, p)
	return len(n.sessions)
}

func (n *node) Join(_ context.Context, p Placing) int { return n.place(p) }
func (n *node) Leave(p Placing) int                   { return n.place(p) }

func (n *node) Revoked(context.Context) (int, error) { return len(n.sessions), nil }

func (n *node) Info() Info {
	return Info{Host: "host-" + n.name, State: Serving, Sessions: len(n.sessions)}
}

func (n *node) RoomsOf(users []string) [][]message.Room {
	rooms := make([][]message.Room, len(users))
	for i, u := range users {
		rooms[i] = []message.Room{"of-" + message.Room(u), message.Room("on-" + n.name)}
	}
	return rooms
}

// connect makes nodes on a bus.
func connect(t testing.TB, nodes ...*node) (*bus, *Asker) {
	b := &bus{nodes: make(map[string]func(context.Context, broker.Request) broker.Reply)}
	for _, n := range nodes {
		b.nodes[n.name] = Serve(n, slog.New(slog.NewTextHandler(t.Output(), nil)))
	}
	return b, NewAsker(b, nodes[0].Info)
}

// pages lists sessions page by page and returns their ids.
func pages(t *testing.T, a *Asker, q Query) (ids []string, nodes map[string]int) {
	t.Helper()
	nodes = make(map[string]int)
	for range 1000 {
		page, next, unreached, err := a.Sessions(t.Context(), q)
		if err != nil || len(unreached) > 0 || len(page) > q.Limit {
			t.Fatalf("%d sessions of at most %d, unreached %q, %v", len(page), q.Limit, unreached, err)
		}
		for _, s := range page {
			ids = append(ids, s.ID)
			nodes[s.Node]++
		}
		if q.After = next; next == "" {
			return ids, nodes
		}
		if len(page) == 0 {
			t.Fatal("an empty page that is not the last")
		}
	}
	t.Fatal("the pages do not end")
	return nil, nil
}

func TestPagesOverAllNodesHaveEachSessionOnceInOrder(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes := []*node{{name: "a", part: 1 + r.IntN(3)}, {name: "b"}, {name: "c", part: 2}}
		var want []string
		for range r.IntN(40) {
			s := Session{ID: fmt.Sprintf("%06x", r.IntN(1<<24)), User: "u"}
			n := nodes[r.IntN(len(nodes))]
			n.sessions = append(n.sessions, s)
			want = append(want, s.ID)
		}
		slices.Sort(want)
		for _, n := range nodes {
			slices.SortFunc(n.sessions, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
		}
		_, a := connect(t, nodes...)
		got, by := pages(t, a, Query{Limit: 1 + r.IntN(7)})
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: listed %q, want %q", seed, got, want)
		}
		for _, n := range nodes {
			if by[n.name] != len(n.sessions) {
				t.Errorf("seed %d: %d sessions on %s, want %d", seed, by[n.name], n.name, len(n.sessions))
			}
		}
	}
}

func TestSilentAndBrokenNodesAreNamed(t *testing.T) {
	nodes := []*node{{name: "a", sessions: []Session{{ID: "1", User: "u"}}}, {name: "b", failing: true}, {name: "c"}, {name: "old"}}
	b, a := connect(t, nodes...)
	b.silent = []string{"c"}
	b.nodes["old"] = func(context.Context, broker.Request) broker.Reply { return broker.Reply{} } // knows nothing of the kind
	all, _, unreached, err := a.Sessions(t.Context(), Query{Limit: 10})
	if err != nil || len(all) != 1 || !slices.Equal(unreached, []string{"b", "c", "old"}) {
		t.Errorf("sessions %+v, unreached %q, %v", all, unreached, err)
	}
	_, unreached, err = a.Disconnect(t.Context(), Disconnect{Sessions: []string{"9"}, Code: 4003})
	if err != nil || !slices.Equal(unreached, []string{"c", "old"}) {
		t.Errorf("a session that a silent node may have: unreached %q, %v", unreached, err)
	}
	infos, err := a.Nodes(t.Context())
	want := []Info{{Node: "a", Host: "host-a", State: Serving, Sessions: 1}, {Node: "b", Host: "host-b", State: Serving}, {Node: "c"}, {Node: "old"}}
	if diff := gocmp.Diff(want, infos); diff != "" || err != nil {
		t.Errorf("nodes: %v (-want +got):\n%s", err, diff)
	}
	rooms, unreached, err := a.RoomsOf(t.Context(), []string{"u", "v"})
	if diff := gocmp.Diff([][]message.Room{{"of-u", "on-a", "on-b"}, {"of-v", "on-a", "on-b"}}, rooms); diff != "" || err != nil || len(unreached) != 2 {
		t.Errorf("rooms: %v, %q (-want +got):\n%s", err, unreached, diff)
	}
	if _, _, unreached, err = a.Sessions(t.Context(), Query{Limit: 1, Filter: Filter{Node: "a"}}); err != nil || len(unreached) != 0 {
		t.Errorf("of one node another is missed: %q, %v", unreached, err)
	}
	if _, _, unreached, err = a.Sessions(t.Context(), Query{Limit: 1, Filter: Filter{Node: "c"}}); err != nil || !slices.Equal(unreached, []string{"c"}) {
		t.Errorf("the silent one itself: %q, %v", unreached, err)
	}
}

func TestWhatNoNodeHasIsNotFound(t *testing.T) {
	b, a := connect(t, &node{name: "a", sessions: []Session{{ID: "1", User: "u"}}}, &node{name: "b"})
	if _, _, err := a.Disconnect(t.Context(), Disconnect{Sessions: []string{"9"}, Code: 4003}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a session: %v, want ErrNotFound", err)
	}
	if n, _, err := a.Disconnect(t.Context(), Disconnect{Sessions: []string{"1"}, Except: []string{"1"}, Code: 4003}); n != 0 || err != nil {
		t.Errorf("a session that stays: %d closed, %v", n, err)
	}
	if n, _, err := a.Disconnect(t.Context(), Disconnect{User: "nobody", Code: 4003}); n != 0 || err != nil {
		t.Errorf("a user without sessions: %d closed, %v; want none and no error", n, err)
	}
	if _, _, _, err := a.Sessions(t.Context(), Query{Limit: 1, Filter: Filter{Node: "z"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a node: %v, want ErrNotFound", err)
	}
	b.failure = broker.ErrUnavailable
	if _, _, err := a.Join(t.Context(), Placing{User: "u", Rooms: []message.Room{"r"}}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("without a bus: %v", err)
	}
}

func TestCountsAddUpOverNodes(t *testing.T) {
	nodes := []*node{{name: "a", sessions: make([]Session, 2)}, {name: "b", sessions: make([]Session, 3)}}
	b, a := connect(t, nodes...)
	p := Placing{User: "u", Rooms: []message.Room{"r", "s"}}
	for name, ask := range map[string]func() (int, []string, error){
		"Join":   func() (int, []string, error) { return a.Join(t.Context(), p) },
		"Leave":  func() (int, []string, error) { return a.Leave(t.Context(), p) },
		"Revoke": func() (int, []string, error) { return a.Revoke(t.Context(), broker.Revocation{User: "u"}) },
	} {
		if n, unreached, err := ask(); n != 5 || len(unreached) != 0 || err != nil {
			t.Errorf("%s = %d, %q, %v, want 5", name, n, unreached, err)
		}
	}
	for _, n := range nodes {
		if diff := gocmp.Diff([]Placing{p, p}, n.placed); diff != "" {
			t.Errorf("%s was asked (-want +got):\n%s", n.name, diff)
		}
	}
	if err := a.Unrevoke(t.Context(), broker.Revocation{User: "u", Before: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff([]broker.Revocation{{User: "u"}, {User: "u"}}, b.revoked); diff != "" {
		t.Errorf("told to the bus (-want +got):\n%s", diff)
	}
}

func TestTrimClosesTheOldestWhoeverAsks(t *testing.T) {
	mine := func(id string, connected int64) Session { return Session{ID: id, User: "u", Connected: connected} }
	nodes := []*node{
		{name: "a", part: 2, sessions: []Session{mine("1", 50), mine("3", 10), mine("5", 20), {ID: "7", User: "other", Connected: 1}}},
		{name: "b", sessions: []Session{mine("2", 20), mine("4", 40)}},
	}
	_, a := connect(t, nodes...)
	for range 2 { // the second time there is nothing to do
		if err := a.Trim(t.Context(), "u", 3, 4503, "replaced"); err != nil {
			t.Fatal(err)
		}
		if got, _ := pages(t, a, Query{Limit: 10}); !slices.Equal(got, []string{"1", "4", "5", "7"}) {
			t.Errorf("left: %q, want the three newest and the other user's", got)
		}
	}
	if err := a.Trim(t.Context(), "nobody", 1, 4503, ""); err != nil {
		t.Error(err)
	}
}

func TestQuestionsOutOfBoundsAreNotActedUpon(t *testing.T) {
	n := &node{name: "a", sessions: []Session{{ID: "1", User: "u"}}}
	serve := Serve(n, slog.New(slog.DiscardHandler))
	for _, r := range []broker.Request{
		{Kind: kindDisconnect, Body: []byte(`{"user":"u","code":1000}`)},
		{Kind: kindDisconnect, Body: []byte(`{"user":"u","code":5000}`)},
		{Kind: kindDisconnect, Body: []byte(`{"code":4003}`)},
		{Kind: kindDisconnect, Body: []byte(`{"user":"u","sessions":["1"],"code":4003}`)},
		{Kind: kindDisconnect, Body: []byte(`{"user":"u","code":4003,"code":4003}`)},
		{Kind: kindDisconnect, Body: fmt.Appendf(nil, `{"user":"u","code":4003,"reason":"%0124d"}`, 1)},
		{Kind: kindDisconnect, Body: []byte(`{"user":"u","code":4003`)},
		{Kind: "disconnect/2", Body: []byte(`{"user":"u","code":4003}`)},
		{Kind: kindJoin, Body: []byte(`{"user":"u","rooms":["@global"]}`)},
		{Kind: kindJoin, Body: []byte(`{"user":"u","rooms":[]}`)},
		{Kind: kindJoin, Body: []byte(`{"rooms":["r"]}`)},
		{Kind: kindSessions, Body: []byte(`{"limit":0}`)},
		{Kind: kindSessions, Body: []byte(`{"limit":1001}`)},
		{Kind: kindInfo},
		{},
	} {
		if reply := serve(t.Context(), r); len(reply.Body) != 0 {
			t.Errorf("%s %s is answered: %s", r.Kind, r.Body, reply.Body)
		}
	}
	if len(n.sessions) != 1 || len(n.placed) != 0 {
		t.Error("something was done")
	}
}

func FuzzServe(f *testing.F) {
	for _, kind := range []string{kindSessions, kindDisconnect, kindJoin, kindLeave, kindRevoked, kindInfo, kindRooms} {
		f.Add(kind, []byte(`{"user":"u","rooms":["r"],"limit":3,"code":4003,"users":["u"]}`))
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		n := &node{name: "a", sessions: []Session{{ID: "1", User: "u"}}}
		Serve(n, slog.New(slog.DiscardHandler))(t.Context(), broker.Request{Kind: kind, Body: body})
		for _, p := range n.placed {
			for _, r := range p.Rooms {
				if _, err := message.ParseRoom(string(r)); err != nil {
					t.Errorf("placed into %q", r)
				}
			}
		}
	})
}
