package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

const (
	defaultUsers = 500
	maxUsers     = 5000             // of a page
	maxRooms     = 1000             // of a call, and of a page
	maxAsked     = 1000             // users of GetUsers
	maxWithRooms = control.MaxUsers // of these, if their rooms are asked for
	// encodedPages is how many pages of users are kept encoded: the busy ones. At most 300 KiB each in ordinary use.
	encodedPages = 64
	// latestAtOnce is how many rooms of a listing are asked for their newest message at once.
	latestAtOnce = 8
)

// presences answers who is where.
type presences struct {
	realtimev1.UnimplementedPresenceServiceServer
	presence *presence.Presence
	broker   broker.Broker
	ask      *control.Asker
	pages    *lru.Cache[pageKey, encodedPage]
	senders  *sync.WaitGroup // goroutines that send; they end with their streams' handlers, or right behind them
}

type pageKey struct {
	room  message.Room
	after string
	size  int
}

// encodedPage is a page of a roster as it goes over the wire.
type encodedPage struct {
	of *presence.Roster
	b  []byte
}

func newPresences(p Parts, senders *sync.WaitGroup) *presences {
	pages, _ := lru.New[pageKey, encodedPage](encodedPages) // it fails only for a size below 1
	return &presences{presence: p.Presence, broker: p.Broker, ask: p.Control, pages: pages, senders: senders}
}

// GetPresence lists a room's users by id. A page is encoded once for all that ask for it until the room changes: the answer
// then is nothing but fields that the message does not look into.
func (s *presences) GetPresence(ctx context.Context, req *realtimev1.GetPresenceRequest) (*realtimev1.GetPresenceResponse, error) {
	room, err := presenceRoom(req.GetRoom())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize(), defaultUsers, maxUsers)
	if err != nil {
		return nil, err
	}
	after, err := readName(string(room), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	roster, err := s.presence.Room(ctx, room)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	key := pageKey{room, after, size}
	page, ok := s.pages.Get(key)
	if !ok || page.of != roster {
		if page.b, err = proto.Marshal(usersPage(room, roster, after, size)); err != nil {
			return nil, err
		}
		page.of = roster
		s.pages.Add(key, page)
	}
	resp := &realtimev1.GetPresenceResponse{}
	resp.ProtoReflect().SetUnknown(page.b)
	return resp, nil
}

func usersPage(room message.Room, r *presence.Roster, after string, size int) *realtimev1.GetPresenceResponse {
	resp := &realtimev1.GetPresenceResponse{
		UserCount: int64(r.Totals.Users()), SessionCount: int64(r.Sessions), Freshness: freshness(r.Freshness),
	}
	bytes := 0
	for _, u := range r.After(after) {
		m := roomUser(u)
		if bytes += proto.Size(m) + fieldBytes; len(resp.Users) == size || len(resp.Users) > 0 && bytes > maxPageBytes {
			resp.NextPageToken = nameToken(string(room), resp.Users[len(resp.Users)-1].GetUserId())
			break
		}
		resp.Users = append(resp.Users, m)
	}
	return resp
}

// CountPresence tells numbers.
func (s *presences) CountPresence(ctx context.Context, req *realtimev1.CountPresenceRequest) (*realtimev1.CountPresenceResponse, error) {
	if err := count("rooms", len(req.GetRooms()), maxRooms); err != nil {
		return nil, err
	}
	rooms := make([]message.Room, len(req.GetRooms()))
	for i, name := range req.GetRooms() {
		room, err := presenceRoom(name)
		if err != nil {
			return nil, at("rooms", i, err)
		}
		rooms[i] = room
	}
	counts, fresh, err := s.presence.Counts(ctx, rooms)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	resp := &realtimev1.CountPresenceResponse{Freshness: freshness(fresh)}
	for i, c := range counts {
		resp.Counts = append(resp.Counts, &realtimev1.RoomCount{
			Room: string(rooms[i]), OnlineCount: int64(c.Online), AwayCount: int64(c.Away), SessionCount: int64(c.Sessions),
		})
	}
	return resp, nil
}

// GetUsers tells how users are, wherever they are.
func (s *presences) GetUsers(ctx context.Context, req *realtimev1.GetUsersRequest) (*realtimev1.GetUsersResponse, error) {
	limit := maxAsked
	if req.GetIncludeRooms() {
		limit = maxWithRooms
	}
	if err := checkUsers("user_ids", req.GetUserIds(), limit); err != nil {
		return nil, err
	}
	users, fresh, err := s.presence.Users(ctx, req.GetUserIds())
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	rooms := make([][]message.Room, len(users))
	if req.GetIncludeRooms() {
		var unreached []string
		if rooms, unreached, err = s.ask.RoomsOf(ctx, req.GetUserIds()); err != nil {
			return nil, err
		}
		fresh.Approximate = fresh.Approximate || len(unreached) > 0
	}
	resp := &realtimev1.GetUsersResponse{Freshness: freshness(fresh)}
	for i, u := range users {
		m := &realtimev1.UserPresence{UserId: u.ID, Status: statusOf(u.Status), LastSeen: stamp(u.LastSeen), SessionCount: int32(u.Sessions)}
		for _, room := range rooms[i][:min(len(rooms[i]), presence.MaxRooms)] {
			m.Rooms = append(m.Rooms, string(room))
		}
		resp.Users = append(resp.Users, m)
	}
	return resp, nil
}

