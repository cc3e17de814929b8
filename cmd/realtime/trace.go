package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// trace tells what became of a message.
type trace struct {
	dial
	Room string `arg:"" help:"The message's room."`
	ID   string `arg:"" name:"id" help:"Its id, as a receipt, ack or frame told it."`
}

func (*trace) Help() string {
	return `Tells whether the room still keeps the message, which node published it, and how far the sessions in the room are: passed
means that it, or a message behind it, was handed to the session's socket. A session that came later has passed it too. With
--json first the message, if it is kept, then the sessions.

Example:
  realtime trace general 01a2b3c4-0000-7000-8000-000000000000`
}

// idParts are the halves of an id: the place in its room, and what tells it from other messages.
func idParts(id string) (place, identity string, node uint64, err error) {
	if len(id) == len(beginning) {
		if node, err = strconv.ParseUint(id[24:28], 16, 16); err == nil {
			return id[:18], id[19:], node, nil
		}
	}
	return "", "", 0, errors.New("the id is none: an id is a UUID, as a receipt, ack or frame tells it")
}

// Validate names what is wrong with the id.
func (t *trace) Validate() error {
	_, _, _, err := idParts(t.ID)
	return err
}

func (t *trace) Run(e *env) error {
	t.ID = strings.ToLower(t.ID)
	place, identity, node, err := idParts(t.ID)
	if err != nil {
		return err
	}
	return t.call(e, "trace", func(conn *grpc.ClientConn) error {
		kept, err := t.find(e, realtimev1.NewPublisherServiceClient(conn), place, identity)
		if err != nil {
			return err
		}
		rows := t.table(e, "SESSION", "USER", "NODE", "PASSED", "LAG", "BLOCKED SINCE")
		if !t.JSON {
			state := "no longer kept, or never published in this room"
			if kept != nil {
				state = "kept, published " + stamp(kept.GetTimestamp()) + " by " + word(kept.GetFrom())
			}
			if _, err := fmt.Fprintf(e.out, "message  %s\nnode     %s\nhistory  %s\n\n", t.ID, strconv.FormatUint(node, 36), state); err != nil {
				return err
			}
		} else if kept != nil {
			if err := printJSON(e.out, kept); err != nil {
				return err
			}
		}
		req := &realtimev1.ListSessionsRequest{PageSize: maxPage, Filter: &realtimev1.ListSessionsRequest_Room{Room: t.Room}}
		err = eachSession(e, realtimev1.NewControlServiceClient(conn), req, func(s *realtimev1.Session) {
			for _, r := range s.GetRooms() {
				if r.GetRoom() == t.Room {
					passed := "no"
					if len(r.GetPositionId()) >= len(place) && r.GetPositionId()[:len(place)] >= place {
						passed = "yes"
					}
					rows.row(s, word(s.GetSessionId()), word(s.GetUserId()), word(s.GetNodeId()), passed, fmt.Sprint(r.GetLag()), stamp(s.GetBlockedSince()))
				}
			}
		})
		return errors.Join(err, rows.end())
	})
}

// find reads the message; nil: it is not kept. What lies before the last id there could be at its place begins with it.
func (t *trace) find(e *env, calls realtimev1.PublisherServiceClient, place, identity string) (*realtimev1.Message, error) {
	page, err := calls.GetHistory(e.ctx, &realtimev1.GetHistoryRequest{
		Room: t.Room, PageSize: 1, Start: &realtimev1.GetHistoryRequest_BeforeId{BeforeId: place + "-bfff-ffffffffffff"},
	})
	if err != nil {
		return nil, err
	}
	for _, m := range page.GetMessages() {
		if len(m.GetId()) == len(t.ID) && m.GetId()[19:] == identity {
			return m, nil
		}
	}
	return nil, nil
}
