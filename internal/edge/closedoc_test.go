package edge

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A person who writes a program against the protocol reads the document: it says what the server does.
func TestTheDocumentedCloseCodesAreTheTable(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	var told []CloseRule
	for _, row := range regexp.MustCompile(`(?m)^\| ([14]\d{3}) \| ([^|]*?) ?\| (yes|no) \|`).FindAllStringSubmatch(string(doc), -1) {
		code, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, CloseRule{CloseCode(code), row[3] == "yes", row[2]})
	}
	if diff := cmp.Diff(CloseCodes(), told); diff != "" {
		t.Errorf("docs/protocol.md tells another table (-server +document):\n%s", diff)
	}
}
