package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/emptypb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

const (
	oldKey = "0123456789abcdef"
	newKey = "fedcba9876543210"
)

func keys() [][]byte { return [][]byte{[]byte(oldKey), []byte(newKey)} }

// with bears a credential, or several.
func with(ctx context.Context, authorization ...string) context.Context {
	md := metadata.MD{}
	md.Append("authorization", authorization...)
	return metadata.NewOutgoingContext(ctx, md)
}

// methods are all that a server answers.
func methods(s *Server) (all []string) {
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, "/"+service+"/"+m.Name)
		}
	}
	return all
}

func TestEveryMethodHasItsScope(t *testing.T) {
	s := serve(t, Config{Reflection: true}, over(t, &bus{}, gate{}))
	all := methods(s.Server)
	if len(all) < 20 {
		t.Errorf("%d methods, the contract has more", len(all))
	}
	special := map[string]Scope{
		realtimev1.PublisherService_GetHistory_FullMethodName:    ScopeSubscribe,
		realtimev1.PublisherService_DeleteHistory_FullMethodName: ScopeControl,
	}
	usual := map[string]Scope{"Publisher": ScopePublish, "Subscriber": ScopeSubscribe, "Presence": ScopePresence, "Control": ScopeControl}
	for _, m := range all {
		if strings.HasPrefix(m, "/grpc.health.v1.Health/") {
			continue
		}
		got, ok := scopeOf(m)
		want := special[m]
		if want == 0 {
			service, _, _ := strings.Cut(strings.TrimPrefix(m, "/realtime.v1."), "Service/")
			want = usual[service] // 0 for reflection
		}
		if !ok || got != want || want == 0 && !strings.HasPrefix(m, "/grpc.reflection.") {
			t.Errorf("scopeOf(%q) = %v, %v, want %v", m, got, ok, want)
		}
	}
	for _, m := range []string{"", "/", "realtime.v1", "/realtime.v1.HooksService/OnConnect", "/grpc.channelz.v1.Channelz/GetServers"} {
		if got, ok := scopeOf(m); ok {
			t.Errorf("scopeOf(%q) = %v: nobody has thought of it", m, got)
		}
	}
}

func TestWithKeysACallNeedsOne(t *testing.T) {
	for name, c := range map[string]struct {
		authorization []string
		ok            bool
	}{
		"nothing":                {nil, false},
		"an unknown key":         {[]string{"Bearer 0123456789abcdeF"}, false},
		"the beginning of a key": {[]string{"Bearer 0123456789abcde"}, false},
		"more than a key":        {[]string{"Bearer " + oldKey + "0"}, false},
		"no scheme":              {[]string{oldKey}, false},
		"another scheme":         {[]string{"Basic " + oldKey}, false},
		"no key":                 {[]string{"Bearer "}, false},
		"two credentials":        {[]string{"Bearer " + oldKey, "Bearer " + newKey}, false},
		"a key":                  {[]string{"Bearer " + oldKey}, true},
		"the other key":          {[]string{"Bearer " + newKey}, true},
		"a scheme in small":      {[]string{"bearer " + newKey}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Config{Keys: keys(), Reflection: true}, over(t, &bus{}, gate{}))
			ctx := with(within10s(t), c.authorization...)
			want := told{Code: codes.Unauthenticated, Reason: "realtime/CREDENTIAL_INVALID"}
			_, unary := s.pub.Publish(ctx, hello())
			st, err := s.pub.PublishStream(ctx)
			if err == nil {
				_ = st.CloseSend()
				_, err = st.Recv()
			}
			described := stream1(ctx, t, s.conn, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
			if c.ok {
				if unary != nil || err.Error() != "EOF" || status.Code(described) != codes.InvalidArgument { // the empty question is none
					t.Errorf("unary %v, stream %v, reflection %v", unary, err, described)
				}
			} else {
				for what, err := range map[string]error{"unary": unary, "stream": err, "reflection": described} {
					if got, _ := read(t, err); !cmp.Equal(got, want) {
						t.Errorf("%s (-want +got):\n%s", what, cmp.Diff(want, got))
					}
				}
			}
			if _, err := healthpb.NewHealthClient(s.conn).Check(within10s(t), &healthpb.HealthCheckRequest{}); err != nil {
				t.Errorf("health: %v, want it without a credential", err)
			}
			got := s.Stats()
			if refused := got.CredentialMissing + got.CredentialUnknown; (refused == 0) != c.ok || !c.ok && refused != 3 {
				t.Errorf("counted %+v", got)
			}
			for _, r := range s.log.records(t) {
				if r["level"] != "WARN" || strings.Contains(fmt.Sprint(r), "456789") {
					t.Errorf("logged %v", r)
				}
			}
		})
	}
}

