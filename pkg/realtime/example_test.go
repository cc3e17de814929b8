package realtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/rueidis"

	"github.com/slack5/realtime/cmd/examples/moderation/words"
	"github.com/slack5/realtime/pkg/realtime"
)

// One process, no tokens, a router of chi. (p stands for the program around: p.run(hub) is go hub.Run(ctx), waited for at the
// end, p.serve opens the listener, and p.join connects to it as a browser would.)
func Example() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{})

	r := chi.NewRouter()
	r.Mount("/ws", wsHandler.Routes())
	p.serve(r)

	alice, bob := p.join("/ws/general"), p.join("/ws/general")
	alice.say(`{"type":"chat","data":{"text":"Hello world"}}`)
	got := bob.want("chat")
	fmt.Println(got.Type, got.Room, string(got.Data), got.From == alice.User)
	// Output: chat general {"text":"Hello world"} true
}

// Everyone is told who comes and goes.
func ExampleNewHandler_roomBasedChat() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{
		OnConnect: func(conn realtime.Connection) {
			// Notify of new member
			msg, _ := realtime.SystemMessage("presence", realtime.PresenceData{
				Status: realtime.PresenceOnline,
				UserID: conn.UserID(),
			})
			hub.Broadcast(msg)
		},
		OnDisconnect: func(conn realtime.Connection) {
			msg, _ := realtime.SystemMessage("presence", realtime.PresenceData{
				Status: realtime.PresenceOffline,
				UserID: conn.UserID(),
			})
			hub.Broadcast(msg)
		},
	})
	p.serve(wsHandler)

	alice := p.connect("/ws/room-name")
	names := map[string]string{alice.User: "alice"}
	report := func() {
		var who realtime.PresenceData
		_ = json.Unmarshal(alice.want("presence").Data, &who)
		fmt.Println(names[who.UserID], "is", who.Status)
	}
	report()
	bob := p.connect("/ws/room-name")
	names[bob.User] = "bob"
	report()
	bob.leave()
	report()
	// Output:
	// alice is online
	// bob is online
	// bob is offline
}

func containsProfanity(data json.RawMessage) bool { return bytes.Contains(data, []byte("darn")) }

// Messages are seen, and changed, before they are published.
func ExampleNewHandler_messageFiltering() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{
		OnMessage: func(conn realtime.Connection, msg *realtime.Message) *realtime.Message {
			// Filter profanity
			if containsProfanity(msg.Data) {
				return nil // Suppress message
			}
			// Add server metadata
			msg.From = "user " + conn.UserID()
			return msg
		},
	})
	p.serve(wsHandler)

	alice, bob := p.join("/ws/general"), p.join("/ws/general")
	alice.say(`{"type":"chat","data":"darn it","ref":"1"}`)
	alice.say(`{"type":"chat","data":"oh dear"}`)
	fmt.Println("alice:", string(alice.want("ack").Data)) // taken, but without an id
	got := bob.want("chat")
	fmt.Println("bob:", string(got.Data), got.From == "user "+alice.User)
	// Output:
	// alice: {}
	// bob: "oh dear" true
}

// The same filter as a backend of the service has it in cmd/examples/moderation, here without any network: bad words are masked, and
// who says too many of them is told why nothing is published.
func ExampleNewHandler_moderation() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{
		OnMessage: func(conn realtime.Connection, msg *realtime.Message) *realtime.Message {
			data, found := words.Mask(msg.Data)
			if found >= 3 {
				if errMsg, err := realtime.SystemMessage(realtime.MessageTypeError, map[string]string{"error": "calm down"}); err == nil {
					_ = conn.Send(errMsg) // it may have left
				}
				return nil
			}
			msg.Data = data
			return msg
		},
	})
	p.serve(wsHandler)

	alice, bob := p.join("/ws/general"), p.join("/ws/general")
	alice.say(`{"type":"chat","data":{"text":"darn darn darn"}}`)
	alice.say(`{"type":"chat","data":{"text":"darn it"}}`)
	fmt.Println("alice:", string(alice.want("error").Data))
	fmt.Println("bob:", string(bob.want("chat").Data))
	// Output:
	// alice: {"error":"calm down"}
	// bob: {"text":"**** it"}
}

