package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/redis/redistest"
	"github.com/slack5/realtime/internal/telemetry/telemetrytest"
)

// shared starts nodes on one Redis.
func shared(t *testing.T, redis *redistest.Server, n int, args ...string) []*Running {
	t.Helper()
	return sharedAt(t, "redis://"+redis.Addr, n, args...)
}

func sharedAt(t *testing.T, url string, n int, args ...string) []*Running {
	t.Helper()
	t.Setenv("NODES_SECRET", contractSecret)
	nodes := make([]*Running, n)
	for i := range nodes {
		nodes[i] = StartServer(t, append([]string{"--jwt-key=env:NODES_SECRET", "--redis-url=" + url, "--drain-window=0s"}, args...)...)
	}
	return nodes
}

// both runs a test on a node that is alone, and on one with Redis.
func both(t *testing.T, test func(t *testing.T, args ...string)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { test(t) })
	t.Run("redis", func(t *testing.T) { test(t, "--redis-url="+redistest.Start(t).Addr) })
}

// userToken is a user's token for nodes with --jwt-key=env:NODES_SECRET.
func userToken(t testing.TB, user string) string {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	token, err := auth.SignWith([]byte(contractSecret), auth.Claims{User: user, IssuedAt: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (s *guest) say(frame string) {
	s.t.Helper()
	if err := s.ws.Write(s.t.Context(), websocket.MessageText, []byte(frame)); err != nil {
		s.t.Fatal(err)
	}
}

// publish publishes data to the room "general".
func (r *Running) publish(data string) (*realtimev1.Receipt, error) {
	r.t.Helper()
	resp, err := r.publisher().Publish(r.t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: data}})
	return resp.GetReceipt(), err
}

// wants reads on until messages with these data have come, in this order and with no other between them.
func (s *guest) wants(data ...string) (last told) {
	s.t.Helper()
	for _, want := range data {
		if last = s.want("chat"); string(last.Data) != want {
			s.t.Fatalf("got %s, want %s", last.Data, want)
		}
	}
	return last
}

func numbers(from, to int) (texts []string) {
	for ; from < to; from++ {
		texts = append(texts, fmt.Sprint(from))
	}
	return texts
}

func TestNodesShareRoomsHistoryAndWhoIsThere(t *testing.T) {
	t.Run("one server", func(t *testing.T) { shareAll(t, "redis://"+redistest.Start(t).Addr) })
	t.Run("behind a Sentinel", func(t *testing.T) {
		k := redistest.StartSentinel(t)
		shareAll(t, "redis://"+k.Addr+"?master_set="+k.Name)
	})
	t.Run("a Cluster", func(t *testing.T) { shareAll(t, redistest.StartCluster(t).Primaries[1].Addr) }) // which tells of the others
}

func shareAll(t *testing.T, url string) {
	nodes := sharedAt(t, url, 2)
	a, b := nodes[0], nodes[1]
	ann, ben := a.join("general?token="+userToken(t, "ann")), b.join("general?token="+userToken(t, "ben"))
	for i := range 200 { // both sides of the bus, by turns
		if _, err := nodes[i%2].publish(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	ann.wants(numbers(0, 200)...)
	last := ben.wants(numbers(0, 200)...)
	ann.say(`{"type":"chat","data":"from a session"}`)
	ben.wants(`"from a session"`)
	ann.wants(`"from a session"`) // so her node has it

	// ben comes back at the other node, and has missed nothing
	_ = ben.ws.CloseNow()
	again := a.join("general?last_id=" + last.ID + "&token=" + userToken(t, "ben"))
	if again.joined["recovered"] != true || again.joined["replayed"] != 1.0 {
		t.Errorf("the resume at the other node: %v", again.joined)
	}

	carl := b.join("general?token=" + userToken(t, "carl"))
	carl.say(`{"type":"presence","data":{"status":"away"}}`)
	// of a room without members a node asks Redis
	elsewhere := realtimev1.NewPresenceServiceClient(a.dial())
	b.join("quiet?token=" + userToken(t, "dora"))
	eventually(t, "a node knows who is in rooms of others alone", func() bool {
		resp, err := elsewhere.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "quiet"})
		return err == nil && resp.GetUserCount() == 1 && resp.GetUsers()[0].GetUserId() == "dora"
	})
	if _, got := a.scrape(); got["realtime_presence_cache_total miss"] < 1 {
		t.Errorf("it has read %v times", got["realtime_presence_cache_total miss"])
	}
	for name, r := range map[string]*Running{"the first": a, "the second": b} {
		who := realtimev1.NewPresenceServiceClient(r.dial())
		eventually(t, name+" node knows who is where", func() bool {
			resp, err := who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "general"})
			got := ""
			for _, m := range resp.GetUsers() {
				got += m.GetUserId() + " " + strings.TrimPrefix(m.GetStatus().String(), "PRESENCE_STATUS_") + ", "
			}
			return err == nil && got == "ann ONLINE, ben ONLINE, carl AWAY, "
		})
		rooms, err := who.ListRooms(t.Context(), &realtimev1.ListRoomsRequest{})
		if err != nil || len(rooms.GetRooms()) != 2 || rooms.GetRooms()[0].GetRoom() != "general" || rooms.GetRooms()[1].GetRoom() != "quiet" {
			t.Errorf("%s node's rooms: %v, %v", name, rooms, err)
		}
		page, err := r.publisher().GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "general", PageSize: 1000})
		if err != nil || len(page.GetMessages()) != 201 {
			t.Errorf("%s node's history: %d messages, %v", name, len(page.GetMessages()), err)
		}
	}
}

