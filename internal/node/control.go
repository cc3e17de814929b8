package node

import (
	"cmp"
	"context"
	"slices"

	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/message"
)

// answers is what the node answers of the sessions of all its edges.
type answers struct{ n *Node }

var _ control.Node = answers{}

// Control asks all nodes about their sessions.
func (n *Node) Control() *control.Asker { return n.control }

// Sessions implements control.Node.
func (a answers) Sessions(ctx context.Context, q control.Query) (list []control.Session, more bool, err error) {
	if q.Node != "" && q.Node != a.n.name {
		return nil, false, nil
	}
	end := "" // behind it there may be others of an edge that has not told all
	for _, e := range a.n.edges.list() {
		part, cut, err := e.Sessions(ctx, q)
		if err != nil {
			return nil, false, err
		}
		if cut && (end == "" || part[len(part)-1].ID < end) {
			end = part[len(part)-1].ID
		}
		list = append(list, part...)
	}
	slices.SortFunc(list, func(a, b control.Session) int { return cmp.Compare(a.ID, b.ID) })
	whole := len(list)
	if end != "" {
		whole = slices.IndexFunc(list, func(s control.Session) bool { return s.ID == end }) + 1
	}
	whole = min(whole, q.Limit)
	return list[:whole], end != "" || whole < len(list), nil
}

// Disconnect implements control.Node.
func (a answers) Disconnect(d control.Disconnect) (sum control.Disconnected) {
	for _, e := range a.n.edges.list() {
		done := e.Disconnect(d)
		sum.Found += done.Found
		sum.Closed += done.Closed
	}
	return sum
}

// Join implements control.Node.
func (a answers) Join(ctx context.Context, p control.Placing) (sessions int) {
	for _, e := range a.n.edges.list() {
		sessions += e.Join(ctx, p)
	}
	return sessions
}

// Leave implements control.Node.
func (a answers) Leave(p control.Placing) (sessions int) {
	for _, e := range a.n.edges.list() {
		sessions += e.Leave(p)
	}
	return sessions
}

// Revoked implements control.Node.
func (a answers) Revoked(ctx context.Context) (ended int, err error) {
	return a.n.revocations.read(ctx)
}

// Info implements control.Node.
func (a answers) Info() control.Info {
	n := a.n
	sum, most := n.edges.stats()
	i := control.Info{
		Node: n.name, Host: n.cfg.Host, Version: n.cfg.Version, Started: n.started.UnixMilli(), State: control.Serving,
		Sessions: int(sum.Sessions), MaxSessions: most, Rooms: n.hub.Stats().Rooms,
	}
	switch {
	case n.edges.isDraining():
		i.State = control.Draining
	case n.hub.Away(message.Global):
		i.State = control.Degraded
	}
	return i
}

// RoomsOf implements control.Node.
func (a answers) RoomsOf(users []string) [][]message.Room { return a.n.presence.RoomsOf(users) }

// trim closes a user's oldest sessions until most are left.
func (n *Node) trim(ctx context.Context, user string, most int) error {
	return n.control.Trim(ctx, user, most, int(edge.CloseReplaced), "")
}

func (es *edges) list() []*edge.Edge {
	es.mu.Lock()
	defer es.mu.Unlock()
	return es.all
}

func (es *edges) isDraining() bool {
	es.mu.Lock()
	defer es.mu.Unlock()
	return es.draining
}

func (es *edges) endRevoked() (ended int) {
	for _, e := range es.list() {
		ended += e.EndRevoked()
	}
	return ended
}
