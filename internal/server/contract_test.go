package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/rpc"
)

// contract watches what peers of servers see, under the names of the contract.
type contract struct {
	*Running // most is tried here
	t        *testing.T
	reasons  map[string]promised

	mu   sync.Mutex
	seen map[string]int
}

// promised is what the proto says of a reason.
type promised struct {
	code  codes.Code
	retry bool
}

func (c *contract) saw(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[name]++
}

func (c *contract) times(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[name]
}

const contractSecret = "a secret of the contract's tests: 0123456789abcdef"

var errCause = errors.New("a cause that nobody outside is told")

func TestEverythingTheContractNamesIsProduced(t *testing.T) {
	t.Setenv("CONTRACT_SECRET", contractSecret)
	c := &contract{t: t, reasons: documentedReasons(t), seen: make(map[string]int)}
	c.Running = startWith(t, c.alter, "--jwt-key=env:CONTRACT_SECRET", "--sndbuf-bytes=4KiB")
	ways := c.ways()
	names := c.names()
	for _, name := range names {
		how := ways[name]
		if how == nil {
			t.Errorf("nothing produces %q", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			before := c.times(name)
			how(t)
			eventually(t, "it is seen", func() bool { return c.times(name) > before })
		})
	}
	for name := range maps.Keys(ways) {
		if !slices.Contains(names, name) {
			t.Errorf("%q is produced, but the contract does not know it", name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.seen {
		if !slices.Contains(names, name) {
			t.Errorf("%q was seen, but the contract does not know it", name)
		}
	}
}

// names are all of the contract, of where each kind is written down.
func (c *contract) names() (names []string) {
	protoregistry.GlobalFiles.RangeFilesByPackage("realtime.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				names = append(names, "rpc "+string(s.Name())+"."+string(s.Methods().Get(j).Name()))
			}
		}
		return true
	})
	for _, event := range documentedEvents(c.t) {
		names = append(names, "event "+event)
	}
	for _, code := range frame.Codes() {
		names = append(names, "error "+string(code))
	}
	for _, rule := range edge.CloseCodes() {
		names = append(names, fmt.Sprint("close ", int(rule.Code)))
	}
	for reason := range realtimev1.ErrorReason_value {
		reason = strings.TrimPrefix(reason, "ERROR_REASON_")
		if reason == "UNSPECIFIED" {
			continue
		}
		names = append(names, "reason "+reason)
		if _, ok := c.reasons[reason]; !ok {
			c.t.Errorf("the proto does not say which code %s has", reason)
		}
	}
	slices.Sort(names)
	return names
}

func documentedEvents(t *testing.T) (events []string) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "### System events")
	table, _, _ = strings.Cut(table, "### ")
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(table, -1) {
		for _, event := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			events = append(events, event[1])
		}
	}
	if len(events) < 9 {
		t.Errorf("docs/protocol.md tells only of the events %v", events)
	}
	return events
}

func documentedReasons(t *testing.T) map[string]promised {
	proto, err := os.ReadFile("../../proto/realtime/v1/types.proto")
	if err != nil {
		t.Fatal(err)
	}
	_, enum, _ := strings.Cut(string(proto), "enum ErrorReason {")
	enum, _, _ = strings.Cut(enum, "\n}")
	reasons := make(map[string]promised)
	for _, v := range regexp.MustCompile(`(?m)^  // ([A-Z_]+)( \+ RetryInfo)?: .*\n(?:  // .*\n)*  ERROR_REASON_([A-Z_]+) =`).FindAllStringSubmatch(enum, -1) {
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(`"` + v[1] + `"`)); err != nil {
			t.Errorf("%s: %v", v[3], err)
		}
		reasons[v[3]] = promised{code, v[2] != ""}
	}
	return reasons
}

// alter adds to the server what its options cannot do: sessions at /odd whose program is at fault, and a broker that is.
func (c *contract) alter(s *Server) {
	odd, err := s.node.NewEdge(edge.Config{
		Path: "/odd", Anonymous: true, MaxFrameBytes: 128 << 10, AssemblyTimeout: 300 * time.Millisecond,
		Hooks: hooks.New(hooks.Config{Inside: true, Hooks: hooks.Hooks{Message: func(_ context.Context, s *hooks.Session, m *message.Message) (*message.Message, error) {
			switch conn := s.Conn.(*edge.Conn); m.Room {
			case "panic":
				panic("as asked")
			case "fail":
				return nil, errCause
			case "slow": // it is sent more of its own than it reads
				for conn.Send(&message.Message{Type: "x", Data: []byte(`"` + strings.Repeat("x", 60<<10) + `"`)}) == nil {
				}
			}
			return m, nil
		}}}, s.log),
	}, s.log)
	if err != nil {
		c.t.Fatal(err)
	}
	usual := s.edge.Handler
	s.edge.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/odd") {
			odd.ServeHTTP(w, r)
			return
		}
		usual.ServeHTTP(w, r)
	})
	ctx := context.WithoutCancel(c.t.Context())
	s.rpc.Shutdown(ctx)
	s.rpc = rpc.New(ctx, rpc.Config{}, rpc.Parts{Publisher: s.node.Publisher(), Broker: faulty{s.node.Broker()}, Hub: s.node.Hub(), Presence: s.node.Presence(), Control: s.node.Control()}, s.log)
}

// faulty is a broker with a room that cannot be read.
type faulty struct{ broker.Broker }

func (f faulty) History(ctx context.Context, q message.Query) (message.Page, error) {
	if q.Room == "faulty" {
		return message.Page{}, errCause
	}
	return f.Broker.History(ctx, q)
}

