package edge

// CloseCode is the code of a close frame that the edge sends. 1000 to 1014 are RFC 6455's, 4000 to 4999 the protocol's own.
type CloseCode int

// Close codes. Each has its line in CloseCodes.
const (
	CloseNormal      CloseCode = 1000
	CloseGoingAway   CloseCode = 1001 // a browser that leaves
	CloseProtocol    CloseCode = 1002 // against RFC 6455
	CloseBinary      CloseCode = 1003 // frames are JSON text
	CloseBadUTF8     CloseCode = 1007
	CloseTooBig      CloseCode = 1009 // above max_frame
	CloseInternal    CloseCode = 1011
	CloseDrain       CloseCode = 1012
	CloseTryLater    CloseCode = 1013
	CloseSlow        CloseCode = 4000 // the hub's: blocked, behind or over its own-frame budget
	CloseTimeout     CloseCode = 4001 // no sign of life, or a message that did not end
	CloseMayReturn   CloseCode = 4003
	CloseExpired     CloseCode = 4500
	CloseRevoked     CloseCode = 4501
	CloseNotAllowed  CloseCode = 4502
	CloseReplaced    CloseCode = 4503
	CloseMisbehaved  CloseCode = 4504 // repeated protocol errors or rate-limit abuse
	closeNoStatus    CloseCode = 1005 // never sent: the peer's close frame had no code
	closeUnannounced CloseCode = 1006 // never sent: the connection ended without a close frame
)

// CloseRule is what a close code means for the one who receives it.
type CloseRule struct {
	Code CloseCode
	// Reconnect: come back, with back-off (CloseDrain: at once; CloseExpired: with a fresh token).
	Reconnect bool
	// Reason is the text that goes with the code unless a better one is known.
	Reason string
}

// CloseCodes returns the table of the protocol's close codes, in ascending order.
func CloseCodes() []CloseRule {
	return []CloseRule{
		{CloseNormal, false, "normal"},
		{CloseGoingAway, true, "going away"},
		{CloseProtocol, false, "protocol error"},
		{CloseBinary, false, "binary messages are not accepted"},
		{closeNoStatus, true, ""},
		{closeUnannounced, true, ""},
		{CloseBadUTF8, false, "invalid UTF-8"},
		{CloseTooBig, false, "message too big"},
		{CloseInternal, true, "internal error"},
		{CloseDrain, true, "server restarts"},
		{CloseTryLater, true, "try again later"},
		{CloseSlow, true, "slow consumer"},
		{CloseTimeout, true, "keepalive timeout"},
		{CloseMayReturn, true, "disconnected"},
		{CloseExpired, true, "token expired"},
		{CloseRevoked, false, "revoked"},
		{CloseNotAllowed, false, "not permitted"},
		{CloseReplaced, false, "replaced by a newer session"},
		{CloseMisbehaved, false, "too many refused frames"},
	}
}

// MayReconnect tells whether a session that was closed with code may come back. It also judges codes that only
// applications use.
func MayReconnect(code int) bool {
	for _, r := range CloseCodes() {
		if int(r.Code) == code {
			return r.Reconnect
		}
	}
	return code >= 4000 && code <= 4499
}

// reason is the table's text for a code.
func (c CloseCode) reason() string {
	for _, r := range CloseCodes() {
		if r.Code == c {
			return r.Reason
		}
	}
	return ""
}

// misconduct tells codes that say the peer broke a rule: worth a line in the log.
func (c CloseCode) misconduct() bool {
	switch c {
	case CloseProtocol, CloseBinary, CloseBadUTF8, CloseTooBig, CloseMisbehaved:
		return true
	}
	return false
}