func TestWhoReconnectsFromANodeThatDrainsHasNeverLeft(t *testing.T) {
	nodes := shared(t, redistest.Start(t), 2)
	a, b := nodes[0], nodes[1]
	ben := b.join("general?token=" + userToken(t, "ben"))
	ann := a.join("general?token=" + userToken(t, "ann"))
	for f := ben.want("presence"); !strings.Contains(string(f.Data), `"ann"`); f = ben.want("presence") {
	}
	a.stop()
	if code := ann.closed(); code != 1012 {
		t.Errorf("closed with %d", code)
	}
	b.join("general?token=" + userToken(t, "ann"))
	if _, err := a.wait(time.Now()); err != nil {
		t.Error(err)
	}
	if got := a.log.find("WARN", ""); got != nil {
		t.Errorf("the end logs %q", got)
	}
	if _, err := b.publish(`"mark"`); err != nil {
		t.Fatal(err)
	}
	for {
		f, _ := ben.next()
		if f.Type == "presence" {
			t.Errorf("ben is told %s, want nothing", f.Data)
		}
		if f.Type == "chat" {
			return
		}
	}
}

func TestWhileRedisIsAwayNodesServeTheirOwnAndThenEveryoneHasEverything(t *testing.T) {
	redis := redistest.Start(t)
	nodes := shared(t, redis, 2)
	a, b := nodes[0], nodes[1]
	ann, ben := a.join("general"), b.join("general")
	send := func(r *Running, data string, degraded bool) {
		t.Helper()
		receipt, err := r.publish(data)
		if err != nil || receipt.GetDegraded() != degraded {
			t.Fatalf("publish %s: %v, %v, want degraded: %t", data, receipt, err, degraded)
		}
	}
	send(a, "0", false)
	ann.wants("0")
	ben.wants("0")

	redis.Kill()
	send(a, "1", true)
	send(b, "2", true)
	send(a, "3", true)
	ann.want("degraded")
	ann.wants("1", "3")
	ben.want("degraded")
	ben.wants("2")
	ann.say(`{"type":"chat","ref":"r","data":4}`)
	if f := ann.want("ack"); !strings.Contains(string(f.Data), `"degraded":true`) {
		t.Errorf("a session is answered %s", f.Data)
	}
	if code, body := a.readiness(); code != http.StatusOK || !strings.Contains(body, `"status":"degraded","reasons":["redis is away"]`) {
		t.Errorf("readiness: %d %s", code, body)
	}
	_, got := a.scrape()
	if got["realtime_redis_up"] != 0 || got["realtime_redis_degraded_seconds_total"] <= 0 || got["realtime_redis_outbox_bytes"] <= 0 || got["realtime_redis_publish_errors_total"] < 1 {
		t.Errorf("metrics while it is away: %v", got)
	}

	redis.Restart() // it has lost everything
	for _, r := range nodes {
		eventually(t, "ready again", func() bool { _, body := r.readiness(); return strings.Contains(body, `"status":"ready"`) })
	}
	send(b, "5", false)
	seen := func(s *guest) (data string) {
		restored := false
		for {
			f, code := s.next()
			switch {
			case code != 0:
				t.Fatalf("closed with %d", code)
			case f.event() == "restored":
				restored = true
			case f.Type == "chat":
				data += string(f.Data)
			}
			if strings.HasSuffix(data, "5") && restored {
				return data
			}
		}
	}
	// what was shown already is not repeated, and each sender's order is kept
	if got := seen(ann); got != "25" {
		t.Errorf("then ann gets %q, want 2 and 5", got)
	}
	if got := seen(ben); got != "1345" {
		t.Errorf("then ben gets %q, want 1, 3, 4 and 5", got)
	}
}

