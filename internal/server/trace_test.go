package server

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/telemetry/telemetrytest"
)

const (
	callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callersSpan  = "00f067aa0ba902b7"
)

// calling is the context of a caller that traces, and has sampled or not.
func calling(ctx context.Context, sampled int) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", fmt.Sprintf("00-%s-%s-%02d", callersTrace, callersSpan, sampled))
}

func TestACallIsFollowedFromItsCallerToTheFanOut(t *testing.T) {
	c := telemetrytest.Start(t)
	t.Setenv("OTEL_SERVICE_NAME", "chat-eu")
	r := StartServer(t, "--drain-window=0s", "--drain-timeout=10s", "--log-level=debug")
	s := r.join("general")
	if _, err := healthpb.NewHealthClient(r.dial()).Check(calling(t.Context(), 1), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	pub := r.publisher()
	publish := func(ctx context.Context, data string) string {
		resp, err := pub.Publish(ctx, &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: data}})
		if err != nil {
			t.Fatal(err)
		}
		s.want("chat")
		return resp.GetReceipt().GetId()
	}
	id := publish(calling(t.Context(), 1), `"not for the operator"`)
	publish(calling(t.Context(), 0), `"nor this"`)
	if _, err := pub.Publish(calling(t.Context(), 1), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: `{"bad`}}); err == nil {
		t.Fatal("accepted")
	}
	if err := s.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":"nor what a session says"}`)); err != nil {
		t.Fatal(err)
	}
	s.want("chat")
	_ = s.ws.CloseNow()
	if _, err := r.end(); err != nil { // it flushes
		t.Fatal(err)
	}

	calls, publishes, fanOuts := c.Spans("realtime.v1.PublisherService/Publish"), c.Spans("publish"), c.Spans("fan-out")
	if len(calls) != 2 || len(publishes) != 3 || len(fanOuts) != 2 {
		t.Fatalf("%d calls, %d publishes, %d fan-outs, want 2 that the caller sampled, these and the session's, the accepted ones", len(calls), len(publishes), len(fanOuts))
	}
	if publishes[0].Parent == calls[1].SpanID { // a call's span ends behind its answer: the next may overtake it
		slices.Reverse(calls)
	}
	call, p, f := calls[0], publishes[0], fanOuts[0]
	if call.TraceID != callersTrace || call.Parent != callersSpan || call.Failed {
		t.Errorf("the call's span %+v, want a child of the caller's", call)
	}
	if p.TraceID != callersTrace || p.Parent != call.SpanID || p.Attributes["messaging.message.id"] != id || p.Attributes["messaging.destination.name"] != "general" {
		t.Errorf("the publish's span %+v, want a child of the call's with id %s", p, id)
	}
	if f.TraceID != callersTrace || f.Parent != p.SpanID || f.Attributes["messaging.message.id"] != id {
		t.Errorf("the fan-out's span %+v, want a child of the publish's", f)
	}
	if refused := publishes[1]; !refused.Failed || refused.Parent != calls[1].SpanID {
		t.Errorf("the refused publish's span %+v, want a failed child of its call's", refused)
	}
	session, reached := publishes[2], fanOuts[1]
	if session.Parent != "" || session.TraceID == callersTrace || session.Attributes["realtime.origin"] != "session" || reached.Parent != session.SpanID {
		t.Errorf("the session's spans %+v and %+v, want a root and its child", session, reached)
	}
	if got := c.Spans("grpc.health.v1.Health/Check"); len(got) != 0 {
		t.Errorf("health checks are traced: %+v", got)
	}
	if got := p.Resource; got["service.name"] != "chat-eu" || got["service.instance.id"] != r.node.Name() || got["service.version"] != Version() {
		t.Errorf("resource %v, want the operator's name, node %s and version %s", got, r.node.Name(), Version())
	}
	if c.Metric("realtime_messages_sent") == nil || c.Metric("realtime_connections_total") == nil {
		t.Error("metrics are not pushed")
	}
	for _, secret := range []string{"not for the operator", "nor this", "nor what a session says"} {
		if strings.Contains(c.Raw(), secret) {
			t.Errorf("what was said is pushed: %s", secret)
		}
	}
}

func TestATracedCallIsAnExemplarAndALogLine(t *testing.T) {
	telemetrytest.Start(t)
	r := StartServer(t, "--drain-window=0s")
	s := r.join("general")
	if _, err := r.publisher().Publish(calling(t.Context(), 1), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}}); err != nil {
		t.Fatal(err)
	}
	s.want("chat")
	for _, name := range []string{"realtime_publish_duration_seconds", "realtime_delivery_latency_seconds"} {
		eventually(t, name+" has an exemplar", func() bool {
			_, _, body := fetch(t, r.http+"/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
			for line := range strings.Lines(body) {
				if strings.HasPrefix(line, name+"_bucket") && strings.Contains(line, `trace_id="`+callersTrace+`"`) {
					return true
				}
			}
			return false
		})
	}
}

func TestADrainThatTakesAllItsTimeIsToldNonetheless(t *testing.T) {
	c := telemetrytest.Start(t)
	r := balanced(t, "--drain-delay=0s", "--drain-window=100ms", "--drain-timeout=1s")
	r.dead("general") // it does not answer the close: the drain ends with its time
	if _, err := r.end(); err != nil {
		t.Fatal(err)
	}
	if c.Metric("realtime_draining") == nil {
		t.Error("the last metrics are not pushed")
	}
	if got := r.log.find("WARN", ""); got != nil {
		t.Errorf("logged %q", got)
	}
}

func TestACollectorThatIsSilentDoesNotHoldUpTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	const budget = time.Second
	r := balanced(t, "--drain-delay=0s", "--drain-window=100ms", fmt.Sprintf("--drain-timeout=%v", budget))
	r.dead("general")
	took, err := r.end()
	if err != nil || took > budget+2*time.Second {
		t.Errorf("Run = %v after %v, want it within its budget of %v", err, took, budget)
	}
	if got := r.log.find("WARN", "telemetry not flushed"); len(got) != 1 {
		t.Errorf("told %d times: %q", len(got), got)
	}
}
