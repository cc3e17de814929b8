package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
)

const tokenSecret = "6b1f0c9d2e8a7354f1c06d9be2a84735"

func TestATokenIsPrintedAloneAndIsWhatWasAsked(t *testing.T) {
	t.Setenv("TOKEN_TEST_KEY", tokenSecret)
	t.Setenv("REALTIME_JWT_KEY", "env:TOKEN_TEST_KEY")
	out, err := command(t, "token", "--user=ada", "--room=team-7.*", "--room=announce=r", "--room=a,b=", "--ttl=2h", "--issuer=us", "--audience=rt",
		`--info={"name":"Ada"}`, "--max-sessions=3", "--id=t1")
	if err == nil || out != "" || !strings.Contains(err.Error(), `room key "a,b"`) { // one room, not two
		t.Fatalf("a bad room: %q, %v", out, err)
	}
	out, err = command(t, "token", "--user=ada", "--room=team-7.*", "--room=announce=r", "--room=attic=", "--ttl=2h", "--issuer=us", "--audience=rt",
		`--info={"name":"Ada"}`, "--max-sessions=3", "--id=t1")
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.New(auth.Config{Keys: []string{"env:TOKEN_TEST_KEY"}, Issuer: "us", Audience: "rt"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.Verify(strings.TrimSuffix(out, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if id.User != "ada" || id.TokenID != "t1" || id.MaxSessions != 3 || string(id.Info) != `{"name":"Ada"}` || id.Expires.Sub(id.IssuedAt) != 2*time.Hour {
		t.Errorf("Identity = %+v", id)
	}
	for room, want := range map[message.Room]string{"team-7.x": "rwph", "announce": "r", "attic": "", "lobby": ""} {
		if got := id.Grants.For(room).String(); got != want {
			t.Errorf("For(%q) = %q, want %q", room, got, want)
		}
	}
}

func TestAServicesTokenHasItsScopes(t *testing.T) {
	t.Setenv("TOKEN_TEST_KEY", tokenSecret)
	out, err := command(t, "token", "--user=shop", "--audience=backends", "--scope=publish", "--scope=presence", "--key=env:TOKEN_TEST_KEY")
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.New(auth.Config{Keys: []string{"env:TOKEN_TEST_KEY"}, Audience: "backends"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.VerifyService(strings.TrimSuffix(out, "\n"))
	if err != nil || got.Name != "shop" || strings.Join(got.Scopes, " ") != "publish presence" {
		t.Errorf("VerifyService = %+v, %v", got, err)
	}
	if _, err := command(t, "token", "--user=shop", "--scope=publish", "--room=a", "--key=env:TOKEN_TEST_KEY"); err == nil || !strings.Contains(err.Error(), "a scope beside") {
		t.Errorf("with a room: %v", err)
	}
}

func TestATokenIsGoodForAnHourInTheNodesRooms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(tokenSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "token", "--user=ada", "--key="+path, "--alg=HS512", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Token   string
		Expires time.Time
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	v, err := auth.New(auth.Config{Keys: []string{path}, Algorithms: []string{"HS512"}, Rooms: map[string]string{"lobby": "rp"}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.Verify(got.Token)
	if err != nil {
		t.Fatal(err)
	}
	if !id.Expires.Equal(got.Expires) || id.Expires.Sub(id.IssuedAt) != time.Hour || id.Grants.For("lobby").String() != "rp" {
		t.Errorf("Identity = %+v, printed %v", id, got.Expires)
	}
}

func TestABadTokenIsNotMadeAndNoKeyIsShown(t *testing.T) {
	t.Setenv("TOKEN_TEST_KEY", "short-secret")
	t.Setenv("REALTIME_JWT_KEY", "env:TOKEN_TEST_KEY")
	t.Setenv("REALTIME_USER", "forgotten")
	for want, args := range map[string][]string{
		"--user":                                {},
		"key env:TOKEN_TEST_KEY: a secret of":   {"--user=ada"},
		"the key itself":                        {"--user=ada", "--key=" + tokenSecret},
		"key env:TOKEN_TEST_NONE: the variable": {"--user=ada", "--key=env:TOKEN_TEST_NONE"},
		`--room: "a" is given twice`:            {"--user=ada", "--room=a", "--room=a=r"},
		"--ttl: 0s is too short":                {"--user=ada", "--ttl=0s"},
		"--ttl: -1h0m0s is too short":           {"--user=ada", "--ttl=-1h"},
	} {
		out, err := command(t, append([]string{"token"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) || out != "" || strings.Contains(err.Error(), "short-secret") {
			t.Errorf("token %q: %q, %v, want %q", args, out, err, want)
		}
	}
}

func TestATokenThatLivesTooLongIsMadeWithANote(t *testing.T) {
	t.Setenv("TOKEN_TEST_KEY", tokenSecret)
	t.Setenv("REALTIME_JWT_KEY", "env:TOKEN_TEST_KEY")
	for ttl, noted := range map[string]bool{"24h": false, "24h0m1s": true} {
		var out, errOut text
		if err := run(t.Context(), []string{"token", "--user=ada", "--ttl=" + ttl}, &out, &errOut); err != nil {
			t.Fatal(err)
		}
		v, err := auth.New(auth.Config{Keys: []string{"env:TOKEN_TEST_KEY"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(strings.TrimSpace(out.String())); errors.Is(err, auth.ErrToken) != noted || strings.Contains(errOut.String(), "24h0m0s") != noted {
			t.Errorf("--ttl=%s: %v, noted %q", ttl, err, errOut.String())
		}
	}
}