func TestInModeRejectNothingIsTakenWhileRedisIsAway(t *testing.T) {
	redis := redistest.Start(t)
	r := shared(t, redis, 1, "--degraded=reject", "--degraded-room=general=local")[0]
	strict, general := r.join("strict"), r.join("general")
	health := healthpb.NewHealthClient(r.dial())
	redis.Kill()
	_, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "strict", Message: said})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("Publish = %v, want UNAVAILABLE", err)
	}
	strict.say(`{"type":"chat","ref":"r","data":1}`)
	if f := strict.want("error"); !strings.Contains(string(f.Data), "broker_unavailable") || !strings.Contains(string(f.Data), "retry_after_ms") {
		t.Errorf("a session is told %s", f.Data)
	}
	if receipt, err := r.publish("1"); err != nil || !receipt.GetDegraded() {
		t.Errorf("a room with a mode of its own: %v, %v", receipt, err)
	}
	general.wants("1")
	if code, body := r.readiness(); code != http.StatusServiceUnavailable || !strings.Contains(body, `"unready","reasons":["redis is away"]`) {
		t.Errorf("readiness: %d %s", code, body)
	}
	serving := func() bool {
		h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "realtime.v1.PublisherService"})
		return err == nil && h.GetStatus() == healthpb.HealthCheckResponse_SERVING
	}
	eventually(t, "gRPC's health says so", func() bool { return !serving() })
	redis.Restart()
	strict.want("restored")
	eventually(t, "and that it is well again", serving)
	if code, body := r.readiness(); code != http.StatusOK {
		t.Errorf("readiness: %d %s", code, body)
	}
}

func TestANodeBeginsWithoutRedisAndFindsItLater(t *testing.T) {
	redis := redistest.Start(t)
	redis.Kill()
	r := shared(t, redis, 1, "--ready-needs-redis")[0]
	s := r.join("general")
	if receipt, err := r.publish("1"); err != nil || !receipt.GetDegraded() {
		t.Errorf("publish: %v, %v", receipt, err)
	}
	s.wants("1")
	if code, body := r.readiness(); code != http.StatusServiceUnavailable {
		t.Errorf("readiness with --ready-needs-redis: %d %s", code, body)
	}
	if got := r.log.find("WARN", "this node begins without it"); len(got) != 1 || !strings.Contains(got[0], redis.Addr) {
		t.Errorf("logged %q", got)
	}
	redis.Restart()
	s.want("restored")
	eventually(t, "what was found is told", func() bool { return len(r.log.find("INFO", `"msg":"redis is there"`)) == 1 })
	other := shared(t, redis, 1)[0].publisher()
	if page, err := other.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "general"}); err != nil || len(page.GetMessages()) != 1 {
		t.Errorf("another node's history: %v, %v", page, err)
	}
}

func TestANodeWaitsForRedisAsLongAsItIsTold(t *testing.T) {
	redis := redistest.Start(t)
	redis.Kill()
	s, err := New(t.Context(), flags(t, "--redis-url="+redis.Addr, "--redis-wait=1m"), &journal{}, (&journal{}).logger(t))
	if err != nil {
		t.Fatal(err)
	}
	_, rpc, ops := s.Addrs()
	r := &Running{Server: s, t: t, rpcAt: rpc, http: "http://" + ops}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		done(t, <-ended)
	})
	if code, _, body := fetch(t, r.http+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "starting") {
		t.Errorf("readiness: %d %s", code, body)
	}
	redis.Restart()
	eventually(t, "it serves", func() bool { return s.state.Load() == serving })
	if receipt, err := r.publish("1"); err != nil || receipt.GetDegraded() {
		t.Errorf("publish: %v, %v", receipt, err)
	}
}

