package auth_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
)

func TestOperationsAreLetters(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "r": "r", "w": "w", "p": "p", "h": "h", "rwph": "rwph", "hpwr": "rwph", "hr": "rh",
		"x": "!", "rr": "!", "rwpr": "!", "R": "!", "r ": "!", "rwphr": "!", "*": "!", "ř": "!", "\x00": "!",
	} {
		o, err := auth.ParseOps(in)
		got := o.String()
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("ParseOps(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for o := range auth.Ops(16) {
		if back, err := auth.ParseOps(o.String()); err != nil || back != o {
			t.Errorf("ParseOps(%q) = %v, %v", o.String(), back, err)
		}
	}
}

func TestTheLongestKeyDecidesAloneAndExactNamesFirst(t *testing.T) {
	g, err := auth.CompileGrants(map[string]string{
		"*": "h", "team-7.*": "rw", "team-7.secret*": "", "team-7.secret.lobby": "r", "team-7.secret.*": "p", "announce": "r", "a*": "w", "a": "", "zz/*": "rwph",
	})
	if err != nil {
		t.Fatal(err)
	}
	for room, want := range map[message.Room]string{
		"team-7.x": "rw", "team-7.": "rw", "team-7": "h", "team-70.x": "h", "team-7.secret": "", "team-7.secrets": "", "team-7.secret.x": "p",
		"team-7.secret.lobby": "r", "team-7.secret.lobby2": "p", "announce": "r", "announce2": "w", "a": "", "b": "h", "zz/a": "rwph", "zz": "h", "zzz": "h", "0": "h",
		message.Global: "", message.Me: "", message.UserRoom("ada"): "", "": "",
	} {
		if got := g.For(room).String(); got != want {
			t.Errorf("For(%q) = %q, want %q", room, got, want)
		}
	}
}

func TestNoGrantsGrantNothing(t *testing.T) {
	var none *auth.Grants
	empty, err := auth.CompileGrants(nil)
	if err != nil || none.For("a") != 0 || empty.For("a") != 0 {
		t.Errorf("For = %v and %v, %v, want nothing", none.For("a"), empty.For("a"), err)
	}
}

func TestARoomKeyIsANameOrHowOneBegins(t *testing.T) {
	long := strings.Repeat("a", 128)
	for key, ok := range map[string]bool{
		"a": true, "a*": true, "*": true, "a/b*": true, "a/*": true, "a/.*": true, "a.*": true, "a@b*": true, long: true, long + "*": true,
		"": false, "**": false, "*a": false, "a*b": false, "a**": false, ".*": false, "@*": false, "@me": false, "@global": false, "@user/a*": false, "/*": false,
		"a//*": false, "a/../*": false, "a/": false, "a b": false, "a?": false, "a[b]*": false, "ä*": false, "a\n*": false, "a\x00": false, long + "a": false, long + "a*": false,
	} {
		if _, err := auth.CompileGrants(map[string]string{key: "r"}); (err == nil) != ok {
			t.Errorf("key %q: %v, want it accepted: %v", key, err, ok)
		}
	}
}

func TestAThousandRoomKeysAreTheLimit(t *testing.T) {
	rooms := make(map[string]string)
	for i := range 1000 {
		rooms[fmt.Sprint("room-", i)] = "r"
	}
	if _, err := auth.CompileGrants(rooms); err != nil {
		t.Errorf("1000: %v", err)
	}
	rooms["one-more"] = "r"
	if _, err := auth.CompileGrants(rooms); err == nil || err.Error() != "1001 room keys, the limit is 1000" {
		t.Errorf("1001: %v", err)
	}
}

// nested are a thousand keys, many of them beginnings of others.
func nested(r *rand.Rand) map[string]string {
	rooms := make(map[string]string)
	for len(rooms) < 1000 {
		key := make([]byte, 1+r.IntN(12))
		for i := range key {
			key[i] = "ab.-"[r.IntN(4)]
		}
		if key[0] == '.' {
			key[0] = 'a'
		}
		rooms[string(key)+[]string{"*", ""}[r.IntN(2)]] = auth.Ops(r.IntN(16)).String()
	}
	return rooms
}

func TestGrantsAgreeWithTheRuleAppliedByHand(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rooms := nested(r)
	g, err := auth.CompileGrants(rooms)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for range 20_000 {
		room := make([]byte, 1+r.IntN(14))
		for i := range room {
			room[i] = "ab.-"[r.IntN(4)]
		}
		want, ok := rooms[string(room)]
		for n := len(room); n >= 0 && !ok; n-- {
			want, ok = rooms[string(room[:n])+"*"]
		}
		if ok {
			found++
		}
		if got := g.For(message.Room(room)).String(); got != want {
			t.Fatalf("For(%q) = %q, want %q", room, got, want)
		}
	}
	if found < 5_000 {
		t.Errorf("only %d of 20,000 rooms had a key: the keys are badly made", found)
	}
}

func TestForAllocatesNothing(t *testing.T) {
	g, err := auth.CompileGrants(nested(rand.New(rand.NewPCG(1, 2))))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { _ = g.For("ab.-ab.-ab.-ab") | g.For("zzz") | g.For("a") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
