package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// scratch is what judging one token needs and the next one can use again. The decoder refuses duplicate names, at any
// depth and however they are escaped, and what is no UTF-8.
type scratch struct {
	parts []byte // the decoded parts of a token
	rooms []byte
	name  []byte
	buf   bytes.Buffer
	dec   *jsontext.Decoder
}

var scratches = sync.Pool{New: func() any {
	s := &scratch{}
	s.dec = jsontext.NewDecoder(&s.buf)
	return s
}}

var base64URL = base64.RawURLEncoding.Strict()

// split takes a token apart: what is signed, and the decoded parts, which are the scratch's.
func (s *scratch) split(token string) (signed string, header, payload, signature []byte, err error) {
	dots := [2]int{strings.IndexByte(token, '.'), strings.LastIndexByte(token, '.')}
	if dots[0] == dots[1] || strings.Count(token, ".") != 2 {
		return "", nil, nil, nil, refuse("it has not three parts")
	}
	if strings.ContainsAny(token, "\r\n") { // base64 would pass over them
		return "", nil, nil, nil, refuse("it has line breaks")
	}
	s.parts = s.parts[:0]
	ends := [3]int{}
	for i, part := range []string{token[:dots[0]], token[dots[0]+1 : dots[1]], token[dots[1]+1:]} {
		if s.parts, err = base64URL.AppendDecode(s.parts, []byte(part)); err != nil {
			return "", nil, nil, nil, refuse("part %d is not base64url without padding", i+1)
		}
		ends[i] = len(s.parts)
	}
	return token[:dots[1]], s.parts[:ends[0]], s.parts[ends[0]:ends[1]], s.parts[ends[1]:], nil
}

// document reads one object and nothing behind it.
func (s *scratch) document(what string, b []byte, member func(name []byte) error) error {
	s.buf = *bytes.NewBuffer(b)
	s.dec.Reset(&s.buf)
	if err := s.object(what, member); err != nil {
		return err
	}
	if _, err := s.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return refuse("%s is not one JSON object", what)
	}
	return nil
}

// object calls member with the name of each member, which must read its value. The name is the scratch's: reading an object
// overwrites it.
func (s *scratch) object(what string, member func(name []byte) error) error {
	t, err := s.dec.ReadToken()
	if err != nil {
		return broken(what, err)
	}
	if t.Kind() != '{' {
		return refuse("%s is not an object", what)
	}
	for s.dec.PeekKind() == '"' {
		v, err := s.dec.ReadValue()
		if err != nil {
			return broken(what, err)
		}
		if s.name, err = jsontext.AppendUnquote(s.name[:0], v); err != nil {
			return broken(what, err)
		}
		if err := member(s.name); err != nil {
			return err
		}
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return broken(what, err)
	}
	return nil
}

// text reads a string.
func (s *scratch) text(what string, most int) (string, error) {
	t, err := s.dec.ReadToken()
	if err != nil {
		return "", broken(what, err)
	}
	if t.Kind() != '"' {
		return "", refuse("%s is not a string", what)
	}
	text := t.String()
	if len(text) > most {
		return "", refuse("%s of %d bytes, the limit is %d", what, len(text), most)
	}
	return text, nil
}

// value reads any value; it is valid until the next call.
func (s *scratch) value(what string) (jsontext.Value, error) {
	v, err := s.dec.ReadValue()
	if err != nil {
		return nil, broken(what, err)
	}
	return v, nil
}

// skip passes over a value that is not for us, if it nests no deeper than any JSON may.
func (s *scratch) skip(what string) error {
	for depth := s.dec.StackDepth(); ; {
		if _, err := s.dec.ReadToken(); err != nil {
			return broken(what, err)
		}
		switch now := s.dec.StackDepth(); {
		case now == depth:
			return nil
		case now > message.MaxDepth:
			return refuse("%s nests deeper than %d", what, message.MaxDepth)
		}
	}
}

// broken is what the decoder refused; its own texts quote the input.
func broken(what string, err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return refuse("%s has a duplicate name", what)
	}
	return refuse("%s is not valid JSON in UTF-8", what)
}