// ListRooms lists rooms that somebody is in, or that keep messages, by name.
func (s *presences) ListRooms(ctx context.Context, req *realtimev1.ListRoomsRequest) (*realtimev1.ListRoomsResponse, error) {
	size, err := pageSize(req.GetPageSize(), defaultPage, maxRooms)
	if err != nil {
		return nil, err
	}
	if len(req.GetPrefix()) > message.MaxRoomBytes {
		return nil, &message.Error{Err: message.ErrInvalid, Field: "prefix", Limit: message.MaxRoomBytes, Size: len(req.GetPrefix()), Text: fmt.Sprintf("prefix has at most %d bytes, as a room's name has", message.MaxRoomBytes)}
	}
	after, err := readName(req.GetPrefix(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	with, err := s.presence.Rooms(ctx, req.GetPrefix(), message.Room(after), size+1)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	kept, err := s.broker.Rooms(ctx, req.GetPrefix(), message.Room(after), size+1)
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	rooms := append(with, kept...)
	slices.Sort(rooms)
	rooms = slices.Compact(rooms)
	resp := &realtimev1.ListRoomsResponse{}
	if len(rooms) > size {
		rooms = rooms[:size]
		resp.NextPageToken = nameToken(req.GetPrefix(), string(rooms[size-1]))
	}
	counts, fresh, err := s.presence.Counts(ctx, rooms)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	resp.Freshness = freshness(fresh)
	for i, room := range rooms {
		resp.Rooms = append(resp.Rooms, &realtimev1.RoomSummary{Room: string(room), UserCount: int64(counts[i].Users()), SessionCount: int64(counts[i].Sessions)})
	}
	return resp, s.latest(ctx, resp.Rooms)
}

// latest fills in the rooms' newest messages.
func (s *presences) latest(ctx context.Context, rooms []*realtimev1.RoomSummary) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(latestAtOnce)
	for _, r := range rooms {
		g.Go(func() error {
			page, err := s.broker.History(ctx, message.Query{Room: message.Room(r.GetRoom()), Backward: true, Limit: 1})
			if err != nil {
				return fmt.Errorf("history: %w", err)
			}
			if n := len(page.Entries); n > 0 {
				r.LatestId = page.Entries[n-1].Message.ID.String()
			}
			return nil
		})
	}
	return g.Wait()
}

// WatchPresence sends a snapshot and then what changes. A caller who reads slowly holds up nobody: what he missed comes as a
// new snapshot.
func (s *presences) WatchPresence(req *realtimev1.WatchPresenceRequest, stream realtimev1.PresenceService_WatchPresenceServer) error {
	target, err := watched(req)
	if err != nil {
		return err
	}
	quiet, err := keepaliveOf(req.GetKeepalive())
	if err != nil {
		return err
	}
	w := s.presence.Watch(target, req.GetResumeToken())
	// A Send that waits for its reader is let go by gRPC alone, when the handler returns: so the handler is not who sends.
	sent := make(chan error, 1)
	s.senders.Go(func() { sent <- tell(stream, w, req.GetResumeToken(), quiet) })
	select {
	case err := <-sent:
		return err
	case <-stream.Context().Done():
		return context.Cause(stream.Context())
	}
}

// tell sends what a watch brings until the stream or the watch ends, and closes it.
func tell(stream realtimev1.PresenceService_WatchPresenceServer, w *presence.Watch, token string, quiet time.Duration) (err error) {
	defer w.Close()
	defer func() { err = caught(recover(), err) }()
	ctx := stream.Context()
	for {
		events, err := next(ctx, w, quiet)
		if err != nil {
			return err
		}
		if events == nil {
			alive := &realtimev1.WatchPresenceResponse{ResumeToken: token, Event: &realtimev1.WatchPresenceResponse_Keepalive{Keepalive: &realtimev1.Keepalive{}}}
			if err := stream.Send(alive); err != nil {
				return err
			}
		}
		for _, e := range events {
			token = e.Token
			if err := stream.Send(watchEvent(e)); err != nil {
				return err
			}
		}
	}
}

// next waits for events; nil: there were none for so long.
func next(ctx context.Context, w *presence.Watch, quiet time.Duration) ([]presence.Event, error) {
	waiting, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	events, err := w.Next(waiting)
	switch {
	case err == nil:
		return events, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, nil
	}
	return nil, fmt.Errorf("presence: %w", err)
}

func watched(req *realtimev1.WatchPresenceRequest) (t presence.Target, err error) {
	switch target := req.GetTarget().(type) {
	case *realtimev1.WatchPresenceRequest_Rooms:
		names := target.Rooms.GetRooms()
		if err := count("rooms.rooms", len(names), maxRooms); err != nil {
			return t, err
		}
		for i, name := range names {
			room, err := message.ParseRoom(name)
			if err != nil {
				return t, at("rooms.rooms", i, err)
			}
			t.Rooms = append(t.Rooms, room)
		}
		return t, nil
	case *realtimev1.WatchPresenceRequest_Users:
		t.Users = target.Users.GetUserIds()
		return t, checkUsers("users.user_ids", t.Users, maxTargets)
	}
	return t, &message.Error{Err: message.ErrInvalid, Field: "target", Text: "say what to watch: rooms or users"}
}

func watchEvent(e presence.Event) *realtimev1.WatchPresenceResponse {
	resp := &realtimev1.WatchPresenceResponse{ResumeToken: e.Token}
	if e.Kind == presence.Snapshot {
		part := &realtimev1.PresenceSnapshot{Room: string(e.Room), First: e.First, Last: e.Last}
		for _, u := range e.Users {
			part.Users = append(part.Users, roomUser(u))
		}
		resp.Event = &realtimev1.WatchPresenceResponse_Snapshot{Snapshot: part}
		return resp
	}
	kind := realtimev1.PresenceChangeKind_PRESENCE_CHANGE_KIND_CHANGED
	switch e.Kind {
	case presence.Joined:
		kind = realtimev1.PresenceChangeKind_PRESENCE_CHANGE_KIND_JOINED
	case presence.Left:
		kind = realtimev1.PresenceChangeKind_PRESENCE_CHANGE_KIND_LEFT
	}
	resp.Event = &realtimev1.WatchPresenceResponse_Change{Change: &realtimev1.PresenceChange{
		Kind: kind, Room: string(e.Room), User: roomUser(e.Users[0]), Time: stamp(e.Time),
	}}
	return resp
}

func roomUser(u presence.User) *realtimev1.RoomUser {
	return &realtimev1.RoomUser{
		UserId: u.ID, Status: statusOf(u.Status), Since: stamp(u.Since), LastSeen: stamp(u.Active), SessionCount: u.Sessions, Info: string(u.Info),
	}
}

func statusOf(s presence.Status) realtimev1.PresenceStatus {
	switch s {
	case presence.Online:
		return realtimev1.PresenceStatus_PRESENCE_STATUS_ONLINE
	case presence.Away:
		return realtimev1.PresenceStatus_PRESENCE_STATUS_AWAY
	}
	return realtimev1.PresenceStatus_PRESENCE_STATUS_OFFLINE
}

func freshness(f presence.Freshness) *realtimev1.Freshness {
	return &realtimev1.Freshness{Stale: f.Stale, Approximate: f.Approximate}
}

// stamp is nil for no time.
func stamp(ms int64) *timestamppb.Timestamp {
	if ms == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(ms))
}

