package main

import (
	"fmt"
	"slices"

	"google.golang.org/grpc"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// history prints what a room keeps.
type history struct {
	dial
	Room   string `arg:"" help:"Room; @global: what went to everyone, @user/ID: what went to a user."`
	Limit  int    `default:"100" placeholder:"N" env:"-" help:"So many messages at most (${default})."`
	After  string `placeholder:"ID" xor:"start" env:"-" help:"Those behind this message instead of the newest."`
	Before string `placeholder:"ID" xor:"start,all" env:"-" help:"Those in front of this message instead of the newest."`
	All    bool   `xor:"all" env:"-" help:"All of them, whatever --limit says."`
}

func (*history) Help() string {
	return `Prints a line for each message: time, room, type, sender, data; the oldest first. With --json they have their ids.

Examples:
  realtime history --limit 10 general
  realtime history --all --json orders > orders.jsonl`
}

const (
	// maxLimit bounds what is held to be turned round: pages before a message come newest first.
	maxLimit = 10_000
	// maxPage is the largest page a node gives.
	maxPage = 1000
	// beginning is an id in front of every message: all that a room keeps lies behind it.
	beginning = "00000000-0001-7000-8000-000000000000"
)

// Validate names what is out of range.
func (h *history) Validate() error {
	if h.Limit < 1 || h.Limit > maxLimit {
		return fmt.Errorf("--limit must be between 1 and %d: --all is for more", maxLimit)
	}
	return nil
}

func (h *history) Run(e *env) error {
	return h.call(e, "history", func(conn *grpc.ClientConn) error {
		calls := realtimev1.NewPublisherServiceClient(conn)
		if h.All || h.After != "" {
			return h.forwards(e, calls)
		}
		return h.backwards(e, calls)
	})
}

// forwards prints page by page, however much there is.
func (h *history) forwards(e *env, calls realtimev1.PublisherServiceClient) error {
	req := &realtimev1.GetHistoryRequest{Room: h.Room, Start: &realtimev1.GetHistoryRequest_AfterId{AfterId: h.After}}
	if h.After == "" {
		req.Start = &realtimev1.GetHistoryRequest_AfterId{AfterId: beginning}
	}
	for left, first := h.Limit, true; ; first = false {
		if req.PageSize = maxPage; !h.All {
			req.PageSize = int32(min(left, maxPage))
		}
		page, err := calls.GetHistory(e.ctx, req)
		if err != nil {
			return err
		}
		if first && page.GetTruncated() && h.After != "" {
			fmt.Fprintf(e.err, "messages behind %s are gone: the oldest kept is %s\n", word(h.After), word(page.GetOldestId()))
		}
		if err := h.print(e, page.GetMessages()); err != nil {
			return err
		}
		left -= len(page.GetMessages())
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" || !h.All && left <= 0 {
			return nil
		}
	}
}

// backwards collects pages towards the oldest and prints them turned round.
func (h *history) backwards(e *env, calls realtimev1.PublisherServiceClient) error {
	req := &realtimev1.GetHistoryRequest{Room: h.Room}
	if h.Before != "" {
		req.Start = &realtimev1.GetHistoryRequest_BeforeId{BeforeId: h.Before}
	}
	var pages [][]*realtimev1.Message
	for left := h.Limit; left > 0; {
		req.PageSize = int32(min(left, maxPage))
		page, err := calls.GetHistory(e.ctx, req)
		if err != nil {
			return err
		}
		pages = append(pages, page.GetMessages())
		left -= len(page.GetMessages())
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	for _, page := range slices.Backward(pages) {
		if err := h.print(e, page); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) print(e *env, messages []*realtimev1.Message) error {
	for _, m := range messages {
		var err error
		if h.JSON {
			err = printJSON(e.out, m)
		} else {
			err = printMessage(e.out, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
