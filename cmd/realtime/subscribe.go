package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// subscribe follows rooms.
type subscribe struct {
	dial
	Rooms []string          `arg:"" help:"Rooms to follow; @global: what goes to everyone."`
	From  string            `placeholder:"ID" xor:"start" env:"-" help:"Begin behind this message instead of now."`
	After map[string]string `placeholder:"ROOM=ID" xor:"start" mapsep:"none" env:"-" help:"Begin behind this message in this room. Repeatable."`
	Count int               `placeholder:"N" env:"-" help:"End after so many messages."`

	seen int
}

func (*subscribe) Help() string {
	return `Prints a line for each message: time, room, type, sender, data. Where something is missing, and where a room is live, is
told on standard error. A connection that breaks is made again, from the last message on. Ends with Ctrl-C.

Examples:
  realtime subscribe general orders
  realtime subscribe --json --count 1 orders`
}

// Validate names what cannot be meant.
func (s *subscribe) Validate() error {
	var errs []error
	for room := range s.After {
		if !slices.Contains(s.Rooms, room) {
			errs = append(errs, fmt.Errorf("--after: %s is none of the rooms to follow (%s)", word(room), strings.Join(s.Rooms, " ")))
		}
	}
	if s.Count < 0 {
		errs = append(errs, errors.New("--count must not be below 0"))
	}
	return errors.Join(errs...)
}

// errEnough ends a stream that has brought what was asked for.
var errEnough = errors.New("enough")

func (s *subscribe) Run(e *env) error {
	conn, err := s.connect(e.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	starts := make([]*realtimev1.RoomStart, len(s.Rooms))
	places := make(map[string]*realtimev1.RoomStart, len(s.Rooms))
	for i, room := range s.Rooms {
		starts[i] = &realtimev1.RoomStart{Room: room, AfterId: s.From + s.After[room]} // one of them at most
		places[room] = starts[i]
	}
	open := func(ctx context.Context) (received[realtimev1.SubscribeResponse], error) {
		conn.ResetConnectBackoff() // there is one wait already
		return realtimev1.NewSubscriberServiceClient(conn).Subscribe(ctx, &realtimev1.SubscribeRequest{Rooms: starts, Keepalive: keepaliveRequest()})
	}
	err = tail(&s.dial, e, "subscribe", open, func(r *realtimev1.SubscribeResponse) error { return s.take(e, places, r) })
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// take prints an event and moves the room's place, from where the next call would go on.
func (s *subscribe) take(e *env, places map[string]*realtimev1.RoomStart, r *realtimev1.SubscribeResponse) error {
	if _, idle := r.GetEvent().(*realtimev1.SubscribeResponse_Keepalive); s.JSON && !idle {
		if err := printJSON(e.out, r); err != nil {
			return err
		}
	}
	room, at := "", ""
	switch event := r.GetEvent().(type) {
	case *realtimev1.SubscribeResponse_Message:
		room, at = event.Message.GetRoom(), event.Message.GetId()
		if !s.JSON {
			if err := printMessage(e.out, event.Message); err != nil {
				return err
			}
		}
		s.seen++
	case *realtimev1.SubscribeResponse_Gap:
		if g := event.Gap; !s.JSON {
			fmt.Fprintf(e.err, "gap in %s: %s, after %s, before %s\n", word(g.GetRoom()), label("GAP_REASON_", g.GetReason()), word(g.GetAfterId()), word(g.GetBeforeId()))
		}
	case *realtimev1.SubscribeResponse_Subscribed:
		room, at = event.Subscribed.GetRoom(), event.Subscribed.GetLatestId()
		if !s.JSON {
			fmt.Fprintf(e.err, "subscribed to %s at %s\n", word(room), word(at))
		}
	}
	if place := places[room]; place != nil && at != "" {
		place.AfterId = at
	}
	if s.Count > 0 && s.seen >= s.Count {
		return errEnough
	}
	return nil
}
