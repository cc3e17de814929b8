package server

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func TestWithAKeyBackendsNeedItAndRefusalsAreCounted(t *testing.T) {
	t.Setenv("A_KEY", "0123456789abcdef")
	r := StartServer(t, "--grpc-key=env:A_KEY", "--grpc-rate=1")
	say := func(key string) error {
		ctx := t.Context()
		if key != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
		}
		_, err := r.publisher().Publish(ctx, &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}})
		return err
	}
	for _, c := range []struct {
		key  string
		want codes.Code
	}{{"", codes.Unauthenticated}, {"0123456789abcdeF", codes.Unauthenticated}, {"0123456789abcdef", codes.OK}} {
		if err := say(c.key); status.Code(err) != c.want {
			t.Errorf("with the key %q: %v, want %v", c.key, err, c.want)
		}
	}
	limited := 0 // one a second is admitted, however slowly these go
	for range 20 {
		if status.Code(say("0123456789abcdef")) == codes.ResourceExhausted {
			limited++
		}
	}
	_, got := r.scrape()
	for name, want := range map[string]float64{
		"realtime_auth_failures_total credential_missing": 1, "realtime_auth_failures_total credential_unknown": 1,
		"realtime_auth_failures_total scope_missing": 0, "realtime_rate_limited_total publish": float64(limited), "realtime_rate_limited_total frames": 0,
	} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	if limited == 0 {
		t.Error("the rate holds nobody")
	}
	if strings.Contains(r.log.String(), "0123456789abcde") {
		t.Error("a key is in the log")
	}
}
