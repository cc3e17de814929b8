package words_test

import (
	"testing"

	"github.com/slack5/realtime/cmd/examples/moderation/words"
)

func TestBadWordsOfATextAreMaskedAndNothingElseIs(t *testing.T) {
	for data, want := range map[string]struct {
		masked string
		found  int
	}{
		`{"text":"darn it, Heck"}`:                  {`{"text":"**** it, ****"}`, 2},
		`{"text":"\u0064arn","n":9007199254740993}`: {`{"n":9007199254740993,"text":"****"}`, 1},
		`{"text":"darning socks"}`:                  {`{"text":"darning socks"}`, 0},
		`{"other":"darn"}`:                          {`{"other":"darn"}`, 0},
		`{"text":1}`:                                {`{"text":1}`, 0},
		`"darn"`:                                    {`"darn"`, 0},
		`{`:                                         {`{`, 0},
	} {
		if got, n := words.Mask([]byte(data)); string(got) != want.masked || n != want.found {
			t.Errorf("Mask(%s) = %s, %d, want %s, %d", data, got, n, want.masked, want.found)
		}
	}
}
