package wire

// Kind says what an Event is.
type Kind uint8

// The kinds of events.
const (
	None   Kind = iota // every byte was taken and nothing is complete
	Text               // a whole text message, valid UTF-8
	Binary             // a whole binary message
	Ping
	Pong
	Close // the peer's close frame; the last event of a Parser
	Error // the peer broke a rule or a limit; the last event of a Parser
)

// The close codes that events carry.
const (
	CodeProtocol    = 1002 // Error: against RFC 6455
	CodeUnsupported = 1003 // Error: a binary message
	CodeNone        = 1005 // Close: the frame had no code. It must never be sent
	CodeInvalidText = 1007 // Error: a text or a close reason is not UTF-8
	CodeTooBig      = 1009 // Error: a message above Limits.MessageBytes
	CodeAbuse       = 4504 // Error: too many fragments or control frames
)

// Event is one result of Next.
type Event struct {
	Kind Kind
	// Owned: Data is a buffer of its own and now the caller's. Otherwise it lies in the bytes that were given to Next
	// and is valid for as long as they are left alone.
	Owned bool
	Code  uint16 // of a Close what the peer sent, of an Error what to close with
	Data  []byte // the payload, perhaps nil; of a Close its reason, valid UTF-8
	// Reason is the fixed text that belongs to an Error: fit for a close frame, nothing of the input in it.
	Reason string
}

// fault is a broken rule: the close code and reason it is answered with.
type fault struct {
	code   uint16
	reason string
}

// Everything a peer can do wrong.
var (
	errReservedBits    = &fault{CodeProtocol, "reserved bits set: no extension was agreed"}
	errReservedOpcode  = &fault{CodeProtocol, "reserved opcode"}
	errUnmasked        = &fault{CodeProtocol, "frame without a mask"}
	errControlFragment = &fault{CodeProtocol, "control frame in fragments"}
	errControlLength   = &fault{CodeProtocol, "control frame above 125 bytes"}
	errLengthForm      = &fault{CodeProtocol, "frame length not in its shortest form"}
	errLengthRange     = &fault{CodeProtocol, "frame length with its top bit set"}
	errNoMessage       = &fault{CodeProtocol, "continuation without a message"}
	errInterleaved     = &fault{CodeProtocol, "message inside an unfinished message"}
	errCloseLength     = &fault{CodeProtocol, "close frame of one byte"}
	errCloseCode       = &fault{CodeProtocol, "close code that must not be sent"}
	errBinary          = &fault{CodeUnsupported, "binary messages are not accepted"}
	errText            = &fault{CodeInvalidText, "text is not valid UTF-8"}
	errCloseReason     = &fault{CodeInvalidText, "close reason is not valid UTF-8"}
	errTooBig          = &fault{CodeTooBig, "message too big"}
	errFragments       = &fault{CodeAbuse, "too many fragments"}
	errControlFlood    = &fault{CodeAbuse, "too many control frames"}
)