// Sessions show a JWT, in the URL or in a header. The key comes from the environment, or from HandlerConfig.Auth.
func ExampleNewHandler_authenticatedConnections() {
	p := begin()
	defer p.end()
	const secret = "kWk3vSxYb0zPZ5oYw7e1uF9dQ2hR8mTa" // openssl rand -base64 24
	defer environment("CHAT_SECRET", secret)()
	defer environment("REALTIME_JWT_KEY", "env:CHAT_SECRET")()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{
		AuthRequired: true, // Requires valid JWT
		OnConnect: func(conn realtime.Connection) {
			_ = conn.Send(&realtime.Message{Type: "greeting", Data: json.RawMessage(`"hello ` + conn.UserID() + `"`)})
		},
	})
	p.serve(wsHandler)

	// What the program's login hands out:
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(secret))
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(string(p.connect("/ws?token=" + token).want("greeting").Data))
	fmt.Println(string(p.connect("/ws", "Authorization: Bearer "+token).want("greeting").Data))
	code, _ := p.status("/ws")
	fmt.Println(code)
	// Output:
	// "hello alice"
	// "hello alice"
	// 401
}

// Several processes, pods say, with one Redis: rooms, history and who is there are the same in all. (p.connects(broadcaster) is
// go broadcaster.Run(ctx), waited for at the end.)
func ExampleNewRedisBroadcaster() {
	redis := exampleRedis()
	defer redis.end()
	defer environment("REDIS_URL", "redis://"+redis.Addr)()

	pod := func() *program {
		p := begin()
		hub := realtime.NewHub(p.logger)
		p.run(hub)

		// Create Redis broadcaster for cross-pod messaging
		opt, err := rueidis.ParseURL(os.Getenv("REDIS_URL"))
		if err != nil {
			panic(err)
		}
		broadcaster := realtime.NewRedisBroadcaster(opt, hub, p.logger)
		p.connects(broadcaster)

		// Create handler with broadcaster
		wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{
			Broadcaster: broadcaster,
		})
		chat := &ChatHandler{hub: hub, broadcaster: broadcaster}
		r := chi.NewRouter()
		r.Mount("/ws", wsHandler.Routes())
		r.Post("/messages", chat.PostMessage)
		p.serve(r)
		return p
	}
	a, b := pod(), pod()
	defer a.end()
	defer b.end()

	alice, bob := a.join("/ws/general"), b.join("/ws/general")
	alice.say(`{"type":"chat","data":{"text":"Hello world"}}`)
	fmt.Println("bob:", string(bob.want("chat").Data))
	res, err := b.server.Client().Post(b.server.URL+"/messages", "application/json", strings.NewReader(`{"room":"general","text":"posted"}`))
	if err != nil {
		panic(err)
	}
	_ = res.Body.Close()
	fmt.Println("alice:", string(alice.want("chat").Data), string(alice.want("chat").Data))
	// Output:
	// bob: {"text":"Hello world"}
	// alice: {"text":"Hello world"} {"text":"posted"}
}

func environment(name, value string) (restore func()) {
	_ = os.Setenv(name, value)
	return func() { _ = os.Unsetenv(name) }
}

// ChatHandler is a REST endpoint that posts to rooms.
type ChatHandler struct {
	hub         *realtime.Hub
	broadcaster realtime.Broadcaster // nil: a single process
}

