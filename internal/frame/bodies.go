package frame

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// How many members or messages a page holds: unless asked for, and at most.
const (
	whoLimit     = 100
	maxWho       = 200
	historyLimit = 50
	maxHistory   = 100
)

// Want is a room a session asks for.
type Want struct {
	Room   string // as sent, not checked; "": the frame named none
	LastID string // as sent, often no id at all; "": none
}

// Subscribe reads what a subscribe frame asks for, in its order: the frame's own room, or those of data.rooms, at least
// one. A last_id is never at fault; what is no text is none. More than most rooms are a *DecodeError with CodeRoomLimit.
func (in In) Subscribe(most int) ([]Want, error) {
	var lastID string
	var rooms jsontext.Value
	err := in.body(func(name string, v jsontext.Value) error {
		switch name {
		case "last_id":
			lastID = position(v)
		case "rooms":
			rooms = v
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !given(rooms):
		return []Want{{Room: in.Room, LastID: lastID}}, nil
	case rooms.Kind() != '{':
		return nil, in.bad("data.rooms must be an object of rooms and their last ids")
	case lastID != "":
		return nil, in.bad("with data.rooms each room has its own last id")
	}
	var wants []Want
	err = in.rooms(scanObject(rooms), most, func(s *scanner) error {
		wants = append(wants, Want{Room: string(unquote(s.name)), LastID: position(s.value)})
		return nil
	})
	return wants, err
}

// Unsubscribe reads the rooms that a session leaves: the frame's own, or those of data.rooms, at least one. They are as
// sent; "": the frame named none. More than most are a *DecodeError with CodeRoomLimit.
func (in In) Unsubscribe(most int) ([]string, error) {
	var list jsontext.Value
	err := in.body(func(name string, v jsontext.Value) error {
		if name == "rooms" {
			list = v
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !given(list):
		return []string{in.Room}, nil
	case list.Kind() != '[':
		return nil, in.bad("data.rooms must be an array of rooms")
	}
	var rooms []string
	err = in.rooms(scanArray(list), most, func(s *scanner) error {
		if s.value.Kind() != '"' {
			return errors.New("data.rooms must hold strings")
		}
		rooms = append(rooms, string(unquote(s.value)))
		return nil
	})
	return rooms, err
}

// rooms walks over data.rooms and closes s.
func (in In) rooms(s *scanner, most int, read func(*scanner) error) error {
	var err error
	n := 0
	for err == nil && s.next() {
		if n++; n > most {
			_ = s.close() // one fault is enough
			return &DecodeError{Code: CodeRoomLimit, Ref: in.Ref, Text: fmt.Sprintf("at most %d rooms at once", most)}
		}
		err = read(s)
	}
	if fault := s.close(); err == nil {
		err = fault
	}
	switch {
	case err == nil && in.Room != "":
		err = errors.New("either room or data.rooms, not both")
	case err == nil && n == 0:
		err = errors.New("data.rooms is empty")
	}
	if err != nil {
		return in.bad(err.Error())
	}
	return nil
}

// Status reads the status that a presence frame sets: "online" or "away".
func (in In) Status() (string, error) {
	var status string
	err := in.body(func(name string, v jsontext.Value) (err error) {
		if name == "status" {
			status, err = text("data.status", v)
		}
		return err
	})
	if err == nil && status != "online" && status != "away" {
		err = in.bad("data.status must be online or away")
	}
	if err != nil {
		return "", err
	}
	return status, nil
}

// Who reads which page of a room's members is asked for. after is as sent.
func (in In) Who() (after string, limit int, err error) {
	limit = whoLimit
	err = in.body(func(name string, v jsontext.Value) (err error) {
		switch name {
		case "after":
			after, err = text("data.after", v)
		case "limit":
			limit, err = limitOf(v, whoLimit, maxWho)
		}
		return err
	})
	if err != nil {
		return "", 0, err
	}
	return after, limit, nil
}

// HistoryWant is a page of a room's history. At most one of Before, After and Page is given; if none, the newest is meant.
type HistoryWant struct {
	Before message.ID
	After  message.ID
	Page   string // as sent
	Limit  int
}

// History reads which page of a room's history is asked for.
func (in In) History() (HistoryWant, error) {
	w := HistoryWant{Limit: historyLimit}
	err := in.body(func(name string, v jsontext.Value) (err error) {
		switch name {
		case "before":
			w.Before, err = idOf("data.before", v)
		case "after":
			w.After, err = idOf("data.after", v)
		case "page":
			w.Page, err = text("data.page", v)
		case "limit":
			w.Limit, err = limitOf(v, historyLimit, maxHistory)
		}
		return err
	})
	before, after, page := !w.Before.IsZero(), !w.After.IsZero(), w.Page != ""
	if err == nil && (before && after || before && page || after && page) {
		err = in.bad("at most one of data.before, data.after and data.page")
	}
	if err != nil {
		return HistoryWant{}, err
	}
	return w, nil
}

// Token reads the token of an auth frame; it is not empty.
func (in In) Token() (string, error) {
	var token string
	err := in.body(func(name string, v jsontext.Value) (err error) {
		if name == "token" {
			token, err = text("data.token", v)
		}
		return err
	})
	if err == nil && token == "" {
		err = in.bad("data.token is missing")
	}
	if err != nil {
		return "", err
	}
	return token, nil
}

// body walks over the members of data, of which there are none if it is absent or null. The first error of read ends it.
func (in In) body(read func(name string, v jsontext.Value) error) error {
	switch {
	case !given(in.Data):
		return nil
	case in.Data.Kind() != '{':
		return in.bad("data must be an object")
	}
	s := scanObject(in.Data)
	var err error
	for err == nil && s.next() {
		err = read(string(unquote(s.name)), s.value)
	}
	if fault := s.close(); err == nil {
		err = fault
	}
	if err != nil {
		return in.bad(err.Error())
	}
	return nil
}

func (in In) bad(text string) error {
	return &DecodeError{Code: CodeBadFrame, Ref: in.Ref, Text: text}
}

// given tells a value from an absent or null one.
func given(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }

// position reads a last_id, with which nothing can be wrong.
func position(v jsontext.Value) string {
	s, _ := text("", v)
	return s
}

// idOf reads an id; absent, null and empty are the zero ID.
func idOf(name string, v jsontext.Value) (message.ID, error) {
	s, err := text(name, v)
	if err != nil || s == "" {
		return message.ID{}, err
	}
	id, ok := message.ParseID(s)
	if !ok {
		return message.ID{}, fmt.Errorf("%s must be the id of a frame", name)
	}
	return id, nil
}

// limitOf reads how many are asked for: a whole number from 1, cut to most.
func limitOf(v jsontext.Value, otherwise, most int) (int, error) {
	if !given(v) {
		return otherwise, nil
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, errLimit
		}
		n = min(n*10+int(c-'0'), most) // more digits cannot make it less
	}
	if n == 0 {
		return 0, errLimit
	}
	return n, nil
}

var errLimit = errors.New("data.limit must be a whole number from 1")
