package auth

import "time"

// Revocation makes tokens invalid that were good. Exactly one of User, TokenID and All is set.
type Revocation struct {
	User    string
	TokenID string
	All     bool
	Before  time.Time // only tokens issued before it, and those that do not say when; zero: whenever they were issued
}

// Revocations decide which tokens do not count any more. They are immutable; nil revokes nothing.
type Revocations struct {
	users, tokens map[string]time.Time // to the latest Before of an entry
	all           time.Time
	everyone      bool
}

// always is after every token's time: seconds of a token end with the year 9999.
var always = time.Unix(maxTime+1, 0)

// NewRevocations takes what is in force.
func NewRevocations(list []Revocation) *Revocations {
	r := &Revocations{users: make(map[string]time.Time), tokens: make(map[string]time.Time)}
	for _, e := range list {
		before := e.Before
		if before.IsZero() {
			before = always
		}
		switch {
		case e.All:
			r.everyone = true
			r.all = latest(r.all, before)
		case e.TokenID != "":
			r.tokens[e.TokenID] = latest(r.tokens[e.TokenID], before)
		default:
			r.users[e.User] = latest(r.users[e.User], before)
		}
	}
	return r
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Revoked tells whether a token does not count any more. issued is zero for one that does not say when it was.
//
// A token's time has whole seconds, a revocation's has parts of them: one that was made in the second of the revocation
// counts as older.
func (r *Revocations) Revoked(user, tokenID string, issued time.Time) bool {
	if r == nil {
		return false
	}
	if r.everyone && issued.Before(r.all) {
		return true
	}
	if before, ok := r.users[user]; ok && issued.Before(before) {
		return true
	}
	before, ok := r.tokens[tokenID]
	return ok && tokenID != "" && issued.Before(before)
}
