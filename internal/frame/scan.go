package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// Why input is no acceptable frame. The texts go to whoever sent it.
var (
	errNotObject = errors.New("a frame is one JSON object and nothing else")
	errSyntax    = errors.New("the frame is not valid JSON in UTF-8")
	errDuplicate = errors.New("the frame has a duplicate key")
	errTooDeep   = fmt.Errorf("the frame nests deeper than %d", message.MaxDepth)
)

// A scanner walks over the elements of one JSON object or array, in order:
//
//	s := scanObject(b)
//	for s.next() { … s.name, s.value … }
//	err := s.close()
//
// It refuses what the protocol refuses anywhere in a frame, also in elements nobody looks at: bad UTF-8, duplicate keys,
// values that nest deeper than message.MaxDepth, anything behind the end. Elements before the fault are handed out.
// Between open and close the input must not change.
type scanner struct {
	buf bytes.Buffer
	dec *jsontext.Decoder

	input []byte
	end   jsontext.Kind // the bracket that closes it
	deep  bool          // it has brackets enough to nest too deep, which is to be refused
	err   error

	name  []byte         // of an object's element, a JSON string; aliases the input
	value jsontext.Value // aliases the input
}

var scanners = sync.Pool{New: func() any {
	s := &scanner{}
	s.dec = jsontext.NewDecoder(&s.buf)
	return s
}}

func scanObject(b []byte) *scanner { return open(b, '{', '}') }
func scanArray(b []byte) *scanner  { return open(b, '[', ']') }

func open(b []byte, begin, end jsontext.Kind) *scanner {
	s := scanners.Get().(*scanner)
	s.buf = *bytes.NewBuffer(b)
	s.dec.Reset(&s.buf)
	s.input, s.end, s.err = b, end, nil
	s.deep = bytes.Count(b, []byte{'{'})+bytes.Count(b, []byte{'['}) > message.MaxDepth
	if s.dec.PeekKind() != begin {
		s.err = errNotObject
	} else if _, err := s.dec.ReadToken(); err != nil {
		s.err = errSyntax
	}
	return s
}

// next goes to the next element. It is false at the end and at the first fault, which close returns.
func (s *scanner) next() bool {
	if s.err != nil {
		return false
	}
	if s.dec.PeekKind() == s.end {
		s.finish()
		return false
	}
	if s.end == '}' {
		s.name = s.read()
	}
	// The decoder itself would go down thousands of levels before it gave up.
	if s.err == nil && s.deep && s.nested() && tooDeep(s.input[s.dec.InputOffset():]) {
		s.err = errTooDeep
	}
	s.value = s.read()
	return s.err == nil
}

// read takes the next name or value. It is cut from the input, since the decoder's own slice ends with its next call.
func (s *scanner) read() []byte {
	if s.err != nil {
		return nil
	}
	v, err := s.dec.ReadValue()
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		s.err = errDuplicate
	case err != nil:
		s.err = errSyntax
	default:
		end := s.dec.InputOffset()
		return s.input[end-int64(len(v)) : end : end]
	}
	return nil
}

// nested tells whether the next value is an object or array.
func (s *scanner) nested() bool {
	k := s.dec.PeekKind()
	return k == '{' || k == '['
}

// finish takes the closing bracket, behind which nothing may stand.
func (s *scanner) finish() {
	if _, err := s.dec.ReadToken(); err != nil {
		s.err = errSyntax
	} else if _, err = s.dec.ReadToken(); !errors.Is(err, io.EOF) {
		s.err = errNotObject
	}
}

// close gives the scanner back and returns what was wrong. It may be called before the end is reached.
func (s *scanner) close() error {
	err := s.err
	s.buf = bytes.Buffer{} // the input is its owner's again
	s.input, s.name, s.value = nil, nil, nil
	scanners.Put(s)
	return err
}

// tooDeep tells whether the object or array that b begins with, behind a comma or colon, nests deeper than
// message.MaxDepth. On invalid JSON its answer does not matter: the decoder stops at the fault.
func tooDeep(b []byte) bool {
	depth, in := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			in = !in
		case c == '\\' && in:
			i++
		case in:
		case c == '{' || c == '[':
			if depth++; depth > message.MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			if depth--; depth <= 0 {
				return false
			}
		}
	}
	return false
}

// unquote returns the text of a JSON string that the decoder accepted. It aliases v if nothing is escaped.
func unquote(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	s, _ := jsontext.AppendUnquote(nil, v) // fails on what the decoder refuses
	return s
}

// text reads a member that is a string; absent, null and empty are the same.
func text(name string, v jsontext.Value) (string, error) {
	b, err := raw(name, v)
	return string(b), err
}

// raw is text without a copy, unless something is escaped.
func raw(name string, v jsontext.Value) ([]byte, error) {
	switch v.Kind() {
	case '"':
		return unquote(v), nil
	case 'n', 0:
		return nil, nil
	}
	return nil, fmt.Errorf("%s must be a string", name)
}
