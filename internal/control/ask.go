package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// Errors of questions and answers.
var (
	// ErrNotFound: no node knows the session or node that was named, and all have answered.
	ErrNotFound = errors.New("no such session or node")

	errKind = errors.New("a kind of question that this node does not know")
	errForm = errors.New("the question is malformed")
)

// Asker asks all nodes. Its methods may be called concurrently. unreached names nodes that did not answer in time: what they
// hold is missing from the answer, what they were to do may not be done.
type Asker struct {
	bus  Bus
	self func() Info
}

// NewAsker makes an Asker; self describes this node.
func NewAsker(bus Bus, self func() Info) *Asker { return &Asker{bus, self} }

// Self describes this node.
func (a *Asker) Self() Info { return a.self() }

// answer is one node's.
type answer[A any] struct {
	node string
	said A
}

// ask puts one question to all nodes.
func ask[A any](ctx context.Context, bus Bus, kind string, q question) (answers []answer[A], unreached []string, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	replies, unreached, err := bus.Ask(ctx, broker.Request{Kind: kind, Body: body})
	if err != nil {
		return nil, nil, fmt.Errorf("ask %s: %w", kind, err)
	}
	for _, r := range replies {
		one := answer[A]{node: r.Node}
		if json.Unmarshal(r.Body, &one.said) != nil { // also one that knows nothing of the kind
			unreached = append(unreached, r.Node)
			continue
		}
		answers = append(answers, one)
	}
	slices.Sort(unreached)
	slices.SortFunc(answers, func(a, b answer[A]) int { return cmp.Compare(a.node, b.node) })
	return answers, unreached, nil
}