// PostMessage broadcasts to a room.
func (h *ChatHandler) PostMessage(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, "a room and a text, please", http.StatusBadRequest)
		return
	}
	data, _ := json.Marshal(map[string]string{"text": req.Text}) // not put together by hand: the text may have quotes
	msg := &realtime.Message{
		Type:      realtime.MessageTypeChat,
		Room:      req.Room,
		Data:      data,
		Timestamp: time.Now().UTC(),
	}
	// Publish via broadcaster (reaches all pods)
	if h.broadcaster != nil {
		if err := h.broadcaster.Publish(r.Context(), msg); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	} else {
		h.hub.Broadcast(msg)
	}
}

// Programs send from wherever they like, such as a handler of HTTP.
func ExampleHub_Broadcast() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	chat := &ChatHandler{hub: hub}
	mux := http.NewServeMux()
	mux.Handle("/ws/", realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{}))
	mux.HandleFunc("POST /messages", chat.PostMessage)
	p.serve(mux)

	alice := p.join("/ws/general")
	res, err := p.server.Client().Post(p.server.URL+"/messages", "application/json", strings.NewReader(`{"room":"general","text":"say \"hi\""}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = res.Body.Close()
	got := alice.want("chat")
	fmt.Println(res.StatusCode, string(got.Data), got.From == "")
	// Output: 200 {"text":"say \"hi\""} true
}

func validate(msg *realtime.Message) error {
	var d struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(msg.Data, &d); err != nil || d.Text == "" {
		return errors.New("a text, please")
	}
	return nil
}

// Who sent something invalid is told, and nobody else.
func ExampleConnection() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	wsHandler := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{
		OnMessage: func(conn realtime.Connection, msg *realtime.Message) *realtime.Message {
			if err := validate(msg); err != nil {
				errMsg, _ := realtime.SystemMessage(realtime.MessageTypeError, map[string]string{
					"error": err.Error(),
				})
				_ = conn.Send(errMsg)
				return nil // Don't broadcast invalid message
			}
			return msg
		},
	})
	p.serve(wsHandler)

	alice, bob := p.join("/ws/general"), p.join("/ws/general")
	alice.say(`{"type":"chat","data":{"txt":"hi"}}`)
	alice.say(`{"type":"chat","data":{"text":"hi"}}`)
	fmt.Println("alice:", string(alice.want("error").Data))
	fmt.Println("bob:", string(bob.next("chat").Data))
	// Output:
	// alice: {"error":"a text, please"}
	// bob: {"text":"hi"}
}

const maxConnectionsPerPod = 1

// Handler puts a limit of the program's own before the hub's handler; HandlerConfig.MaxConnections is the same, and counts
// handshakes that are under way too.
type Handler struct {
	hub *realtime.Hub
	ws  *realtime.Handler
}

// HandleWebSocket lets so many in.
func (h *Handler) HandleWebSocket(w http.ResponseWriter, r *http.Request) {
	if h.hub.ConnectionCount() >= maxConnectionsPerPod {
		http.Error(w, "server at capacity", http.StatusServiceUnavailable)
		return
	}
	h.ws.ServeHTTP(w, r)
}

// Nobody is let in above a limit.
func ExampleHub_ConnectionCount() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	h := &Handler{hub: hub, ws: realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{})}
	p.serve(http.HandlerFunc(h.HandleWebSocket))

	p.join("/ws/general")
	code, body := p.status("/ws/general")
	fmt.Println(hub.ConnectionCount(), code, strings.TrimSpace(body))
	// Output: 1 503 server at capacity
}

// A message for everyone, whose id and time the program wants to know.
func ExampleHub_Publish() {
	p := begin()
	defer p.end()

	hub := realtime.NewHub(p.logger)
	p.run(hub)
	p.serve(realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{}))
	alice := p.join("/ws/general")

	msg, err := realtime.SystemMessage(realtime.MessageTypeSystem, map[string]string{"text": "back in five minutes"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := hub.Publish(ctx, msg); err != nil {
		fmt.Println(err)
		return
	}
	got := alice.want("system")
	fmt.Println(string(got.Data), got.ID == msg.ID, got.Timestamp.Equal(msg.Timestamp))
	// Output: {"text":"back in five minutes"} true true
}
