package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/presence"
)

// people runs a node whose tokens are "user", "user rooms" (room=ops) or "user rooms info".
func people(t *testing.T, cfg presence.Config, away time.Duration) *running {
	t.Helper()
	cfg.Coalesce, cfg.Debounce = 20*time.Millisecond, 50*time.Millisecond
	if cfg.Grace == 0 {
		cfg.Grace = 200 * time.Millisecond
	}
	verify := func(token string) (auth.Identity, error) {
		parts := append(strings.Split(token, "~"), "*=rwph", "")
		rooms, ops, _ := strings.Cut(parts[1], "=")
		g, err := auth.CompileGrants(map[string]string{rooms: ops})
		id := auth.Identity{User: parts[0], Grants: g}
		if parts[2] != "" && parts[2] != "*=rwph" {
			id.Info = []byte(parts[2])
		}
		return id, err
	}
	r := start(t, New(Config{Presence: cfg}, quiet(t)), edge.Config{Verify: verify, AwayAfter: away, PingInterval: 200 * time.Millisecond})
	r.ready()
	return r
}

// as dials as somebody.
func (r *running) as(token, room string) *websocket.Conn {
	r.t.Helper()
	conn, res, err := websocket.Dial(r.t.Context(), r.url+"/ws/"+room, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		r.t.Fatalf("dial: %v, %v", err, res)
	}
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// news reads presence frames until those of user, in order, are what is wanted.
func news(t *testing.T, conn *websocket.Conn, user string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	for !slices.Equal(got, want) {
		_, b, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("of %s: %v, want %v: %v", user, got, want, err)
		}
		type change struct {
			Status, Since string
			UserID        string `json:"user_id"`
			Info          json.RawMessage
		}
		var f struct {
			Type string
			Data struct {
				change
				Changes []change
			}
		}
		if json.Unmarshal(b, &f) != nil || f.Type != "presence" {
			continue
		}
		for _, c := range append(f.Data.Changes, f.Data.change) {
			if c.UserID == user {
				got = append(got, c.Status+string(c.Info))
				if c.Since == "" {
					t.Errorf("no since in %s", b)
				}
			}
		}
	}
}

