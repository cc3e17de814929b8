// Package words finds bad words in what people write: a stand-in for whatever judges messages in earnest.
package words

import (
	"encoding/json"
	"regexp"
	"strings"
)

// bad are words that nobody should have to read.
var bad = regexp.MustCompile(`(?i)\b(darn|heck|blast)\b`)

// Mask returns a message's data with bad words in its text made asterisks, and how many there were. Data that is not an object
// with a text, or has none of them, comes back as it is.
func Mask(data []byte) (masked []byte, found int) {
	var fields map[string]json.RawMessage
	var text string
	if json.Unmarshal(data, &fields) != nil || json.Unmarshal(fields["text"], &text) != nil {
		return data, 0
	}
	clean := bad.ReplaceAllStringFunc(text, func(word string) string {
		found++
		return strings.Repeat("*", len(word))
	})
	if found == 0 {
		return data, 0
	}
	fields["text"], _ = json.Marshal(clean) // a string always marshals
	masked, _ = json.Marshal(fields)        // as does what was JSON
	return masked, found
}
