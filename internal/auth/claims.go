package auth

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

const (
	// maxMaxSessions is the largest rt.max_sessions; more would be no limit.
	maxMaxSessions = 1_000_000
	// maxTime is the last second of the year 9999.
	maxTime     = 253402300799
	maxKidBytes = 256
)

// claims are what a token says, each of the right kind. Unknown ones are ignored. A name counts as it is spelt: SUB is no
// sub, and an escaped sub is one.
type claims struct {
	user, tokenID, issuer        string
	audience                     []string
	issuedAt, notBefore, expires time.Time // zero: absent, but for expires
	rooms                        []byte    // rt.rooms as written, the scratch's; nil: absent
	info                         []byte
	maxSessions                  int
	session                      bool   // there is an rt: it is a user's, for sessions
	scope                        string // "": absent, or of a kind that is not ours
}

// header returns alg, and kid if there is one. What would change the meaning of a token or bring a key along is refused. kid is
// compared with those of a set and nothing else: keys that belong to none are tried whatever it says.
func (s *scratch) header(b []byte) (alg, kid string, err error) {
	err = s.document("header", b, func(name []byte) (err error) {
		switch string(name) {
		case "alg":
			alg, err = s.text("alg", MaxTokenBytes)
			return err
		case "typ":
			typ, err := s.text("typ", MaxTokenBytes)
			if err == nil && !strings.EqualFold(typ, "JWT") && !strings.EqualFold(typ, "at+jwt") {
				return refuse("typ %s is not JWT or at+jwt", quoted(typ))
			}
			return err
		case "kid":
			kid, err = s.text("kid", maxKidBytes)
			if err == nil && strings.ContainsFunc(kid, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return refuse("kid has control characters")
			}
			return err
		case "b64", "crit", "enc", "jku", "jwk", "x5c", "x5u", "zip":
			return refuse("%s in the header is not supported", name)
		}
		return s.skip("header")
	})
	if err == nil && alg == "" {
		return "", "", refuse("alg is missing")
	}
	return alg, kid, err
}

// issuer reads iss of a payload that nobody has vouched for yet: it says whose keys to try, and counts when they have.
func (s *scratch) issuer(b []byte) (iss string, err error) {
	err = s.document("payload", b, func(name []byte) (err error) {
		if string(name) == "iss" {
			iss, err = s.text("iss", MaxTokenBytes)
			return err
		}
		return s.skip("payload")
	})
	return iss, err
}

// claims reads a payload that the issuer signed.
func (s *scratch) claims(b []byte) (c claims, err error) {
	err = s.document("payload", b, func(name []byte) (err error) {
		switch string(name) {
		case "sub":
			c.user, err = s.text("sub", message.MaxUserBytes)
		case "jti":
			c.tokenID, err = s.text("jti", MaxTokenIDBytes)
		case "iss":
			c.issuer, err = s.text("iss", MaxTokenBytes)
		case "aud":
			c.audience, err = s.audience()
		case "exp":
			c.expires, err = s.date("exp")
		case "nbf":
			c.notBefore, err = s.date("nbf")
		case "iat":
			c.issuedAt, err = s.date("iat")
		case "token_use": // where an issuer makes ID tokens with the same key, it says so
			var use string
			if use, err = s.text("token_use", MaxTokenBytes); err == nil && use != "access" {
				err = refuse("token_use %s is not access", quoted(use))
			}
		case "scope":
			c.scope, err = s.scope()
		case "rt":
			c.session = true
			err = s.object("rt", func(name []byte) error { return s.ours(&c, name) })
		default:
			err = s.skip("payload")
		}
		return err
	})
	switch {
	case err != nil:
	case c.expires.IsZero():
		err = refuse("exp is missing")
	default:
		if wrong := message.CheckUser(c.user); wrong != nil {
			err = refuse("sub: %v", wrong)
		}
	}
	return c, err
}

// scope reads what a service's token is good for. Issuers put it into users' tokens too, in whatever form: there it says nothing.
func (s *scratch) scope() (string, error) {
	if s.dec.PeekKind() != '"' {
		return "", s.skip("payload")
	}
	return s.text("scope", MaxTokenBytes)
}

// ours reads a member of rt.
func (s *scratch) ours(c *claims, name []byte) (err error) {
	switch string(name) {
	case "rooms":
		var v jsontext.Value
		if v, err = s.value("rt.rooms"); err == nil {
			s.rooms = append(s.rooms[:0], v...)
			c.rooms = s.rooms
		}
	case "info":
		c.info, err = s.info()
	case "max_sessions":
		c.maxSessions, err = s.count("rt.max_sessions", maxMaxSessions)
	default:
		err = s.skip("rt")
	}
	return err
}

// decodeRooms reads rt.rooms.
func decodeRooms(b []byte) (map[string]string, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	rooms := make(map[string]string)
	return rooms, s.document("rt.rooms", b, func(name []byte) (err error) {
		rooms[string(name)], err = s.text("an entry of rt.rooms", len(letters))
		return err
	})
}

func (s *scratch) audience() ([]string, error) {
	if s.dec.PeekKind() != '[' {
		one, err := s.text("aud", MaxTokenBytes)
		return []string{one}, err
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return nil, broken("aud", err)
	}
	var all []string
	for s.dec.PeekKind() != ']' {
		one, err := s.text("an entry of aud", MaxTokenBytes)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return nil, broken("aud", err)
	}
	return all, nil
}

// info returns a copy of its own.
func (s *scratch) info() ([]byte, error) {
	v, err := s.value("rt.info")
	if err != nil {
		return nil, err
	}
	info, err := compactInfo(v)
	if err != nil {
		return nil, refuse("rt.info: %v", err)
	}
	return info, nil
}

// compactInfo returns a copy of public presence data without what is insignificant in it. The error quotes nothing of it.
func compactInfo(b []byte) ([]byte, error) {
	if err := message.CheckJSON(b); err != nil {
		return nil, err
	}
	v := jsontext.Value(bytes.Clone(b))
	if err := v.Compact(); err != nil {
		return nil, err
	}
	if len(v) > MaxInfoBytes {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(v), MaxInfoBytes)
	}
	if len(v) < len(b) {
		return bytes.Clone(v), nil // a session keeps it, but not the room that white space took
	}
	return v, nil
}

// date reads seconds since 1970, with or without a fraction.
func (s *scratch) date(what string) (time.Time, error) {
	t, err := s.dec.ReadToken()
	if err != nil {
		return time.Time{}, broken(what, err)
	}
	if t.Kind() != '0' {
		return time.Time{}, refuse("%s is not a number", what)
	}
	f, err := t.Float()
	if err != nil || f <= 0 || f > maxTime {
		return time.Time{}, refuse("%s is not between the years 1970 and 9999", what)
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)), nil
}

// count reads an integer from 1 to most.
func (s *scratch) count(what string, most int) (int, error) {
	t, err := s.dec.ReadToken()
	if err != nil {
		return 0, broken(what, err)
	}
	n := 0
	if t.Kind() == '0' {
		n, err = strconv.Atoi(t.String())
	}
	if err != nil || n < 1 || n > most {
		return 0, refuse("%s is not an integer from 1 to %d", what, most)
	}
	return n, nil
}
