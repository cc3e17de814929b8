package frame

// Code says what went wrong, in error frames and in the bodies of refused handshakes. The values are the protocol's words.
type Code string

// Codes of error frames.
const (
	CodeBadFrame          Code = "bad_frame"
	CodeUnknownType       Code = "unknown_type"
	CodeForbiddenType     Code = "forbidden_type" // only the server sends it
	CodeBadRoom           Code = "bad_room"       // no room by that name can be
	CodeNotPermitted      Code = "not_permitted"  // or there is no such room: it is not told which
	CodeNotJoined         Code = "not_joined"
	CodeTooLarge          Code = "too_large" // data above the configured limit
	CodeRoomLimit         Code = "room_limit"
	CodeSessionLimit      Code = "session_limit"
	CodeRateLimited       Code = "rate_limited"
	CodeBusy              Code = "busy" // the answer to an earlier frame is outstanding
	CodeOverloaded        Code = "overloaded"
	CodeHookDenied        Code = "hook_denied"
	CodeHookUnavailable   Code = "hook_unavailable"
	CodeBrokerUnavailable Code = "broker_unavailable"
	CodeBadToken          Code = "bad_token" // one code for all reasons
	CodeInternal          Code = "internal"
)

// Codes that only refuse a handshake.
const (
	CodeBadRequest Code = "bad_request"
	CodeBadOrigin  Code = "bad_origin"
	CodeAtCapacity Code = "at_capacity"
	CodeDraining   Code = "draining"
)

// Codes returns all codes, those of error frames first.
func Codes() []Code {
	return []Code{
		CodeBadFrame, CodeUnknownType, CodeForbiddenType, CodeBadRoom, CodeNotPermitted, CodeNotJoined, CodeTooLarge,
		CodeRoomLimit, CodeSessionLimit, CodeRateLimited, CodeBusy, CodeOverloaded, CodeHookDenied, CodeHookUnavailable,
		CodeBrokerUnavailable, CodeBadToken, CodeInternal,
		CodeBadRequest, CodeBadOrigin, CodeAtCapacity, CodeDraining,
	}
}

// Retryable tells the codes whose error frame always says when to try again.
func (c Code) Retryable() bool {
	switch c {
	case CodeRateLimited, CodeBusy, CodeOverloaded, CodeHookUnavailable, CodeBrokerUnavailable:
		return true
	}
	return false
}
