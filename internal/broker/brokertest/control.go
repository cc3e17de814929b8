package brokertest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/broker"
)

var control = []contract{
	{"a question reaches the asking node too, byte for byte", askSelf},
	{"a node that does not answer in time is named", askUnanswered},
	{"a question ends after two seconds", askBound},
	{"many questions at once get their own answers", askMany},
	{"a revocation is in force until it is taken back, and each change is a new version", revoke},
	{"a revocation expires", revocationExpires},
}

// echo answers with the node's name, the kind and the body.
func echo(name string) func(context.Context, broker.Request) broker.Reply {
	return func(_ context.Context, r broker.Request) broker.Reply {
		return broker.Reply{Body: fmt.Appendf(nil, "%s|%s|%s", name, r.Kind, r.Body)}
	}
}

// deaf answers only when it is too late.
func deaf(ctx context.Context, _ broker.Request) broker.Reply {
	<-ctx.Done()
	return broker.Reply{Body: []byte("too late")}
}

func askSelf(t testing.TB, f Factory) {
	n := prepare(t, f, 1, Settings{})[0]
	n.Serve(echo("one"))
	n.run()
	for _, body := range [][]byte{nil, []byte("{}"), {0, 1, 0xff, '|', '\n', '"'}, bytes.Repeat([]byte{7}, 100_000)} {
		replies, unreached, err := n.Ask(t.Context(), broker.Request{Kind: "rooms.list", Body: body})
		if err != nil || len(unreached) > 0 || len(replies) != 1 {
			t.Fatalf("Ask with %d bytes = %d replies, unreached %q, %v", len(body), len(replies), unreached, err)
		}
		if want := fmt.Appendf(nil, "one|rooms.list|%s", body); replies[0].Node != n.Name || !bytes.Equal(replies[0].Body, want) {
			t.Errorf("Ask with %d bytes: node %q answered %d bytes, want %q with %d", len(body), replies[0].Node, len(replies[0].Body), n.Name, len(want))
		}
	}
}

func askUnanswered(t testing.TB, f Factory) {
	n := prepare(t, f, 1, Settings{})[0]
	n.Serve(deaf)
	n.run()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	replies, unreached, err := n.Ask(ctx, broker.Request{Kind: "k"})
	if err != nil || len(replies) > 0 || !slices.Equal(unreached, []string{n.Name}) {
		t.Errorf("Ask = %v, unreached %q, %v; want %q unreached", replies, unreached, err, n.Name)
	}
}

func askBound(t testing.TB, f Factory) {
	n := prepare(t, f, 1, Settings{})[0]
	n.Serve(deaf)
	n.run()
	begin := time.Now()
	replies, unreached, err := n.Ask(t.Context(), broker.Request{Kind: "k"})
	if took := time.Since(begin); took < time.Second || took > 5*time.Second {
		t.Errorf("Ask took %v, want 2 s", took)
	}
	if err != nil || len(replies) > 0 || !slices.Equal(unreached, []string{n.Name}) {
		t.Errorf("Ask = %v, unreached %q, %v; want %q unreached", replies, unreached, err, n.Name)
	}
}

func askMany(t testing.TB, f Factory) {
	n := prepare(t, f, 1, Settings{})[0]
	n.Serve(echo("one"))
	n.run()
	parallel(16, func(i int) {
		want := fmt.Sprintf("one|k|%d", i)
		replies, _, err := n.Ask(t.Context(), broker.Request{Kind: "k", Body: fmt.Append(nil, i)})
		if err != nil || len(replies) != 1 || string(replies[0].Body) != want {
			t.Errorf("Ask = %q, %v, want %q", replies, err, want)
		}
	})
}

// inForce are the revocations in force, in an order of their own.
func (n *node) inForce() ([]broker.Revocation, uint64) {
	n.t.Helper()
	rs, version, err := n.Revocations(n.t.Context())
	if err != nil {
		n.t.Fatalf("Revocations = %v, want nil", err)
	}
	slices.SortFunc(rs, func(a, b broker.Revocation) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.TokenID, b.TokenID))
	})
	return rs, version
}

func (n *node) revoke(r broker.Revocation) {
	n.t.Helper()
	if err := n.Revoke(n.t.Context(), r); err != nil {
		n.t.Fatalf("Revoke(%+v) = %v, want nil", r, err)
	}
}

func revoke(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	now := time.Now().Truncate(time.Second)
	all := broker.Revocation{All: true, Before: now.Add(-time.Minute), Expires: now.Add(time.Hour)}
	token := broker.Revocation{TokenID: "bob", Before: now, Expires: now.Add(2 * time.Hour)}
	user := broker.Revocation{User: "bob", Before: now.Add(-time.Hour), Expires: now.Add(3 * time.Hour)}
	odd := broker.Revocation{User: "{zoë} |:%", Before: now, Expires: now.Add(time.Hour)}
	longer := user
	longer.Before, longer.Expires = now, now.Add(4*time.Hour)
	_, version := n.inForce()
	for _, step := range []struct {
		what   string
		change broker.Revocation
		want   []broker.Revocation
	}{
		{"the first", user, []broker.Revocation{user}},
		{"a token of the same name", token, []broker.Revocation{token, user}},
		{"everyone", all, []broker.Revocation{all, token, user}},
		{"an odd name", odd, []broker.Revocation{all, token, user, odd}},
		{"the first one again, later", longer, []broker.Revocation{all, token, longer, odd}},
		{"the user taken back", broker.Revocation{User: "bob"}, []broker.Revocation{all, token, odd}},
		{"everyone taken back", broker.Revocation{All: true}, []broker.Revocation{token, odd}},
	} {
		n.revoke(step.change)
		got, v := n.inForce()
		if diff := gocmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
		if v == version {
			t.Errorf("%s: the version is still %d", step.what, v)
		}
		version = v
	}
	if _, v := n.inForce(); v != version {
		t.Errorf("the version went from %d to %d without a change", version, v)
	}
}

func revocationExpires(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	now := time.Now().Truncate(time.Second)
	stays := broker.Revocation{User: "bob", Before: now, Expires: now.Add(time.Hour)}
	n.revoke(stays)
	n.revoke(broker.Revocation{TokenID: "t1", Before: now, Expires: time.Now().Add(f.ShortestTTL)})
	if got, _ := n.inForce(); len(got) == 0 {
		t.Fatal("no revocation is in force")
	}
	n.until("the short one has expired", func() bool {
		got, _ := n.inForce()
		return len(got) == 1
	})
	if got, _ := n.inForce(); !gocmp.Equal(got, []broker.Revocation{stays}) {
		t.Errorf("in force: %+v, want %+v", got, stays)
	}
}
