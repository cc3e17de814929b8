package edge

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/slack5/realtime/internal/frame"
)

// refusal is a handshake's answer when it is not let in.
type refusal struct {
	status int
	code   frame.Code
	text   string    // for the one refused; quotes nothing of the request
	retry  int       // seconds in Retry-After, 0: none
	header [2]string // one more header
	close  CloseCode // what refuse=close closes with; 0: the refusal is HTTP in any case
}

var (
	refuseAbsent   = &refusal{status: http.StatusNotFound, code: frame.CodeBadRequest, text: "nothing here"}
	refuseAbsolute = &refusal{status: http.StatusBadRequest, code: frame.CodeBadRoom, text: "the request target must be a path"}
	refuseMethod   = &refusal{status: http.StatusMethodNotAllowed, code: frame.CodeBadRequest, text: "a WebSocket begins with GET", header: [2]string{"Allow", http.MethodGet}}
	refuseProto    = &refusal{status: http.StatusUpgradeRequired, code: frame.CodeBadRequest, text: "a WebSocket begins with an upgrade of HTTP/1.1", header: [2]string{"Upgrade", "websocket"}}
	refuseBody     = &refusal{status: http.StatusBadRequest, code: frame.CodeBadRequest, text: "an upgrade has no body"}
	refuseVersion  = &refusal{status: http.StatusBadRequest, code: frame.CodeBadRequest, text: "only version 13 of WebSocket is spoken", header: [2]string{"Sec-WebSocket-Version", "13"}}
	refuseKey      = &refusal{status: http.StatusBadRequest, code: frame.CodeBadRequest, text: "Sec-WebSocket-Key must be given once: 16 bytes in base64"}
	refuseQuery    = &refusal{status: http.StatusBadRequest, code: frame.CodeBadRequest, text: "too many rooms in the URL"}
	refuseOrigin   = &refusal{status: http.StatusForbidden, code: frame.CodeBadOrigin, text: "pages of this origin may not connect"}
	refuseFull     = &refusal{status: http.StatusServiceUnavailable, code: frame.CodeAtCapacity, text: "server at capacity", retry: 10}
	refuseDraining = &refusal{status: http.StatusServiceUnavailable, code: frame.CodeDraining, text: "server is going down or not yet up", retry: 1}
	refuseHost     = &refusal{status: http.StatusForbidden, code: frame.CodeBadOrigin, text: "nothing is served under this name"}
	refuseRoom     = &refusal{status: http.StatusBadRequest, code: frame.CodeBadRoom, text: badRoomText, close: CloseNotAllowed}
	refuseReserved = &refusal{status: http.StatusForbidden, code: frame.CodeNotPermitted, text: reservedText, close: CloseNotAllowed}
	refuseHook     = &refusal{status: http.StatusServiceUnavailable, code: frame.CodeHookUnavailable, text: "nobody is there to say whether it may be", retry: 1, close: CloseTryLater}
	refuseDenied   = &refusal{status: http.StatusForbidden, code: frame.CodeNotPermitted, text: errDenied.text, close: CloseNotAllowed}

	refuseUserSessions    = &refusal{status: http.StatusTooManyRequests, code: frame.CodeSessionLimit, text: "the user has as many sessions here as he may have", retry: 10, close: CloseNotAllowed}
	refuseAddressSessions = &refusal{status: http.StatusTooManyRequests, code: frame.CodeSessionLimit, text: "the address has as many sessions here as it may have", retry: 10}
	refuseLimit           = &refusal{status: http.StatusTooManyRequests, code: frame.CodeSessionLimit, text: "the user has as many sessions as the token allows: end one, or come back later", retry: 5, close: CloseNotAllowed}

	refuseToken   = unauthorized(CloseNotAllowed)
	refuseExpired = unauthorized(CloseExpired)
	refuseRevoked = unauthorized(CloseRevoked)
)

// unauthorized has one text for all reasons, so that it helps nobody to guess.
func unauthorized(c CloseCode) *refusal {
	return &refusal{status: http.StatusUnauthorized, code: frame.CodeBadToken, text: "token missing or not valid", header: [2]string{"WWW-Authenticate", "Bearer"}, close: c}
}

// refuse answers over HTTP.
func (e *Edge) refuse(w http.ResponseWriter, f *refusal) {
	e.metrics.refused(f)
	body, err := json.Marshal(map[string]map[string]string{"error": {"code": string(f.code), "message": f.text}}, json.Deterministic(true))
	if err != nil {
		body = nil // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if f.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retry))
	}
	if f.header[0] != "" {
		h.Set(f.header[0], f.header[1])
	}
	h.Set("Connection", "close") // so that net/http does not wait for a body that was announced
	if f == refuseProto {
		h.Set("Connection", "Upgrade")
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}
