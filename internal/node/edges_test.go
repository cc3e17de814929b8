package node

import (
	"context"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/frame"
)

func TestEdgesOfOneNodeShareItsRooms(t *testing.T) {
	n := compose(t)
	before := open(t, n, edge.Config{Path: "/before"})
	r := start(t, n)
	r.ready()
	during := open(t, n, edge.Config{Path: "/during"})
	conns := []*websocket.Conn{r.dial("general"), dial(t, before+"/before/general"), dial(t, during+"/during/general")}
	for _, conn := range conns {
		find(t, conn, `"subscribed"`)
	}
	if err := conns[2].Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":{"n":1}}`)); err != nil {
		t.Fatal(err)
	}
	for _, conn := range conns {
		find(t, conn, `{"n":1}`)
	}
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	for _, conn := range conns {
		closed(t, conn)
	}
}

func TestEachEdgeHasItsOwnLimitAndStatsAddThemUp(t *testing.T) {
	n := compose(t)
	one := open(t, n, edge.Config{MaxSessions: 1})
	r := start(t, n)
	r.ready()
	two := open(t, n, edge.Config{MaxSessions: 2})
	for _, url := range []string{one, two, two} {
		find(t, dial(t, url+"/ws/a"), `"subscribed"`)
	}
	refused(t, one+"/ws/a")
	refused(t, two+"/ws/a")
	if st := r.Stats(); st.Sessions != 3 || st.MaxSessions != 3 {
		t.Errorf("%+v, want 3 sessions of at most 3", st)
	}
	st, _ := r.edges.stats()
	if st.Accepted != 3 || st.Refused[frame.CodeAtCapacity] != 2 {
		t.Errorf("%d accepted, %d refused, want 3 and 2", st.Accepted, st.Refused[frame.CodeAtCapacity])
	}
}

func TestAnEdgeOutsideOfRunLetsNobodyIn(t *testing.T) {
	n := compose(t)
	r := start(t, n)
	r.ready()
	conn := r.dial("a")
	find(t, conn, `"subscribed"`)
	n.cfg.DrainWindow = 1
	drained := make(chan struct{})
	go func() { defer close(drained); n.Drain(t.Context()) }()
	if code := closed(t, conn); code != websocket.StatusServiceRestart {
		t.Errorf("closed with %d, want 1012", code)
	}
	refused(t, open(t, n, edge.Config{})+"/ws/a")
	<-drained
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	refused(t, open(t, n, edge.Config{})+"/ws/a")
}

func TestANodeWithoutEdgesGetsReadyAndEnds(t *testing.T) {
	n := compose(t)
	r := &running{Node: n, t: t, ended: make(chan error, 1)}
	r.run()
	r.ready()
	if _, err := r.publish("general", `1`); err != nil {
		t.Error(err)
	}
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestEdgesThatComeWhileTheNodeStartsAndEndsAreNoRace(t *testing.T) {
	n := compose(t)
	r := &running{Node: n, t: t, ended: make(chan error, 1)}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := n.NewEdge(edge.Config{Anonymous: true}, quiet(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	r.run()
	r.ready()
	r.end()
	wg.Wait()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestAnEdgeLetsNobodyInBeforeItHasItsKeysAndHoldsUpNoOther(t *testing.T) {
	n := compose(t)
	r := start(t, n)
	r.ready()
	asked, answered, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	urls := make(chan string, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		urls <- open(t, n, edge.Config{Refresh: func(ctx context.Context, tried func()) {
			close(asked)
			<-answered
			tried()
			<-ctx.Done()
			close(ended)
		}})
	})
	<-asked
	find(t, r.dial("a"), `"subscribed"`) // the one that was there
	if st := n.Stats(); st.Sessions != 1 {
		t.Errorf("%+v", st)
	}
	find(t, dial(t, open(t, n, edge.Config{})+"/ws/a"), `"subscribed"`)
	select {
	case <-urls:
		t.Error("it is said to let sessions in")
	default:
	}
	close(answered)
	find(t, dial(t, <-urls+"/ws/a"), `"subscribed"`)
	wg.Wait()
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	default:
		t.Error("its keys are kept when the node has ended")
	}
}

func TestANodeThatEndsDoesNotWaitForKeys(t *testing.T) {
	n := compose(t)
	open(t, n, edge.Config{Refresh: func(ctx context.Context, tried func()) { <-ctx.Done(); tried() }})
	r := &running{Node: n, t: t, ended: make(chan error, 1)}
	r.run()
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}
