package auth

import (
	"testing"
	"time"
)

func TestRevocationsEndTheTokensTheyNameAndNoOthers(t *testing.T) {
	at := time.Unix(1_800_000_000, 500_000_000)
	second := at.Truncate(time.Second)
	later := second.Add(time.Second)
	user := []Revocation{{User: "alice", Before: at}}
	token := []Revocation{{TokenID: "t1"}}
	dated := []Revocation{{TokenID: "t1", Before: at}}
	all := []Revocation{{All: true, Before: at}}
	for name, c := range map[string]struct {
		list          []Revocation
		user, tokenID string
		issued        time.Time
		want          bool
	}{
		"nothing is revoked":                          {nil, "alice", "t1", second, false},
		"a user's token issued before":                {user, "alice", "t9", second.Add(-time.Hour), true},
		"a user's token of the same second":           {user, "alice", "t9", second, true},
		"a user's token of the next second":           {user, "alice", "t9", later, false},
		"a user's token that does not say when":       {user, "alice", "", time.Time{}, true},
		"another user's":                              {user, "bob", "alice", second, false},
		"the token of an id, however new":             {token, "bob", "t1", later.Add(time.Hour), true},
		"another token":                               {token, "bob", "t2", second, false},
		"a token without id where ids are revoked":    {token, "t1", "", second, false},
		"an id with a date, issued before":            {dated, "bob", "t1", second, true},
		"an id with a date, issued after":             {dated, "bob", "t1", later, false},
		"everyone's issued before":                    {all, "bob", "", second, true},
		"everyone's that does not say when":           {all, "bob", "", time.Time{}, true},
		"everyone's issued after":                     {all, "bob", "", later, false},
		"of several entries the one that reaches far": {append(user, Revocation{User: "alice", Before: later.Add(time.Hour)}), "alice", "", later, true},
		"an older entry beside a newer one":           {append(user, Revocation{User: "alice", Before: at.Add(-time.Hour)}), "alice", "", second, true},
		"a time in the year 9999 does not escape":     {token, "bob", "t1", time.Unix(maxTime, 0), true},
	} {
		if got := NewRevocations(c.list).Revoked(c.user, c.tokenID, c.issued); got != c.want {
			t.Errorf("%s: Revoked(%q, %q, %v) = %v, want %v", name, c.user, c.tokenID, c.issued, got, c.want)
		}
	}
	if (*Revocations)(nil).Revoked("alice", "t1", second) {
		t.Error("nil revokes something")
	}
}
