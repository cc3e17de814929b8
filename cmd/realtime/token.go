package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/slack5/realtime/internal/auth"
)

// token makes one for a user's session, or for a service that calls. What belongs to the token does not come from the environment, where it would be
// forgotten; its key may: the same variable that names it to the node.
type token struct {
	User        string        `required:"" placeholder:"ID" env:"-" help:"User the token is for; with --scope, the service."`
	Rooms       []string      `name:"room" placeholder:"ROOM[=rwph]" env:"-" sep:"none" help:"Room, or a prefix and *, and what is allowed there: r join, w send, p presence, h history; all if not given. Repeatable; without any the node's default counts."`
	TTL         time.Duration `name:"ttl" default:"1h" env:"-" help:"How long it is good."`
	Key         string        `required:"" placeholder:"FILE|env:NAME" env:"REALTIME_JWT_KEY" help:"Secret or private key (PEM) to sign with: a file, or env:NAME for a variable that holds it."`
	Alg         string        `placeholder:"ALG" env:"-" help:"Algorithm; if not given, the key's: HS256, RS256, ES256, ES384, ES512 or EdDSA."`
	Issuer      string        `placeholder:"ISS" env:"-" help:"Issuer (iss)."`
	Audience    string        `placeholder:"AUD" env:"-" help:"Audience (aud)."`
	Info        string        `placeholder:"JSON" env:"-" help:"Public presence data, any JSON value."`
	MaxSessions int           `placeholder:"N" env:"-" help:"How many sessions the user may have at once."`
	Scopes      []string      `name:"scope" placeholder:"SCOPE" env:"-" help:"What a service that calls a node may do: publish, publish:as-user, subscribe, presence, control. Repeatable; then the token is no user's."`
	ID          string        `name:"id" placeholder:"JTI" env:"-" help:"Id of the token (jti)."`
	JSON        bool          `name:"json" env:"-" help:"Print JSON: the token and when it expires."`
}

func (t *token) Run(e *env) error {
	rooms, err := grants(t.Rooms)
	if err != nil {
		return err
	}
	if t.TTL < time.Second {
		return fmt.Errorf("--ttl: %v is too short, it must be at least 1s", t.TTL)
	}
	now := time.Now()
	c := auth.Claims{
		User: t.User, TokenID: t.ID, Issuer: t.Issuer, Audience: t.Audience,
		IssuedAt: now, Expires: now.Add(t.TTL), Rooms: rooms, MaxSessions: t.MaxSessions, Scope: strings.Join(t.Scopes, " "),
	}
	if t.Info != "" {
		c.Info = []byte(t.Info)
	}
	signed, err := auth.Sign(t.Key, t.Alg, c)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if t.TTL > auth.DefaultMaxLifetime {
		fmt.Fprintf(e.err, "note: nodes refuse a token that lives longer than %v, unless they are configured to take it\n", auth.DefaultMaxLifetime)
	}
	if t.JSON {
		b, err := json.Marshal(struct {
			Token   string    `json:"token"`
			Expires time.Time `json:"expires"`
		}{signed, c.Expires.UTC().Truncate(time.Second)})
		if err != nil {
			return err
		}
		signed = string(b)
	}
	_, err = fmt.Fprintln(e.out, signed)
	return err
}

// grants reads --room. None is nil: the token then says nothing of rooms.
func grants(args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	rooms := make(map[string]string, len(args))
	for _, arg := range args {
		room, ops, ok := strings.Cut(arg, "=")
		if !ok {
			ops = "rwph"
		}
		if _, twice := rooms[room]; twice {
			return nil, fmt.Errorf("--room: %q is given twice", room)
		}
		rooms[room] = ops
	}
	return rooms, nil
}
