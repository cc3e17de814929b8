// Package remote is the client of HooksService: it puts the questions of hooks to a backend over gRPC, and reads its answers.
//
// It decides nothing: what a backend does not answer, or answers without a verdict, is an error, and hooks knows what that
// means. It logs nothing, and its errors quote nothing that a backend says but for why it cannot be reached.
package remote

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// Config of a Client.
type Config struct {
	Addr     string      // host:port of the backend
	TLS      *tls.Config // nil: plaintext
	Key      string      // sent as bearer; "": none
	MaxReply int         // bytes of an answer; above, it is none. 1 MiB
}

// A backend that is away is dialled again at most so often, and one that takes bytes and acknowledges none is given up.
// Pings are rarer than any server forbids by default: they are there for that limit alone.
const (
	redialAtMost  = 3 * time.Second
	dialTimeout   = 5 * time.Second
	pingEvery     = 6 * time.Minute
	silentAtMost  = 10 * time.Second
	defaultAnswer = 1 << 20
)

// Client asks a backend. Its methods are those of hooks.Hooks; they are safe for concurrent use.
type Client struct {
	conn *grpc.ClientConn
	rpc  realtimev1.HooksServiceClient
}

// New makes a Client. It dials with the first question.
func New(cfg Config) (*Client, error) {
	if cfg.MaxReply <= 0 {
		cfg.MaxReply = defaultAnswer
	}
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(cfg.TLS)
	}
	redial := backoff.DefaultConfig
	redial.BaseDelay, redial.MaxDelay = 100*time.Millisecond, redialAtMost
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(cfg.MaxReply)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: dialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: silentAtMost}),
		grpc.WithDisableServiceConfig(),
	}
	if cfg.Key != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer{cfg.Key, cfg.TLS != nil}))
	}
	conn, err := grpc.NewClient(cfg.Addr, opts...)
	if err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	return &Client{conn: conn, rpc: realtimev1.NewHooksServiceClient(conn)}, nil
}

// Close ends the connection; questions under way fail.
func (c *Client) Close() error { return c.conn.Close() }

// bearer is a key that goes with each question.
type bearer struct {
	key    string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.key}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }

// Connect is hooks.Hooks.Connect.
func (c *Client) Connect(ctx context.Context, a *hooks.Attempt) (*hooks.Admission, error) {
	req := &realtimev1.OnConnectRequest{Session: session(&a.Session), Claims: string(a.Claims), Rooms: make([]string, len(a.Rooms)), Headers: a.Headers}
	for i, room := range a.Rooms {
		req.Rooms[i] = string(room)
	}
	resp, err := c.rpc.OnConnect(ctx, req)
	if err != nil {
		return nil, failure(err)
	}
	return admission(resp)
}

// Subscribe is hooks.Hooks.Subscribe.
func (c *Client) Subscribe(ctx context.Context, s *hooks.Session, room message.Room) error {
	resp, err := c.rpc.OnSubscribe(ctx, &realtimev1.OnSubscribeRequest{Session: session(s), Room: string(room)})
	if err != nil {
		return failure(err)
	}
	return verdict(resp.GetVerdict(), &hooks.Denied{Reason: resp.GetReason()})
}

// Message is hooks.Hooks.Message.
func (c *Client) Message(ctx context.Context, s *hooks.Session, m *message.Message) (*message.Message, error) {
	resp, err := c.rpc.OnMessage(ctx, &realtimev1.OnMessageRequest{Session: session(s), Message: &realtimev1.Message{
		Room: string(m.Room), Type: string(m.Type), From: m.From, Data: string(m.Data), Timestamp: timestamppb.Now(), Ephemeral: m.Ephemeral,
	}})
	if err != nil {
		return nil, failure(err)
	}
	return outcome(m, resp)
}

// Disconnect is hooks.Hooks.Disconnect.
func (c *Client) Disconnect(ctx context.Context, ended []hooks.Disconnection) error {
	if _, err := c.rpc.OnDisconnect(ctx, disconnections(ended)); err != nil {
		return failure(err)
	}
	return nil
}

// failure is what a call's error says. The text is the backend's to choose, and may repeat what it was asked about: it is left
// out but where nobody was there to choose it.
func failure(err error) error {
	switch code := status.Code(err); code {
	case codes.Unavailable:
		return fmt.Errorf("%w: %.200q", hooks.ErrNoAnswer, status.Convert(err).Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w in time", hooks.ErrNoAnswer)
	default:
		return fmt.Errorf("the backend answers %v", code)
	}
}
