package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// What others have written is printed so that it can neither begin a line nor act upon a terminal.

// printJSON prints one object on a line.
func printJSON(w io.Writer, m proto.Message) error {
	b, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// printMessage prints `time room type from data`.
func printMessage(w io.Writer, m *realtimev1.Message) error {
	_, err := fmt.Fprintf(w, "%s %s %s %s %s\n", stamp(m.GetTimestamp()), word(m.GetRoom()), word(m.GetType()), word(m.GetFrom()), oneLine(m.GetData()))
	return err
}

// stamp is a time, or a dash if there is none.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Format("2006-01-02T15:04:05.000Z")
}

// word is s without blanks: quoted if need be, a dash if empty.
func word(s string) string {
	if s == "" {
		return "-"
	}
	if s == "-" || strings.ContainsFunc(s, func(r rune) bool { return r == '"' || unicode.IsSpace(r) || !unicode.IsGraphic(r) }) {
		return strconv.QuoteToGraphic(s)
	}
	return s
}

// oneLine is the same JSON value without the blanks between its tokens. What does not print is escaped in its strings.
func oneLine(data string) string {
	if data == "" {
		return "null"
	}
	v := jsontext.Value(data)
	if v.Compact() != nil { // not a node's
		return strconv.QuoteToGraphic(data)
	}
	return printable(string(v))
}

// printable escapes what does not print, as JSON does.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// label is an enum's value as a word: GAP_REASON_LOST is lost.
func label(prefix string, value fmt.Stringer) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// notes are what a receipt says besides the id.
func notes(r *realtimev1.Receipt) string {
	var all []string
	if r.GetDuplicate() {
		all = append(all, "duplicate")
	}
	if r.GetDegraded() {
		all = append(all, "degraded")
	}
	if all == nil {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// freshness tells what is not exact about an answer.
func freshness(e *env, f *realtimev1.Freshness) {
	if f.GetStale() {
		fmt.Fprintln(e.err, "stale: the broker is away, this is what the node last knew")
	}
	if f.GetApproximate() {
		fmt.Fprintln(e.err, "approximate: users on several nodes count more than once, or a node did not answer")
	}
}