func TestACallWithoutACredentialIsRefusedUnread(t *testing.T) {
	s := serve(t, Config{Keys: keys()}, over(t, &bus{}, gate{}))
	req := hello()
	req.Message.Data = strings.Repeat("a", 5<<20) // above what is read
	if _, err := s.pub.Publish(within10s(t), req); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v, want UNAUTHENTICATED", err)
	}
	// The method is not told from one that exists.
	if err := s.conn.Invoke(within10s(t), "/realtime.v1.PublisherService/No", &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("an unknown method: %v, want UNAUTHENTICATED", err)
	}
}

func TestRefusalsAreLoggedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lines{}
		d := newDoorman(&Config{Keys: keys()}, slog.New(slog.NewJSONHandler(l, nil)))
		for _, want := range []int{1, 1, 2} {
			for range 100 {
				if _, err := d.tap(t.Context(), &tap.Info{FullMethodName: "/a/b", Header: metadata.Pairs("authorization", "Bearer hunter2")}); status.Code(err) != codes.Unauthenticated {
					t.Fatalf("tap: %v", err)
				}
			}
			got := l.records(t)
			if len(got) != want || strings.Contains(fmt.Sprint(got), "hunter2") {
				t.Errorf("logged %v, want %d lines without the credential", got, want)
			}
			time.Sleep(logEvery / 2)
		}
		if n := d.unknown.Load(); n != 300 {
			t.Errorf("%d counted, want all", n)
		}
	})
}

func TestEachKeyIsACallerOfItsOwn(t *testing.T) {
	b := &bus{}
	s := serve(t, Config{Keys: keys()}, over(t, b, gate{}))
	for _, k := range []string{oldKey, newKey} {
		req := hello()
		req.IdempotencyKey = "k"
		if _, err := s.pub.Publish(with(t.Context(), "Bearer "+k), req); err != nil {
			t.Fatal(err)
		}
	}
	// The first four bytes of the keys' SHA-256.
	var got []string
	for _, p := range b.published() {
		got = append(got, p.Caller)
	}
	if want := []string{"backend/key/9f9f5111", "backend/key/3465f6e6"}; !cmp.Equal(got, want) {
		t.Errorf("callers %q, want %q", got, want)
	}
}

func TestACallerDoesWhatItsScopesSay(t *testing.T) {
	all := []Scope{ScopePublish, ScopePublishAsUser, ScopeSubscribe, ScopePresence, ScopeControl}
	for _, has := range append(all, 0) {
		t.Run(has.String(), func(t *testing.T) {
			s := serveParts(t, Config{Timeout: 50 * time.Millisecond}, Parts{}, func(d *doorman) { d.local.Scopes = has })
			for _, m := range methods(s.Server) {
				need, ok := scopeOf(m)
				if !ok {
					continue // health
				}
				// An empty request gets no further than its checks.
				err := stream1(within10s(t), t, s.conn, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, m)
				got, _ := read(t, err)
				want := told{Code: codes.PermissionDenied, Reason: "realtime/SCOPE_MISSING", Metadata: map[string]string{"scope": need.String()}}
				if has&need != need && !cmp.Equal(got, want) || has&need == need && got.Code == codes.PermissionDenied {
					t.Errorf("%s: %v", m, err)
				}
			}
			if s.Stats().ScopeMissing == 0 {
				t.Error("nothing was counted")
			}
		})
	}
}