func TestARedisThatWillNeverDoEndsTheNodeWithTheReason(t *testing.T) {
	redis := redistest.Start(t)
	redis.Do("ACL", "SETUSER", "ann", "on", ">right", "+@all", "~*")
	for name, c := range map[string]struct{ url, want string }{
		"a wrong password": {"redis://ann:hunter2@" + redis.Addr, "user and password"},
		"missing rights":   {"redis://ann:right@" + redis.Addr, "&realtime:*"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &journal{}
			s, err := New(t.Context(), flags(t, "--redis-url="+c.url, "--redis-wait=1m"), log, log.logger(t))
			if err != nil {
				t.Fatal(err)
			}
			err = s.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), redis.Addr) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run = %v, want it to name %s and %s", err, redis.Addr, c.want)
			}
			if all := fmt.Sprint(err) + log.String(); strings.Contains(all, "hunter2") || strings.Contains(all, "right@") {
				t.Errorf("a password is told: %s", all)
			}
		})
	}
	for name, args := range map[string][]string{
		"--redis-url: it is no URL":        {"--redis-url=redis://ann:hunter2%@cache"},
		"--redis-tls-ca: --redis-url":      {"--redis-url=redis://cache", "--redis-tls-ca=x"},
		"--redis-tls-ca: open":             {"--redis-url=rediss://cache", "--redis-tls-ca=/does/not/exist"},
		"--redis-tls-ca: /dev/null: no ce": {"--redis-url=rediss://cache", "--redis-tls-ca=/dev/null"},
		"--degraded-room: room pattern":    {"--redis-url=cache", "--degraded-room=a*b=local"},
	} {
		failsToStart(t, args, name)
	}
}

func TestANodeThatRedisBringsNothingIsUnready(t *testing.T) {
	redis := redistest.Start(t)
	redis.Do("ACL", "SETUSER", "ann", "on", ">right", "allcommands", "allkeys", "allchannels")
	r := startWith(t, func(s *Server) { s.redis.lostFor = time.Second / 2 }, "--redis-url=redis://ann:right@"+redis.Addr)
	eventually(t, "it is ready", func() bool { code, _ := r.readiness(); return code == http.StatusOK })
	redis.Do("ACL", "SETUSER", "ann", "resetchannels") // which cuts those who subscribe
	eventually(t, "it is unready", func() bool {
		code, body := r.readiness()
		return code == http.StatusServiceUnavailable && strings.Contains(body, "brings this node nothing")
	})
	redis.Do("ACL", "SETUSER", "ann", "allchannels")
	eventually(t, "it is ready again", func() bool { code, _ := r.readiness(); return code == http.StatusOK })
}

func TestRedisOverTLSIsTrustedByItsCA(t *testing.T) {
	p := newPair(t)
	redis := redistest.Start(t)
	addr := freePorts(t, 1)[0]
	_, port, _ := net.SplitHostPort(addr)
	redis.Do("CONFIG", "SET", "tls-cert-file", p.cert, "tls-key-file", p.key, "tls-ca-cert-file", p.cert, "tls-auth-clients", "no", "tls-port", port)
	r := StartServer(t, "--redis-url=rediss://"+addr, "--redis-tls-ca="+p.cert)
	s := r.join("general")
	if receipt, err := r.publish("1"); err != nil || receipt.GetDegraded() {
		t.Errorf("publish: %v, %v", receipt, err)
	}
	s.wants("1")
}

func TestWhatRedisIsAskedIsTraced(t *testing.T) {
	c := telemetrytest.Start(t)
	redis := redistest.Start(t)
	r := StartServer(t, "--redis-url="+redis.Addr, "--drain-window=0s")
	s := r.join("general")
	for sampled := range 2 {
		if _, err := r.publisher().Publish(calling(t.Context(), sampled), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: `"secret"`}}); err != nil {
			t.Fatal(err)
		}
		s.want("chat")
	}
	if _, err := r.publisher().GetHistory(calling(t.Context(), 1), &realtimev1.GetHistoryRequest{Room: "general"}); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	if receipt, err := r.publish("1"); err != nil || !receipt.GetDegraded() {
		t.Errorf("while Redis is away: %v, %v", receipt, err)
	}
	redis.Restart()
	s.want("restored")
	_ = s.ws.CloseNow()
	if _, err := r.end(); err != nil {
		t.Fatal(err)
	}
	if got := c.Spans("redis flush"); !slices.ContainsFunc(got, func(s telemetrytest.Span) bool { return s.Parent == "" && !s.Failed }) {
		t.Errorf("the outbox: %+v, want a root", got)
	}
	publishes, stored, read := c.Spans("publish"), c.Spans("redis publish"), c.Spans("redis read")
	if len(publishes) != 2 || len(stored) != 2 || stored[0].Parent != publishes[0].SpanID || stored[0].Attributes["messaging.destination.name"] != "general" {
		t.Errorf("publishes %+v, and in Redis %+v; want both of those that were sampled", publishes, stored)
	}
	if len(read) != 1 || read[0].TraceID != callersTrace {
		t.Errorf("reads %+v", read)
	}
	if strings.Contains(c.Raw(), "secret") {
		t.Error("what was said is pushed")
	}
}
