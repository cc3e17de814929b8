package frame

import (
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// timeBytes is the length of a time as appendTime writes it.
	timeBytes = len(`"2006-01-02T15:04:05.000Z"`)
	// maxMillis is the last millisecond of the year 9999: RFC 3339 has four digits for the year.
	maxMillis = 253402300799999

	hexDigits = "0123456789abcdef"
)

// appendQuoted appends s as a JSON string. What is no UTF-8 is replaced, so that the frame is text whatever s is.
func appendQuoted(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	b = append(b, '"')
	plain := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[plain:i]...)
		if c < 0x20 {
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, '\\', c)
		}
		plain = i + 1
	}
	return append(append(b, s[plain:]...), '"')
}

// appendJSON appends a JSON value as it is; none is null.
func appendJSON(b, v []byte) []byte {
	if len(v) == 0 {
		return append(b, "null"...)
	}
	return append(b, v...)
}

// appendTime appends Unix milliseconds as a JSON string: RFC 3339, UTC, milliseconds. Times before 1970 and after 9999
// are shown as the nearest one that is not.
func appendTime(b []byte, ms int64) []byte {
	t := time.UnixMilli(min(max(ms, 0), maxMillis)).UTC()
	year, month, day := t.Date()
	hour, minute, sec := t.Clock()
	b = appendPair(append(b, '"'), year/100)
	b = appendPair(b, year%100)
	b = appendPair(append(b, '-'), int(month))
	b = appendPair(append(b, '-'), day)
	b = appendPair(append(b, 'T'), hour)
	b = appendPair(append(b, ':'), minute)
	b = appendPair(append(b, ':'), sec)
	milli := t.Nanosecond() / 1e6
	b = append(b, '.', byte('0'+milli/100))
	return append(appendPair(b, milli%100), 'Z', '"')
}

// appendPair appends n, below 100, as two digits.
func appendPair(b []byte, n int) []byte {
	return append(b, byte('0'+n/10), byte('0'+n%10))
}