func say(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestMembersAreToldWhoComesAndGoes(t *testing.T) {
	r := people(t, presence.Config{}, 0)
	alice := r.as("alice", "general")
	f := find(t, alice, `"subscribed"`)
	if !strings.Contains(f, `"users":1,"sessions":1,"presence":"events","grants":"rwph"`) {
		t.Error(f)
	}
	news(t, alice, "alice", "online") // her own coming
	blind := r.as("eve~general=rw", "general")
	if f := find(t, blind, `"subscribed"`); !strings.Contains(f, `"presence":"off","grants":"rw"`) || strings.Contains(f, `"users"`) {
		t.Error(f)
	}
	news(t, alice, "eve", "online") // she is announced though she may not see
	one := r.as(`bob~*=rwph~{"name":"Bob"}`, "general")
	find(t, one, `"subscribed"`)
	news(t, alice, "bob", `online{"name":"Bob"}`)
	two := r.as("bob", "general")
	find(t, two, `"subscribed"`)
	news(t, alice, "bob", "online") // the newest session's info
	say(t, one, `{"type":"presence","data":{"status":"away"},"ref":"1"}`)
	find(t, one, `"ack"`)
	_ = one.Close(websocket.StatusNormalClosure, "")
	say(t, two, `{"type":"presence","data":{"status":"away"},"ref":"2"}`)
	news(t, alice, "bob", "away")
	say(t, two, `{"type":"chat","data":"still away: he said so"}`)
	say(t, two, `{"type":"presence","data":{"status":"online"}}`)
	news(t, alice, "bob", "online")
	_ = two.CloseNow()
	news(t, alice, "bob", "offline")
	say(t, blind, `{"type":"chat","ref":"last","data":"x"}`)
	for {
		f := find(t, blind, `"type"`)
		if strings.Contains(f, `"type":"presence"`) {
			t.Errorf("who may not see is told %s", f)
		}
		if strings.Contains(f, `"ack"`) {
			break
		}
	}
	say(t, blind, `{"type":"unsubscribe","data":{"rooms":["general"]}}`)
	news(t, alice, "eve", "offline") // at once: she left
	users, _, err := r.Presence().Users(t.Context(), []string{"bob", "eve", "nobody"})
	if err != nil || users[0].Status != presence.Offline || users[0].LastSeen == 0 || users[1].Status != presence.Online || len(r.Presence().RoomsOf([]string{"eve"})[0]) != 0 || users[2].LastSeen != 0 {
		t.Errorf("%+v, %v", users, err)
	}
}

func TestASilentSessionIsAwayUntilItSpeaks(t *testing.T) {
	r := people(t, presence.Config{}, 300*time.Millisecond)
	alice, bob := r.as("alice", "general"), r.as("bob", "general")
	find(t, bob, `"subscribed"`)
	news(t, alice, "bob", "online", "away")
	say(t, bob, `{"type":"ping"}`)
	news(t, alice, "bob", "online", "away")
}

func TestAReconnectWithinTheGraceIsNoNews(t *testing.T) {
	r := people(t, presence.Config{Grace: 3 * time.Second}, 0)
	alice := r.as("alice", "general")
	for range 3 {
		bob := r.as("bob", "general")
		find(t, bob, `"subscribed"`)
		_ = bob.CloseNow()
	}
	bob := r.as("bob", "general")
	find(t, bob, `"subscribed"`)
	news(t, alice, "bob", "online")
	say(t, bob, `{"type":"unsubscribe","data":{"rooms":["general"]}}`)
	news(t, alice, "bob", "offline")
}

func TestWhoPagesThroughARoom(t *testing.T) {
	r := people(t, presence.Config{CountsAbove: 20, CountsEvery: 50 * time.Millisecond}, 0)
	var want []string
	first := r.as("user00", "general")
	find(t, first, `"subscribed"`)
	for i := range 25 {
		want = append(want, fmt.Sprintf("user%02d", i))
		if i > 0 {
			find(t, r.as(want[i], "general"), `"subscribed"`)
		}
	}
	find(t, first, `"mode":"counts","users":25,"sessions":25`)
	late := r.as("user00", "general")
	if f := find(t, late, `"subscribed"`); !strings.Contains(f, `"users":25,"sessions":26,"presence":"counts"`) {
		t.Error(f)
	}
	var got []string
	for next := ""; ; {
		say(t, late, fmt.Sprintf(`{"type":"who","ref":"w","data":{"limit":10,"after":%q}}`, next))
		var f struct {
			Data struct {
				Members []struct {
					UserID, Status, Since string
					ID                    string `json:"user_id"`
					Sessions              int
				}
				Users, Sessions int
				Next            string
			}
		}
		if err := json.Unmarshal([]byte(find(t, late, `"members"`)), &f); err != nil {
			t.Fatal(err)
		}
		if f.Data.Users != 25 || f.Data.Sessions != 26 || len(f.Data.Members) > 10 {
			t.Errorf("%+v", f.Data)
		}
		for _, m := range f.Data.Members {
			got = append(got, m.ID)
			if m.Status != "online" || m.Since == "" || m.Sessions != 1 && m.ID != "user00" {
				t.Errorf("%+v", m)
			}
		}
		if next = f.Data.Next; next == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("who lists %v", got)
	}
	say(t, late, `{"type":"who","ref":"1"}`)
	find(t, late, `"members"`)
}

func TestWithoutPresenceNobodyIsTold(t *testing.T) {
	r := start(t, New(Config{NoPresence: true}, quiet(t)))
	r.ready()
	conn := r.dial("general")
	if f := find(t, conn, `"subscribed"`); !strings.Contains(f, `"presence":"off"`) {
		t.Error(f)
	}
	say(t, conn, `{"type":"who","ref":"w"}`)
	if f := find(t, conn, `"error"`); !strings.Contains(f, "not_permitted") {
		t.Error(f)
	}
}