func TestAFromThatIsNotTheCallersTakesItsScope(t *testing.T) {
	for name, c := range map[string]struct {
		scopes Scope
		from   string
		ok     bool
	}{
		"nobody":                        {ScopePublish, "", true},
		"its own name":                  {ScopePublish, "shop", true},
		"a user":                        {ScopePublish, "u1", false},
		"a user, with the scope for it": {ScopePublish | ScopePublishAsUser, "u1", true},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bus{}
			s := serveParts(t, Config{}, Parts{Publisher: over(t, b, gate{})}, func(d *doorman) { d.local.Scopes, d.local.Name = c.scopes, "shop" })
			content := &realtimev1.MessageContent{From: c.from}
			want := told{Code: codes.PermissionDenied, Reason: "realtime/SCOPE_MISSING", Metadata: map[string]string{"scope": "publish:as-user"}}
			_, one := s.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "a", Message: content})
			_, all := s.pub.BroadcastAll(t.Context(), &realtimev1.BroadcastAllRequest{Message: content})
			_, many := s.pub.Notify(t.Context(), &realtimev1.NotifyRequest{UserIds: []string{"a"}, Message: content})
			for _, err := range []error{one, all, many} {
				if got, _ := read(t, err); c.ok && err != nil || !c.ok && !cmp.Equal(got, want) {
					t.Errorf("%v", err)
				}
			}
			batch, err := s.pub.PublishBatch(t.Context(), &realtimev1.PublishBatchRequest{Items: []*realtimev1.PublishItem{{Room: "a", Message: content}}})
			if err != nil {
				t.Fatal(err)
			}
			if e := batch.GetResults()[0].GetError(); c.ok != (e == nil) || e != nil && (e.GetReason() != realtimev1.ErrorReason_ERROR_REASON_SCOPE_MISSING || !strings.Contains(e.GetMessage(), "publish:as-user")) {
				t.Errorf("batch: %v", e)
			}
			if n := len(b.published()); c.ok != (n == 4) || !c.ok && n != 0 {
				t.Errorf("%d published", n)
			}
		})
	}
}

func TestACallerPublishesAtItsRate(t *testing.T) {
	items := func(n int) (all []*realtimev1.PublishItem) {
		for i := range n {
			all = append(all, &realtimev1.PublishItem{Room: fmt.Sprint("r", i), Message: &realtimev1.MessageContent{}})
		}
		return all
	}
	names := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint("r", i))
		}
		return all
	}
	const rate = 100 // and two keys, of which only one is used up
	for name, spend := range map[string]func(context.Context, realtimev1.PublisherServiceClient, int) error{
		"batch": func(ctx context.Context, p realtimev1.PublisherServiceClient, n int) error {
			_, err := p.PublishBatch(ctx, &realtimev1.PublishBatchRequest{Items: items(n)})
			return err
		},
		"broadcast": func(ctx context.Context, p realtimev1.PublisherServiceClient, n int) error {
			_, err := p.Broadcast(ctx, &realtimev1.BroadcastRequest{Rooms: names(n), Message: &realtimev1.MessageContent{}})
			return err
		},
		"notify": func(ctx context.Context, p realtimev1.PublisherServiceClient, n int) error {
			_, err := p.Notify(ctx, &realtimev1.NotifyRequest{UserIds: names(n), Message: &realtimev1.MessageContent{}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bus{}
			s := serve(t, Config{Keys: keys(), Rate: rate}, over(t, b, gate{}))
			ctx, other := with(t.Context(), "Bearer "+oldKey), with(t.Context(), "Bearer "+newKey)
			if err := spend(ctx, s.pub, 10*rate); err != nil { // more than the rate: on credit
				t.Fatal(err)
			}
			_, one := s.pub.Publish(ctx, hello())
			_, all := s.pub.BroadcastAll(ctx, &realtimev1.BroadcastAllRequest{Message: &realtimev1.MessageContent{}})
			for what, err := range map[string]error{"publish": one, "all": all, "many": spend(ctx, s.pub, 2)} {
				got, _ := read(t, err)
				if got.Code != codes.ResourceExhausted || got.Reason != "realtime/RATE_LIMITED" || got.Retry < 5*time.Second || got.Retry > 10*time.Second {
					t.Errorf("%s: %+v, want RATE_LIMITED for the seconds that the credit takes", what, got)
				}
			}
			if n := len(b.published()); n != 10*rate {
				t.Errorf("%d published, want the %d that were admitted", n, 10*rate)
			}
			if err := spend(other, s.pub, 1); err != nil {
				t.Errorf("another caller: %v", err)
			}
			if got := s.Stats().RateLimited; got != 3 {
				t.Errorf("%d counted, want 3", got)
			}
		})
	}
}
