package config

import "time"

// Limits bound what peers may do on this node; a rate lets twice as much pass at first, unless it says otherwise.
type Limits struct {
	SessionRooms      int           `default:"128" help:"Rooms of a session."`
	SessionFrames     int           `default:"20" help:"Frames a second of a session, ping not among them; 0: any number."`
	SessionBytes      Bytes         `default:"512KiB" help:"Bytes a second of a session's frames; 0: any number."`
	SessionPings      int           `default:"2" help:"Frames of type ping a second; 0: any number."`
	SessionSubscribes int           `default:"16" help:"Rooms a second that a session subscribes to, at first at least twice --session-rooms; 0: any number."`
	SessionStatuses   int           `default:"2" help:"Frames of type presence a second; 0: any number."`
	SessionControls   int           `default:"100" help:"WebSocket pings and pongs within a second; more end the session; 0: any number."`
	SessionFragments  int           `default:"256" help:"Fragments of a message; more end the session; 0: any number."`
	SessionBuffer     Bytes         `default:"256KiB" help:"Answers to a session that it has not read; more end it."`
	MessageTimeout    time.Duration `default:"10s" help:"A message of a session must arrive whole within it."`
	UserFrames        int           `default:"100" help:"Frames a second of all sessions of a user; 0: any number."`
	UserBytes         Bytes         `default:"2MiB" help:"Bytes a second of all sessions of a user; 0: any number."`
	UserNewRooms      int           `default:"100" help:"Rooms a second that a user may be the first in, at first at least twice --session-rooms; 0: any number."`
	UserSessions      int           `default:"0" help:"Sessions of a user at once; 0: any number."`
	AddressFrames     int           `default:"0" help:"Frames a second of all sessions of an address; 0: any number."`
	AddressBytes      Bytes         `default:"0" help:"Bytes a second of all sessions of an address; 0: any number."`
	AddressSessions   int           `default:"0" help:"Sessions of an address at once; 0: any number."`
	AddressHandshakes int           `default:"0" help:"Handshakes a second of an address; 0: any number."`
	AddressFailures   int           `default:"1" help:"Bad tokens a second of an address, at first twenty times as many; 0: any number."`
	Handshakes        int           `default:"1000" help:"Handshakes a second, at first a quarter of it; who comes too early waits for up to a second, then 429; 0: any number."`
}

// maxRate is far above what a node can do: a larger one is a mistake.
const maxRate = 1 << 30

func (l *Limits) check(p *problems) {
	for _, o := range []struct {
		name  string
		value int64
	}{
		{"--session-frames", int64(l.SessionFrames)},
		{"--session-bytes", int64(l.SessionBytes)},
		{"--session-pings", int64(l.SessionPings)},
		{"--session-subscribes", int64(l.SessionSubscribes)},
		{"--session-statuses", int64(l.SessionStatuses)},
		{"--session-controls", int64(l.SessionControls)},
		{"--session-fragments", int64(l.SessionFragments)},
		{"--user-frames", int64(l.UserFrames)},
		{"--user-bytes", int64(l.UserBytes)},
		{"--user-new-rooms", int64(l.UserNewRooms)},
		{"--user-sessions", int64(l.UserSessions)},
		{"--address-frames", int64(l.AddressFrames)},
		{"--address-bytes", int64(l.AddressBytes)},
		{"--address-sessions", int64(l.AddressSessions)},
		{"--address-handshakes", int64(l.AddressHandshakes)},
		{"--address-failures", int64(l.AddressFailures)},
		{"--handshakes", int64(l.Handshakes)},
	} {
		if o.value < 0 || o.value > maxRate {
			p.add("%s must be between 0 and %d; 0 is any number", o.name, maxRate)
		}
	}
	if l.SessionRooms < 1 || l.SessionRooms > maxSessionRooms {
		p.add("--session-rooms must be between 1 and %d", maxSessionRooms)
	}
	if l.SessionBuffer < minSessionBuffer || l.SessionBuffer > maxSessionBuffer {
		p.add("--session-buffer must be between %v and %v", Bytes(minSessionBuffer), Bytes(maxSessionBuffer))
	}
	if l.MessageTimeout <= 0 {
		p.add("--message-timeout must be above 0")
	}
}

const (
	maxSessionRooms  = 10_000
	minSessionBuffer = 192 << 10 // the largest answer fits, and a few more
	maxSessionBuffer = 1 << 30
)
