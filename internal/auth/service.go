package auth

import (
	"slices"
	"strings"
	"time"
)

// Service is what a valid token of a service says.
type Service struct {
	Name    string // sub
	Scopes  []string
	Expires time.Time
}

// VerifyService is Verify for the token of a service: one with a scope, and without anything for sessions. Its errors are Verify's.
func (v *Verifier) VerifyService(token string) (Service, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	i, c, err := v.read(s, token)
	if err != nil {
		return Service{}, err
	}
	if err := v.addressed(i, c); err != nil {
		return Service{}, err
	}
	scopes := slices.DeleteFunc(strings.Split(c.scope, " "), func(s string) bool { return s == "" })
	switch {
	case c.session:
		return Service{}, refuse("it has rt: it is a user's")
	case len(scopes) == 0:
		return Service{}, refuse("scope is missing: it is no service's")
	}
	if err := v.timely(c); err != nil {
		return Service{}, err
	}
	return Service{Name: c.user, Scopes: scopes, Expires: c.expires}, nil
}
