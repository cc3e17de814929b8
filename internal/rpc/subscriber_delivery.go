package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// delivery is a stream's sender: it takes frames out of the pipe and sends them as what they mean.
type delivery struct {
	hub       *hub.Hub
	out       grpc.ServerStreamingServer[realtimev1.SubscribeResponse]
	pipe      *pipe
	keepalive time.Duration
	rooms     map[string]*place
}

// place is what the stream was told of a room.
type place struct {
	room     message.Room
	tag      uint16
	live     bool // Subscribed was sent
	degraded bool
}

// subscribed is the answer to a join; the hub fills in how it went. The rest is for sessions.
func subscribed(room message.Room) *frame.Subscribed {
	return &frame.Subscribed{Room: room, Presence: "off"}
}

// run sends until ctx ends or a Send fails. When the node goes away what lies in the pipe is still handed over.
func (d *delivery) run(ctx context.Context) error {
	idle := time.NewTimer(d.keepalive)
	defer idle.Stop()
	for ctx.Err() == nil {
		if d.pipe.fetch() {
			sent, err := d.send()
			if err != nil {
				return err
			}
			if sent {
				idle.Reset(d.keepalive)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-d.pipe.wake:
		case <-idle.C:
			if err := d.out.Send(&realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Keepalive{Keepalive: &realtimev1.Keepalive{}}}); err != nil {
				return err
			}
			idle.Reset(d.keepalive)
		}
	}
	if errors.Is(context.Cause(ctx), errDraining) {
		d.pipe.close()
		for d.pipe.fetch() {
			if _, err := d.send(); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// send sends the whole frames that were fetched; sent: there were some that say something.
func (d *delivery) send() (sent bool, err error) {
	for f := d.pipe.next(); f != nil; f = d.pipe.next() {
		resp, err := d.response(f)
		if err != nil {
			return sent, err
		}
		if resp == nil {
			continue
		}
		if err := d.out.Send(resp); err != nil {
			return sent, err
		}
		sent = true
	}
	return sent, nil
}

// response is what a frame means to a backend; nil: nothing.
func (d *delivery) response(f []byte) (*realtimev1.SubscribeResponse, error) {
	if !frame.IsText(f) {
		return nil, nil
	}
	out, err := frame.DecodeOut(frame.Payload(f))
	if err != nil {
		return nil, fmt.Errorf("frame of the hub: %w", err)
	}
	if e, own := out.Event(); own {
		return d.news(out, e), nil
	}
	return d.message(out), nil
}

// news is what the server itself says of a room.
func (d *delivery) news(out frame.Out, e frame.Event) *realtimev1.SubscribeResponse {
	switch e.Name {
	case "subscribed":
		if p := d.rooms[out.Room]; p != nil {
			p.live, p.degraded = true, p.degraded || d.hub.Away(p.room)
		}
		return &realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Subscribed{Subscribed: &realtimev1.Subscribed{
			Room: out.Room, Recovered: !e.Incomplete, LatestId: idText(e.LastID),
		}}}
	case "gap":
		return &realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Gap{Gap: &realtimev1.Gap{
			Room: out.Room, AfterId: idText(e.After), BeforeId: idText(e.Before), Reason: gapReasons[e.Reason],
		}}}
	case "degraded", "restored":
		for _, p := range d.rooms {
			if out.Room == string(p.room) || out.Room == "" && out.ID.Low.Tag() == p.tag { // one of all rooms comes once for each
				p.degraded = e.Name == "degraded"
			}
		}
	}
	return nil
}

var gapReasons = map[message.GapReason]realtimev1.GapReason{
	message.GapExpired:         realtimev1.GapReason_GAP_REASON_EXPIRED,
	message.GapUnknownPosition: realtimev1.GapReason_GAP_REASON_UNKNOWN_POSITION,
	message.GapLimit:           realtimev1.GapReason_GAP_REASON_LIMIT,
	message.GapDeleted:         realtimev1.GapReason_GAP_REASON_DELETED,
	message.GapLost:            realtimev1.GapReason_GAP_REASON_LOST,
}

// delivered is a response with all that it consists of but its texts: one allocation.
type delivered struct {
	response realtimev1.SubscribeResponse
	event    realtimev1.SubscribeResponse_Message
	message  realtimev1.Message
	at       timestamppb.Timestamp
}

// message is the response of a published message.
func (d *delivery) message(out frame.Out) *realtimev1.SubscribeResponse {
	r := &delivered{}
	m := &r.message
	m.Id, m.Room, m.Type, m.From, m.Data = out.ID.String(), out.Room, string(out.Type), out.From, string(out.Data)
	r.at.Seconds, r.at.Nanos = out.Timestamp.Unix(), int32(out.Timestamp.Nanosecond())
	m.Timestamp = &r.at
	if out.ID.Low.Unstored() {
		// A replay brings nothing ephemeral.
		p := d.rooms[out.Room]
		m.Degraded = p != nil && (p.degraded || !p.live)
		m.Ephemeral = !m.Degraded
	}
	r.event.Message = m
	r.response.Event = &r.event
	return &r.response
}

// idText is an id as the contract has it: empty if there is none.
func idText(id message.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
