package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/message"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// maxPageBytes stays below the 4 MiB that gRPC's callers take unless told otherwise.
	maxPageBytes = 3 << 20
	// fieldBytes is what a message takes in a page beside its own bytes: its tag and length.
	fieldBytes = 5
)

// GetHistory reads a page of what a room keeps. Exclusions are for sessions: a backend sees all.
func (s *publisher) GetHistory(ctx context.Context, req *realtimev1.GetHistoryRequest) (*realtimev1.GetHistoryResponse, error) {
	room, err := anyRoom(req.GetRoom())
	if err != nil {
		return nil, err
	}
	q, anchor, err := historyQuery(room, req)
	if err != nil {
		return nil, err
	}
	page, err := s.broker.History(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	resp := &realtimev1.GetHistoryResponse{Truncated: !q.Backward && q.From != 0 && page.Truncated(q.From)}
	var next message.Position
	resp.Messages, next = cut(page, q, anchor)
	if next != 0 {
		resp.NextPageToken = pageToken(req, next)
	}
	if resp.OldestId, resp.LatestId, err = s.ends(ctx, page, q); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return resp, nil
}

// DeleteHistory deletes what a room keeps.
func (s *publisher) DeleteHistory(ctx context.Context, req *realtimev1.DeleteHistoryRequest) (*realtimev1.DeleteHistoryResponse, error) {
	room, err := anyRoom(req.GetRoom())
	if err != nil {
		return nil, err
	}
	if err := s.broker.Delete(ctx, room); err != nil {
		return nil, fmt.Errorf("delete history: %w", err)
	}
	return &realtimev1.DeleteHistoryResponse{}, nil
}

// anyRoom accepts the room of everyone and users' rooms as well.
func anyRoom(name string) (message.Room, error) {
	room := message.Room(name)
	if room == message.Global {
		return room, nil
	}
	if user, ok := room.User(); ok {
		if message.CheckUser(user) == nil {
			return room, nil
		}
		return "", &message.Error{Err: message.ErrInvalidRoom, Field: "room", Text: fmt.Sprintf("@user/ is followed by a user id: 1 to %d bytes of printable UTF-8", message.MaxUserBytes), Limit: message.MaxUserBytes, Size: len(user)}
	}
	return message.ParseRoom(name)
}

// historyQuery reads what is asked for. What lies right before an id includes the message at its position, unless that is the
// message of the id itself (anchor): an id that was not stored bears the position of the message in front of it.
func historyQuery(room message.Room, req *realtimev1.GetHistoryRequest) (q message.Query, anchor message.ID, err error) {
	size := int(req.GetPageSize())
	if size < 0 {
		return q, anchor, &message.Error{Err: message.ErrInvalid, Field: "page_size", Text: fmt.Sprintf("page_size is 1 to %d, or 0 for %d", maxPage, defaultPage), Limit: maxPage}
	}
	if size == 0 {
		size = defaultPage
	}
	q = message.Query{Room: room, Backward: true, Limit: min(size, maxPage), Bytes: maxPageBytes}
	var at message.ID
	var ok bool
	switch start := req.GetStart().(type) {
	case *realtimev1.GetHistoryRequest_AfterId:
		if at, ok = message.ParseID(start.AfterId); !ok {
			return q, anchor, unreadable("after_id", "after_id is not the id of a message")
		}
		q.From, q.Backward = at.Position, false
	case *realtimev1.GetHistoryRequest_BeforeId:
		if at, ok = message.ParseID(start.BeforeId); !ok {
			return q, anchor, unreadable("before_id", "before_id is not the id of a message")
		}
		q.From = at.Position.Next()
	}
	if req.GetPageToken() != "" {
		if q.From, ok = readToken(req); !ok {
			return q, anchor, unreadable("page_token", "page_token is not the next_page_token of a page of the same room and start")
		}
	} else if req.GetBeforeId() != "" {
		anchor = at
		q.Limit++
	}
	return q, anchor, nil
}

func unreadable(field, text string) error {
	return &message.Error{Err: errPosition, Field: field, Text: text}
}

// cut makes a page of what was read, at most as large as a page may be, beginning where the query began. next is where the
// next one goes on; 0: there is none.
func cut(p message.Page, q message.Query, anchor message.ID) (kept []*realtimev1.Message, next message.Position) {
	es, limit := p.Entries, q.Limit
	if !anchor.IsZero() {
		limit--
		if n := len(es); n > 0 && es[n-1].Message.ID == anchor {
			es = es[:n-1]
		}
	}
	kept = make([]*realtimev1.Message, 0, min(len(es), limit))
	size := 0
	for len(kept) < min(len(es), limit) {
		e := es[len(kept)]
		if q.Backward {
			e = es[len(es)-1-len(kept)]
		}
		m := messageOf(e)
		if size += proto.Size(m) + fieldBytes; len(kept) > 0 && size > maxPageBytes {
			break
		}
		kept, next = append(kept, m), e.Message.ID.Position
	}
	if !p.More && len(kept) == len(es) {
		next = 0
	} else if len(kept) == 0 {
		next = anchor.Position // it filled the page alone
	}
	if q.Backward {
		slices.Reverse(kept)
	}
	return kept, next
}

// ends are the ids of the oldest and the newest message kept, read only if the page does not show them.
func (s *publisher) ends(ctx context.Context, p message.Page, q message.Query) (oldest, newest string, err error) {
	at := func(shown bool, place int, backward bool) (string, error) {
		if !shown {
			p, err := s.broker.History(ctx, message.Query{Room: q.Room, Backward: backward, Limit: 1})
			if err != nil || len(p.Entries) == 0 {
				return "", err
			}
			return p.Entries[0].Message.ID.String(), nil
		}
		return p.Entries[place].Message.ID.String(), nil
	}
	some := len(p.Entries) > 0
	if !some && (q.From == 0 || p.Tip == 0) {
		return "", "", nil
	}
	if oldest, err = at(some && q.Backward && !p.More, 0, false); err != nil {
		return "", "", err
	}
	newest, err = at(some && (q.Backward && q.From == 0 || !q.Backward && !p.More), len(p.Entries)-1, true)
	return oldest, newest, err
}

// messageOf is a kept message as backends read it.
func messageOf(e message.Entry) *realtimev1.Message {
	m := e.Message
	return &realtimev1.Message{
		Id: m.ID.String(), Room: string(m.Room), Type: string(m.Type), From: m.From, Data: string(m.Data), Timestamp: timestamppb.New(m.Time()),
		Degraded: e.Flags&message.Degraded != 0,
	}
}

// A page token is a position and a check, which binds it to the room and the start it was given for. It is no secret: it
// guards against mistakes.
const checkBytes = 8

func pageToken(req *realtimev1.GetHistoryRequest, next message.Position) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(next))
	// None of the parts before the position may contain a line break.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s", req.GetRoom(), req.GetAfterId(), req.GetBeforeId(), b))
	return base64.RawURLEncoding.EncodeToString(append(b, sum[:checkBytes]...))
}

func readToken(req *realtimev1.GetHistoryRequest) (next message.Position, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || len(b) != 8+checkBytes {
		return 0, false
	}
	next = message.Position(binary.BigEndian.Uint64(b))
	return next, pageToken(req, next) == req.GetPageToken()
}