// peer is a session of which everything is noted, and to whose bytes a test may add.
type peer struct {
	t      testing.TB
	nc     net.Conn
	frames chan told
}

// open lets a session begin.
func (c *contract) open(t testing.TB, r *Running, target string, headers ...string) *peer {
	t.Helper()
	ws, nc := c.handshake(t, r, target, headers...)
	if ws == nil {
		t.Fatalf("%s is refused", target)
	}
	p := &peer{t: t, nc: nc, frames: make(chan told, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.read(ws, p.frames)
	}()
	t.Cleanup(func() { _ = nc.Close(); <-done })
	return p
}

// handshake tries to; if it is refused, which is noted, it returns nil.
func (c *contract) handshake(t testing.TB, r *Running, target string, headers ...string) (*websocket.Conn, net.Conn) {
	t.Helper()
	var nc net.Conn
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		nc, err = new(net.Dialer).DialContext(ctx, network, addr)
		return nc, err
	}}
	h := make(http.Header)
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, r.ws+target, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, HTTPHeader: h})
	if err == nil {
		ws.SetReadLimit(1 << 20)
		return ws, nc
	}
	if resp == nil {
		t.Fatalf("%s: %v", target, err)
	}
	var body struct {
		Error struct{ Code, Message string }
	}
	if b, _ := io.ReadAll(resp.Body); json.Unmarshal(b, &body) != nil || body.Error.Message == "" {
		t.Errorf("%s: %s with %q, want JSON", target, resp.Status, b)
	}
	c.saw("error " + body.Error.Code)
	return nil, nil
}

// read notes what comes until the connection ends.
func (c *contract) read(ws *websocket.Conn, frames chan<- told) {
	defer close(frames)
	for {
		_, b, err := ws.Read(context.WithoutCancel(c.t.Context())) // the test's end closes the connection
		if err != nil {
			if code := websocket.CloseStatus(err); code != -1 {
				c.saw(fmt.Sprint("close ", int(code)))
			}
			_ = ws.CloseNow()
			return
		}
		var f told
		if err := json.Unmarshal(b, &f); err != nil {
			c.t.Errorf("frame %.100q: %v", b, err)
		}
		switch f.Type {
		case "system":
			if e := f.event(); e != "" {
				c.saw("event " + e)
			}
		case "error":
			var d struct{ Code, Error string }
			if err := json.Unmarshal(f.Data, &d); err != nil || d.Error == "" || strings.Contains(d.Error, errCause.Error()) {
				c.t.Errorf("error frame %s", f.Data)
			}
			c.saw("error " + d.Code)
		}
		select {
		case frames <- f:
		default: // nobody waits for it
		}
	}
}

// want reads on to a type or event.
func (p *peer) want(what string) *peer {
	p.t.Helper()
	late := time.After(patience)
	for {
		select {
		case f, ok := <-p.frames:
			if !ok {
				p.t.Fatalf("the session ended before %s", what)
			}
			if f.Type == what || f.event() == what {
				return p
			}
		case <-late:
			p.t.Fatalf("no %s", what)
		}
	}
}

// wire is a client's WebSocket frame, masked with zeros.
func wire(first byte, payload string) string {
	size := ""
	switch n := len(payload); {
	case n < 126:
		size = string([]byte{0x80 | byte(n)})
	case n < 1<<16:
		size = string([]byte{0x80 | 126, byte(n >> 8), byte(n)})
	default:
		size = string([]byte{0x80 | 127, 0, 0, 0, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return string([]byte{first}) + size + "\x00\x00\x00\x00" + payload
}

// say sends text frames in one write.
func (p *peer) say(frames ...string) {
	p.t.Helper()
	all := ""
	for _, f := range frames {
		all += wire(0x81, f)
	}
	p.send(all)
}

func (p *peer) send(b string) {
	p.t.Helper()
	_ = p.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p.nc, b); err != nil {
		p.t.Fatal(err)
	}
}

// backend is a connection whose calls are noted: answers by their method, refusals by their reason.
func (c *contract) backend(t testing.TB, r *Running) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(r.rpcAt, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			c.outcome(method, err)
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, d, cc, method, opts...)
			return &noted{s, c, method}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

type noted struct {
	grpc.ClientStream
	c      *contract
	method string
}

func (n *noted) RecvMsg(m any) error {
	err := n.ClientStream.RecvMsg(m)
	if !errors.Is(err, io.EOF) {
		n.c.outcome(n.method, err)
	}
	return err
}

func (c *contract) outcome(method string, err error) {
	if err == nil {
		c.saw("rpc " + strings.Replace(strings.TrimPrefix(method, "/realtime.v1."), "/", ".", 1))
		return
	}
	st := status.Convert(err)
	reason, retry := "", false
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			retry = true
		}
	}
	if reason == "" {
		return
	}
	if want := c.reasons[reason]; st.Code() != want.code || retry != want.retry {
		c.t.Errorf("%s is answered with %v (RetryInfo: %t), documented is %v (%t)", reason, st.Code(), retry, want.code, want.retry)
	}
	if strings.Contains(st.Message(), errCause.Error()) {
		c.t.Errorf("the cause leaves: %s", st.Message())
	}
	c.saw("reason " + reason)
}

// token is one of alice's.
func (c *contract) token(lives time.Duration) string {
	now := time.Now().Truncate(time.Second)
	return c.sign(auth.Claims{User: "alice", IssuedAt: now, Expires: now.Add(lives)})
}

func (c *contract) sign(claims auth.Claims) string {
	token, err := auth.SignWith([]byte(contractSecret), claims)
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}
