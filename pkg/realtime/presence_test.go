package realtime_test

import (
	"slices"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slack5/realtime/pkg/realtime"
)

func TestPresenceTellsWhoIsInARoomAndWhoIsConnected(t *testing.T) {
	t.Setenv("TEST_KEY", secret)
	p := start(t)
	p.run(realtime.NewHub(p.logger, realtime.HubConfig{PresenceGrace: 100 * time.Millisecond}))
	p.mount(realtime.HandlerConfig{Auth: realtime.AuthConfig{Keys: []string{"env:TEST_KEY"}}})
	as := func(user, room string) *peer {
		return p.join("/ws/"+room, "Authorization: Bearer "+token(t, secret, jwt.MapClaims{"sub": user}))
	}
	who := func(room string) []realtime.PresenceData {
		t.Helper()
		users, err := p.hub.Presence(t.Context(), room)
		if err != nil {
			t.Fatal(err)
		}
		return users
	}
	online := func(users ...string) (all []realtime.PresenceData) {
		for _, u := range users {
			all = append(all, realtime.PresenceData{Status: realtime.PresenceOnline, UserID: u})
		}
		return all
	}
	bob := as("bob", "general")
	as("alice", "general")
	as("alice", "general")
	as("carol", "other")
	for room, want := range map[string][]realtime.PresenceData{
		"general": online("alice", "bob"), "other": online("carol"), "": online("alice", "bob", "carol"), "empty": nil,
	} {
		if got := who(room); !slices.Equal(got, want) {
			t.Errorf("in %q are %v, want %v", room, got, want)
		}
	}
	bob.say(`{"type":"presence","data":{"status":"away"}}`)
	p.until("bob is away", func() bool {
		return slices.Contains(who("general"), realtime.PresenceData{Status: realtime.PresenceAway, UserID: "bob"})
	})
	bob.leave()
	p.until("bob has gone", func() bool { return slices.Equal(who("general"), online("alice")) })
}