// Sessions returns a page of sessions by id, at most q.Limit; next is q.After of the one behind it, "" at the end. ErrNotFound
// if the filter names a node that there is not.
func (a *Asker) Sessions(ctx context.Context, q Query) (sessions []Session, next string, unreached []string, err error) {
	answers, unreached, err := ask[sessionsPage](ctx, a.bus, kindSessions, q)
	if err != nil {
		return nil, "", nil, err
	}
	if q.Node != "" {
		known := slices.ContainsFunc(answers, func(o answer[sessionsPage]) bool { return o.node == q.Node })
		unreached = slices.DeleteFunc(unreached, func(n string) bool { return n != q.Node })
		if !known && len(unreached) == 0 {
			return nil, "", nil, fmt.Errorf("node: %w", ErrNotFound)
		}
	}
	// Behind the last session of a node that has more there may be others of it: the page ends there.
	end := ""
	for _, o := range answers {
		for i := range o.said.Sessions {
			o.said.Sessions[i].Node = o.node
		}
		sessions = append(sessions, o.said.Sessions...)
		if n := len(o.said.Sessions); o.said.More && n > 0 && (end == "" || o.said.Sessions[n-1].ID < end) {
			end = o.said.Sessions[n-1].ID
		}
	}
	slices.SortFunc(sessions, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
	whole := len(sessions)
	if end != "" {
		whole, _ = slices.BinarySearchFunc(sessions, end+"\x00", func(s Session, id string) int { return cmp.Compare(s.ID, id) })
	}
	whole = min(whole, q.Limit)
	if whole > 0 && (whole < len(sessions) || end != "") {
		next = sessions[whole-1].ID
	}
	return sessions[:whole], next, unreached, nil
}

// Disconnect closes sessions. ErrNotFound if it names sessions of which no node has any.
func (a *Asker) Disconnect(ctx context.Context, d Disconnect) (closed int, unreached []string, err error) {
	answers, unreached, err := ask[Disconnected](ctx, a.bus, kindDisconnect, d)
	if err != nil {
		return 0, nil, err
	}
	found := 0
	for _, o := range answers {
		found += o.said.Found
		closed += o.said.Closed
	}
	if found == 0 && len(d.Sessions) > 0 && len(unreached) == 0 {
		return 0, nil, fmt.Errorf("session: %w", ErrNotFound)
	}
	return closed, unreached, nil
}

// Join puts a user's sessions into rooms and returns how many are in all of them.
func (a *Asker) Join(ctx context.Context, p Placing) (sessions int, unreached []string, err error) {
	return a.count(ctx, kindJoin, p)
}

// Leave takes a user's sessions out of rooms and returns how many there are.
func (a *Asker) Leave(ctx context.Context, p Placing) (sessions int, unreached []string, err error) {
	return a.count(ctx, kindLeave, p)
}

func (a *Asker) count(ctx context.Context, kind string, q question) (sum int, unreached []string, err error) {
	answers, unreached, err := ask[tally](ctx, a.bus, kind, q)
	for _, o := range answers {
		sum += o.said.Count
	}
	return sum, unreached, err
}

// Revoke adds a revocation and returns how many sessions it has ended by now. Nodes that are not reached learn of it by
// themselves. An error behind the first step says that nodes were not told, and they too learn of it by themselves.
func (a *Asker) Revoke(ctx context.Context, r broker.Revocation) (ended int, unreached []string, err error) {
	if err := a.bus.Revoke(ctx, r); err != nil {
		return 0, nil, fmt.Errorf("revoke: %w", err)
	}
	return a.count(ctx, kindRevoked, nothing{})
}

// Unrevoke takes a revocation back; one that is not there is none.
func (a *Asker) Unrevoke(ctx context.Context, r broker.Revocation) error {
	if err := a.bus.Revoke(ctx, broker.Revocation{User: r.User, TokenID: r.TokenID, All: r.All}); err != nil {
		return fmt.Errorf("unrevoke: %w", err)
	}
	_, _, err := a.count(ctx, kindRevoked, nothing{})
	return err
}

// Revocations returns those in force: of everyone, of users, of tokens, each by name.
func (a *Asker) Revocations(ctx context.Context) ([]broker.Revocation, error) {
	list, _, err := a.bus.Revocations(ctx)
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	slices.SortFunc(list, func(a, b broker.Revocation) int {
		return cmp.Or(cmp.Compare(a.TokenID, b.TokenID), cmp.Compare(a.User, b.User))
	})
	return list, nil
}

// Nodes returns the nodes that are alive, by name. One that did not answer has no State.
func (a *Asker) Nodes(ctx context.Context) ([]Info, error) {
	answers, unreached, err := ask[Info](ctx, a.bus, kindInfo, nothing{})
	if err != nil {
		return nil, err
	}
	var nodes []Info
	for _, o := range answers {
		o.said.Node = o.node
		nodes = append(nodes, o.said)
	}
	for _, n := range unreached {
		nodes = append(nodes, Info{Node: n})
	}
	slices.SortFunc(nodes, func(a, b Info) int { return cmp.Compare(a.Node, b.Node) })
	return nodes, nil
}

// RoomsOf returns the rooms that each user is in on any node, by name.
func (a *Asker) RoomsOf(ctx context.Context, users []string) (rooms [][]message.Room, unreached []string, err error) {
	answers, unreached, err := ask[roomsOf](ctx, a.bus, kindRooms, usersOf{users})
	if err != nil {
		return nil, nil, err
	}
	rooms = make([][]message.Room, len(users))
	for _, o := range answers {
		for i := range min(len(users), len(o.said.Rooms)) {
			rooms[i] = append(rooms[i], o.said.Rooms[i]...)
		}
	}
	for i := range rooms {
		slices.Sort(rooms[i])
		rooms[i] = slices.Compact(rooms[i])
	}
	return rooms, unreached, nil
}

// Trim closes a user's oldest sessions until most are left. Which are the oldest does not depend on who asks: two that trim
// at once close the same ones.
func (a *Asker) Trim(ctx context.Context, user string, most, code int, reason string) error {
	var all []Session
	for q := (Query{Filter: Filter{User: user}, Limit: MaxPage, Brief: true}); ; {
		page, next, _, err := a.Sessions(ctx, q)
		if err != nil {
			return err
		}
		all = append(all, page...)
		if q.After = next; next == "" {
			break
		}
	}
	if len(all) <= most {
		return nil
	}
	slices.SortFunc(all, func(a, b Session) int { return cmp.Or(cmp.Compare(a.Connected, b.Connected), cmp.Compare(a.ID, b.ID)) })
	d := Disconnect{Code: code, Reason: reason}
	for _, s := range all[:len(all)-most] {
		d.Sessions = append(d.Sessions, s.ID)
	}
	if _, _, err := a.Disconnect(ctx, d); !errors.Is(err, ErrNotFound) { // they have gone by themselves
		return err
	}
	return nil
}