// presenceRoom accepts an ordinary room, and everyone's.
func presenceRoom(name string) (message.Room, error) {
	if message.Room(name) == message.Global {
		return message.Global, nil
	}
	return message.ParseRoom(name)
}

// checkUsers refuses too many and malformed ids.
func checkUsers(field string, ids []string, limit int) error {
	if err := count(field, len(ids), limit); err != nil {
		return err
	}
	for i, id := range ids {
		if err := message.CheckUser(id); err != nil {
			return at(field, i, err)
		}
	}
	return nil
}

// at names the element of a list that an error is about.
func at(list string, i int, err error) error {
	bad, ok := errors.AsType[*message.Error](err)
	if !ok {
		return err
	}
	named := *bad
	named.Field = fmt.Sprintf("%s[%d]", list, i)
	return &named
}

// pageSize is what a page may have: 0 is the default, above the most it is cut.
func pageSize(asked int32, usual, most int) (int, error) {
	if asked < 0 {
		return 0, &message.Error{Err: message.ErrInvalid, Field: "page_size", Text: fmt.Sprintf("page_size is 1 to %d, or 0 for %d", most, usual), Limit: most}
	}
	if asked == 0 {
		return usual, nil
	}
	return min(int(asked), most), nil
}

// A page of names goes on behind one. Its token has a check of the list it was given for: it guards against mistakes.
func nameToken(list, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(nameCheck(list, last), last...))
}

func readName(list, token string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) <= checkBytes || string(b[:checkBytes]) != string(nameCheck(list, string(b[checkBytes:]))) {
		return "", unreadable("page_token", "page_token is not the next_page_token of a page of the same list")
	}
	return string(b[checkBytes:]), nil
}

func nameCheck(list, last string) []byte {
	sum := sha256.Sum256([]byte(strings.Join([]string{list, last}, "\n"))) // neither may contain a line break
	return sum[:checkBytes]
}
