package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
)

var servicesSecret = []byte("a secret of services: 0123456789abcdef")

// ofServices judges tokens for the audience backends.
func ofServices(t *testing.T) func(string) (auth.Service, error) {
	t.Helper()
	v, err := auth.New(auth.Config{Secret: servicesSecret, Audience: "backends"})
	if err != nil {
		t.Fatal(err)
	}
	return v.VerifyService
}

// token is one for an hour, unless change says otherwise.
func token(t *testing.T, change func(*auth.Claims)) string {
	t.Helper()
	c := auth.Claims{User: "shop", Audience: "backends", Scope: "publish", Expires: time.Now().Add(time.Hour)}
	change(&c)
	signed, err := auth.SignWith(servicesSecret, c)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestAServicesTokenIsACallerWithItsScopes(t *testing.T) {
	b := &bus{}
	s := serve(t, Config{Verify: ofServices(t), Keys: keys(), Reflection: true}, over(t, b, gate{}))
	denied := func(scope string) told {
		return told{Code: codes.PermissionDenied, Reason: "realtime/SCOPE_MISSING", Metadata: map[string]string{"scope": scope}}
	}
	for name, c := range map[string]struct {
		scope, from string
		want        told
	}{
		"to publish":                      {"publish", "", told{}},
		"to publish, among others'":       {"openid publish email", "", told{}},
		"to publish in its own name":      {"publish", "shop", told{}},
		"to publish in another's name":    {"publish", "ada", denied("publish:as-user")},
		"to publish as anybody":           {"publish publish:as-user", "ada", told{}},
		"to subscribe":                    {"subscribe", "", denied("publish")},
		"to publish as anybody and no":    {"publish:as-user", "ada", denied("publish")},
		"for what there is not":           {"PUBLISH publisher *", "", denied("publish")},
		"to see who is there and control": {"presence control", "", denied("publish")},
	} {
		t.Run(name, func(t *testing.T) {
			req := hello()
			req.Message.From, req.IdempotencyKey = c.from, "k"
			_, err := s.pub.Publish(with(t.Context(), "Bearer "+token(t, func(a *auth.Claims) { a.Scope = c.scope })), req)
			if got, _ := read(t, err); !cmp.Equal(got, c.want) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(c.want, got))
			}
		})
	}
	if got := b.published(); len(got) == 0 || got[0].Caller != "backend/service/shop" {
		t.Errorf("published %+v, want it by the service's name", got)
	}
	if _, err := s.pub.Publish(with(t.Context(), "Bearer "+oldKey), hello()); err != nil {
		t.Errorf("a key beside tokens: %v", err)
	}
}

func TestNoOtherTokenIsACaller(t *testing.T) {
	b := &bus{}
	s := serve(t, Config{Verify: ofServices(t)}, over(t, b, gate{}))
	user := token(t, func(c *auth.Claims) { c.Scope, c.Rooms = "", map[string]string{"*": "rwph"} })
	good := token(t, func(*auth.Claims) {})
	for name, authorization := range map[string]string{
		"none":            "",
		"a user's":        "Bearer " + user,
		"a user's, bare":  "Bearer " + token(t, func(c *auth.Claims) { c.Scope = "" }),
		"for others":      "Bearer " + token(t, func(c *auth.Claims) { c.Audience = "users" }),
		"an old one":      "Bearer " + token(t, func(c *auth.Claims) { c.Expires = time.Now().Add(-time.Minute) }),
		"another's":       "Bearer " + good[:len(good)-4] + "AAAA",
		"no signature":    "Bearer " + good[:strings.LastIndexByte(good, '.')+1],
		"not signed":      "Bearer eyJhbGciOiJub25lIn0" + good[strings.IndexByte(good, '.'):],
		"too long":        "Bearer " + strings.Repeat("a", 4<<10) + "." + strings.Repeat("a", 4<<10) + ".",
		"without a shape": "Bearer hunter2",
	} {
		var authorizations []string
		if authorization != "" {
			authorizations = []string{authorization}
		}
		_, err := s.pub.Publish(with(within10s(t), authorizations...), hello())
		if got, _ := read(t, err); !cmp.Equal(got, told{Code: codes.Unauthenticated, Reason: "realtime/CREDENTIAL_INVALID"}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := s.Stats(); got.CredentialMissing != 1 || got.CredentialExpired != 1 || got.CredentialUnknown != 8 || len(b.published()) != 0 {
		t.Errorf("counted %+v, published %v", got, b.published())
	}
	for _, r := range s.log.records(t) {
		if text := fmt.Sprint(r); strings.Contains(text, user[:40]) || strings.Contains(text, "hunter2") {
			t.Errorf("logged %v", r)
		}
	}
}

// judged is a doorman for tokens of "n", which is good until end.
func judged(rate int, end time.Time) (d *doorman, times *int) {
	times = new(int)
	return newDoorman(&Config{Rate: rate, Verify: func(token string) (auth.Service, error) {
		*times++
		if time.Now().After(end) {
			return auth.Service{}, auth.ErrExpired
		}
		return auth.Service{Name: strings.Split(token, ".")[0], Scopes: []string{"publish"}, Expires: end}, nil
	}}, slog.New(slog.DiscardHandler)), times
}

func (d *doorman) knock(ctx context.Context, token string) (*Caller, error) {
	ctx, err := d.tap(ctx, &tap.Info{FullMethodName: "/a/b", Header: metadata.Pairs("authorization", "Bearer "+token)})
	if err != nil {
		return nil, err
	}
	return callerOf(ctx), nil
}

func TestATokenIsJudgedOnceAMinuteAndNotBeyondItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, times := judged(0, time.Now().Add(90*time.Second))
		for i, want := range []int{1, 1, 2, 2} { // at 0, 30, 60 and 90 s
			if i > 0 {
				time.Sleep(30 * time.Second)
			}
			who, err := d.knock(t.Context(), "shop..")
			if err != nil || who.Identity != "service/shop" || *times != want {
				t.Errorf("after %d s: %v, %v, judged %d times, want %d", 30*i, who, err, *times, want)
			}
		}
		time.Sleep(auth.Leeway)
		if _, err := d.knock(t.Context(), "shop.."); status.Code(err) != codes.Unauthenticated {
			t.Errorf("at its end: %v", err)
		}
	})
}

func TestARateOutlivesTheTokensOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := judged(10, time.Now().Add(time.Hour))
		take := func(token string, n int) error {
			who, err := d.knock(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			return who.take(n)
		}
		if err := take("shop.1.", 10); err != nil {
			t.Error(err)
		}
		if err := take("shop.2.", 1); err == nil {
			t.Error("a new token has a rate of its own")
		}
		if err := take("mail.1.", 10); err != nil {
			t.Errorf("another service: %v", err)
		}
	})
}

func TestAStreamEndsWithTheTokenOfItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t.Context(), Config{}, Parts{}, slog.New(slog.DiscardHandler))
		defer s.Shutdown(t.Context())
		begin := time.Now()
		ctx := context.WithValue(t.Context(), callerKey{}, &Caller{Scopes: AllScopes, expires: begin.Add(time.Minute)})
		err := s.chain.stream(nil, pretended{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: realtimev1.SubscriberService_Subscribe_FullMethodName},
			func(_ any, st grpc.ServerStream) error {
				<-st.Context().Done()
				return st.Context().Err()
			})
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("after %v, want a minute", took)
		}
		if got, _ := read(t, err); got.Code != codes.Unauthenticated || got.Reason != "realtime/CREDENTIAL_INVALID" {
			t.Errorf("told %+v", got)
		}
	})
}

// What gRPC keeps of a call that the tap refuses is a timer until the call's deadline.
func TestWhatRefusedCallsLeaveBehindIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorman(&Config{Keys: keys()}, slog.New(slog.DiscardHandler))
		knock := func(within time.Duration) (left bool, end func()) {
			ctx, end := t.Context(), func() {}
			if within > 0 {
				ctx, end = context.WithTimeout(ctx, within)
			}
			who, err := d.knock(ctx, "hunter2")
			if (err == nil) != (who == nobody) {
				t.Fatalf("%v, %v", who, err)
			}
			return err != nil, end
		}
		if left, end := knock(near + time.Second); left {
			t.Error("a far deadline is left behind")
		} else {
			end()
		}
		for i := range quickly + 1 {
			left, end := knock(near)
			if left != (i < quickly) {
				t.Fatalf("call %d: left behind: %v", i, left)
			}
			end()
		}
		for range 10 * quickly { // nothing is kept of these
			if left, _ := knock(0); !left {
				t.Fatal("a call without a deadline is let in")
			}
		}
		synctest.Wait()
		if n := d.away.inside.Load(); n != 0 {
			t.Errorf("%d calls are inside, all have ended", n)
		}
	})
}

