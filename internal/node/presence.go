package node

import (
	"context"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// announce tells a room's members who has come, changed or gone.
func (n *Node) announce(room message.Room, u presence.Update) {
	n.hub.Announce(&message.Message{Room: room, Type: message.TypePresence, Data: render(u), Timestamp: time.Now().UnixMilli(), Ephemeral: true})
}

func render(u presence.Update) []byte {
	switch {
	case len(u.Changes) > 0:
		changes := make([]frame.PresenceChange, len(u.Changes))
		for i, c := range u.Changes {
			changes[i] = frame.PresenceChange{UserID: c.User, Status: c.Status.String(), Since: c.Since, Info: c.Info}
		}
		return frame.AppendPresence(nil, changes)
	case u.Mode == presence.Counts:
		return frame.AppendCounts(nil, u.Totals.Users(), u.Totals.Sessions)
	}
	return frame.AppendEvents(nil)
}

// elsewhere tells of users whether they have sessions now, on whatever node.
func (n *Node) elsewhere(ctx context.Context, users []string) ([]bool, error) {
	found, _, err := n.presence.Users(ctx, users)
	there := make([]bool, len(found))
	for i := range found {
		there[i] = found[i].Sessions > 0
	}
	return there, err
}

// count is what a new member is told.
func (n *Node) count(room message.Room) (users, sessions int, many bool) {
	users, sessions = n.presence.Count(room)
	return users, sessions, n.presence.Mode(room) == presence.Counts
}
