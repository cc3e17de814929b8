package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// Claims are what Sign writes into a token; zero values are left out.
type Claims struct {
	User        string
	TokenID     string
	Issuer      string
	Audience    string
	IssuedAt    time.Time
	Expires     time.Time         // required; as IssuedAt, it counts in whole seconds
	Rooms       map[string]string // nil: the node's default; empty: no room
	Info        []byte            // one JSON value
	MaxSessions int
	Scope       string // of a service's token, words with a space between; then nothing is said of rooms, info and sessions
}

// payload is how claims are written.
type payload struct {
	Issuer   string `json:"iss,omitzero"`
	User     string `json:"sub"`
	Audience string `json:"aud,omitzero"`
	Expires  int64  `json:"exp"`
	IssuedAt int64  `json:"iat,omitzero"`
	TokenID  string `json:"jti,omitzero"`
	Scope    string `json:"scope,omitzero"`
	RT       ours   `json:"rt,omitzero"`
}

type ours struct {
	Rooms       map[string]string `json:"rooms,omitzero"`
	Info        jsontext.Value    `json:"info,omitzero"`
	MaxSessions int               `json:"max_sessions,omitzero"`
}

// Sign makes a token. The key is given as in Config and must be a secret or a private key; alg "" is the default of its
// kind. What no Verifier would accept, whatever its configuration, is an error.
func Sign(keyName, alg string, c Claims) (string, error) {
	k, err := load(keyName)
	if err != nil {
		return "", err
	}
	if k.private == nil {
		return "", fmt.Errorf("key %s: it is a public key, signing takes the private one", keyName)
	}
	return k.sign(alg, c)
}

// SignWith makes a token with a secret of the program's own, of Config.Secret.
func SignWith(secret []byte, c Claims) (string, error) {
	return (&key{name: "of the program", kind: secretKind, private: secret}).sign("", c)
}

func (k *key) sign(alg string, c Claims) (string, error) {
	method := k.kind.methods[0]
	if alg != "" {
		if method = find(k.kind.methods, alg); method == nil {
			return "", fmt.Errorf("algorithm %s does not fit %s, which takes %s", quoted(alg), k.kind.name, k.kind.algorithms())
		}
	}
	body, err := c.encode()
	if err != nil {
		return "", err
	}
	signed := base64URL.EncodeToString([]byte(`{"alg":"`+method.Alg()+`","typ":"JWT"}`)) + "." + base64URL.EncodeToString(body)
	signature, err := method.Sign(signed, k.private)
	if err != nil {
		return "", fmt.Errorf("key %s: %w", k.name, err)
	}
	token := signed + "." + base64URL.EncodeToString(signature)
	if len(token) > MaxTokenBytes {
		return "", fmt.Errorf("the token would have %d bytes, the limit is %d: name fewer rooms", len(token), MaxTokenBytes)
	}
	return token, nil
}

func (c *Claims) encode() ([]byte, error) {
	if err := message.CheckUser(c.User); err != nil {
		return nil, err
	}
	if _, err := CompileGrants(c.Rooms); err != nil {
		return nil, err
	}
	switch {
	case c.Expires.Unix() <= 0:
		return nil, errors.New("a token must expire")
	case len(c.TokenID) > MaxTokenIDBytes:
		return nil, fmt.Errorf("a token id of %d bytes, the limit is %d", len(c.TokenID), MaxTokenIDBytes)
	case c.Scope != "" && (c.Rooms != nil || c.Info != nil || c.MaxSessions != 0):
		return nil, errors.New("a scope beside rooms, info or sessions: a token is for a service or for a user")
	case c.MaxSessions < 0 || c.MaxSessions > maxMaxSessions:
		return nil, fmt.Errorf("%d sessions at once, it must be an integer from 1 to %d", c.MaxSessions, maxMaxSessions)
	}
	p := payload{
		Issuer: c.Issuer, User: c.User, Audience: c.Audience, Expires: c.Expires.Unix(), TokenID: c.TokenID, Scope: c.Scope,
		RT: ours{Rooms: c.Rooms, MaxSessions: c.MaxSessions},
	}
	if !c.IssuedAt.IsZero() {
		p.IssuedAt = c.IssuedAt.Unix()
	}
	if c.Info != nil {
		info, err := compactInfo(c.Info)
		if err != nil {
			return nil, fmt.Errorf("info: %w", err)
		}
		p.RT.Info = info
	}
	return json.Marshal(&p, json.Deterministic(true))
}