func TestACallOfNobodyIsRefusedWhateverItsDeadline(t *testing.T) {
	s := serve(t, Config{Keys: keys()}, over(t, &bus{}, gate{}))
	far, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
	defer cancel()
	want := told{Code: codes.Unauthenticated, Reason: "realtime/CREDENTIAL_INVALID"}
	for range 2 * maxInside { // one after the other: each is over before the next
		_, err := s.pub.Publish(with(far, "Bearer hunter2"), hello())
		if got, _ := read(t, err); !cmp.Equal(got, want) {
			t.Fatalf("(-want +got):\n%s", cmp.Diff(want, got))
		}
		until(t, "its end is seen", func() bool { return s.door.away.inside.Load() == 0 })
	}
	err := stream1(with(far, "Bearer hunter2"), t, s.conn, &grpc.StreamDesc{ServerStreams: true}, realtimev1.SubscriberService_Subscribe_FullMethodName)
	if got, _ := read(t, err); !cmp.Equal(got, want) {
		t.Errorf("a stream (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func TestManyCallsOfNobodyThatDoNotEndCostTheirConnection(t *testing.T) {
	s := serve(t, Config{Keys: keys()}, over(t, &bus{}, gate{}))
	far, cancel := context.WithTimeout(with(t.Context(), "Bearer hunter2"), 1000*time.Hour)
	defer cancel()
	other, pub := dial(t, s.addr)
	other.Connect()
	var open []grpc.ClientStream
	for range maxInside { // they never send what they were to
		st, err := s.conn.NewStream(far, &grpc.StreamDesc{ClientStreams: true}, realtimev1.PublisherService_Publish_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, st)
	}
	until(t, "they are inside", func() bool { return s.door.away.inside.Load() == maxInside })
	st, err := s.conn.NewStream(far, &grpc.StreamDesc{ClientStreams: true}, realtimev1.PublisherService_Publish_FullMethodName)
	if err == nil {
		open = append(open, st)
	}
	for i, st := range open {
		if err := st.RecvMsg(&realtimev1.PublishResponse{}); status.Code(err) != codes.Unavailable {
			t.Errorf("call %d: %v, want its connection to be gone", i, err)
		}
	}
	until(t, "its end is seen", func() bool { return s.door.away.inside.Load() == 0 })
	if _, err := pub.Publish(with(within10s(t), "Bearer "+oldKey), hello()); err != nil {
		t.Errorf("another connection: %v", err)
	}
}

func TestConnectionsAboveTheMostAreClosed(t *testing.T) {
	s := serve(t, Config{Connections: 2}, over(t, &bus{}, gate{}))
	var held []net.Conn
	for range 2 {
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		held = append(held, nc)
	}
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	pub := realtimev1.NewPublisherServiceClient(conn)
	if _, err := pub.Publish(within10s(t), hello()); status.Code(err) != codes.Unavailable || s.Stats().ConnectionsRefused == 0 {
		t.Errorf("a third: %v, counted %+v", err, s.Stats())
	}
	_ = held[0].Close()
	if _, err := pub.Publish(within10s(t), hello(), grpc.WaitForReady(true)); err != nil {
		t.Errorf("when one has left: %v", err)
	}
}

func TestWhoPublishesAsAnotherIsTold(t *testing.T) {
	s := serve(t, Config{Keys: keys()}, over(t, &bus{}, gate{}))
	publish := func(from string) {
		req := hello()
		req.Message.From = from
		if _, err := s.pub.Publish(with(t.Context(), "Bearer "+oldKey), req); err != nil {
			t.Fatal(err)
		}
	}
	publish("")
	if got := s.log.records(t); got != nil {
		t.Errorf("logged %v for a message of nobody", got)
	}
	for range 3 {
		publish("ada")
	}
	got := s.log.records(t)
	if len(got) == 0 || got[0]["msg"] != "published as another; others within a second are counted" || got[0]["caller"] != "key/9f9f5111" || got[0]["from"] != "ada" || got[0]["level"] != "INFO" {
		t.Errorf("logged %v", got)
	}
}

func TestAMessageThatIsTooLargeUnpackedIsRefusedWhateverItsSizePacked(t *testing.T) {
	b := &bus{}
	s := serve(t, Config{}, over(t, b, gate{}))
	req := hello()
	req.Message.Data = `"` + strings.Repeat("a", maxRequestBytes) + `"` // a few KiB when packed
	if _, err := s.pub.Publish(within10s(t), req, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted || len(b.published()) != 0 {
		t.Errorf("%v, want RESOURCE_EXHAUSTED", err)
	}
	if _, err := s.pub.Publish(within10s(t), hello(), grpc.UseCompressor(gzip.Name)); err != nil {
		t.Errorf("a small one: %v", err)
	}
}
