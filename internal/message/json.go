package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep a JSON value may nest, wherever it comes from.
const MaxDepth = 32

// checker is a decoder that holds no input between two uses, and the buffer it reads from.
type checker struct {
	buf bytes.Buffer
	dec *jsontext.Decoder
}

var checkers = sync.Pool{New: func() any {
	c := &checker{}
	c.dec = jsontext.NewDecoder(&c.buf)
	return c
}}

// CheckJSON accepts exactly one JSON value: valid UTF-8, no duplicate keys, at most MaxDepth deep. Numbers are not read,
// so none is ever rounded. The error is an *Error around ErrInvalidData and quotes nothing of the input.
func CheckJSON(data []byte) error {
	if tooDeep(data) {
		return invalidData(fmt.Sprintf("data nests deeper than %d", MaxDepth))
	}
	c := checkers.Get().(*checker)
	c.buf = *bytes.NewBuffer(data)
	_, err := c.dec.ReadValue()
	if err == nil {
		if _, err = c.dec.ReadToken(); errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = errors.New("more than one value")
		}
	}
	c.buf = bytes.Buffer{} // the pool must not keep the input alive
	c.dec.Reset(&c.buf)
	checkers.Put(c)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalidData("data has a duplicate key")
	default:
		return invalidData("data is not one valid JSON value in UTF-8")
	}
}

func invalidData(text string) error {
	return &Error{Err: ErrInvalidData, Field: "data", Text: text}
}

// tooDeep counts brackets outside strings. It runs before the decoder, so that a hostile depth costs one pass; on invalid
// JSON its answer does not matter.
func tooDeep(b []byte) bool {
	depth, in := 0, false
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			in = !in
		case '\\':
			if in {
				i++
			}
		case '{', '[':
			if !in {
				if depth++; depth > MaxDepth {
					return true
				}
			}
		case '}', ']':
			if !in {
				depth--
			}
		}
	}
	return false
}

// hasKey tells whether data, which CheckJSON accepted, is an object with this key, however its name is escaped.
func hasKey(data []byte, key string) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return false
	}
	for dec.PeekKind() == '"' {
		tok, err := dec.ReadToken()
		if err != nil {
			return false
		}
		if tok.String() == key {
			return true
		}
		if dec.SkipValue() != nil {
			return false
		}
	}
	return false
}
