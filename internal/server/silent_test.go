package server

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// A Redis whose connections stand and that answers nothing is the worst there is: nobody refuses, everybody waits.
func TestInModeRejectASilentRedisIsToldBeforeTheCallersPatienceEnds(t *testing.T) {
	redis := redistest.Start(t)
	r := shared(t, redis, 1, "--degraded=reject")[0]
	s := r.join("strict")
	redis.Pause()
	t.Cleanup(redis.Resume)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // far above the five that a call has without one
	defer cancel()
	if _, err := r.publisher().Publish(ctx, &realtimev1.PublishRequest{Room: "strict", Message: said}); status.Code(err) != codes.Unavailable || ctx.Err() != nil {
		t.Errorf("Publish = %v, want UNAVAILABLE", err)
	}
	s.say(`{"type":"chat","ref":"r","data":1}`)
	if f := s.want("error"); code(f) != "broker_unavailable" {
		t.Errorf("a session is told %s", f.Data)
	}
}
