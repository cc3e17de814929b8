package message

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The layout, written out by hand: 48 bits ms, 0111, 12 bits seq, 10, P, 13 bits tag, 16 bits node, 32 bits counter.
func TestAnIDHasTheBitsThatTheProtocolGivesIt(t *testing.T) {
	const (
		ms      = 0x0193a1b2c3d4
		seq     = 0xabc
		tag     = 0x1234 // 13 bits: 1 0010 0011 0100
		node    = 0xbeef
		counter = 0x00c0ffee
	)
	for _, c := range []struct {
		name     string
		unstored bool
		want     string
	}{
		// 10 0 1001000110100 = 1001 0010 0011 0100
		{"stored", false, "0193a1b2-c3d4-7abc-9234-beef00c0ffee"},
		// 10 1 1001000110100 = 1011 0010 0011 0100
		{"not stored", true, "0193a1b2-c3d4-7abc-b234-beef00c0ffee"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &Minter{node: node}
			m.counter.Store(counter - 1)
			id := ID{Position: At(ms, seq), Low: m.Low(tag, c.unstored)}
			if got := id.String(); got != c.want {
				t.Errorf("id = %s, want %s", got, c.want)
			}
			if got, ok := ParseID(c.want); !ok || got != id {
				t.Errorf("ParseID(%s) = %v, %v, want %v", c.want, got, ok, id)
			}
			l := id.Low
			if l.Unstored() != c.unstored || l.Tag() != tag || l.Node() != node {
				t.Errorf("read back P=%v tag=%#x node=%#x, want %v %#x %#x", l.Unstored(), l.Tag(), l.Node(), c.unstored, tag, node)
			}
			if p := id.Position; p.Millis() != ms || p.Seq() != seq || !p.Time().Equal(time.UnixMilli(ms)) {
				t.Errorf("read back ms=%#x seq=%#x time=%v", p.Millis(), p.Seq(), p.Time())
			}
		})
	}
}

func TestTheWidestFieldsStayInTheirPlace(t *testing.T) {
	m := NewMinter(math.MaxUint16)
	m.counter.Store(math.MaxUint32 - 1)
	full := ID{Position: At(1<<48-1, 1<<12-1), Low: m.Low(math.MaxUint16, true)}
	if got, want := full.String(), "ffffffff-ffff-7fff-bfff-ffffffffffff"; got != want {
		t.Errorf("all ones = %s, want %s", got, want)
	}
	m = NewMinter(0)
	m.counter.Store(math.MaxUint32) // wraps
	if got, want := (ID{Low: m.Low(0, false)}).String(), "00000000-0000-7000-8000-000000000000"; got != want {
		t.Errorf("all zeros = %s, want %s", got, want)
	}
	if got := At(1<<48, 1<<12); got != 0 {
		t.Errorf("At beyond its fields = %d, want 0: they must not spill over", got)
	}
}

func TestPositionsCompareAsTimesAndCountOn(t *testing.T) {
	last := At(1000, 4095)
	if got, want := last.Next(), At(1001, 0); got != want {
		t.Errorf("after seq 4095 comes %d.%d, want %d.%d", got.Millis(), got.Seq(), want.Millis(), want.Seq())
	}
	if got, want := At(1000, 7).Next(), At(1000, 8); got != want {
		t.Errorf("next = %v, want %v", got, want)
	}
	if a, b := At(1000, 4095), At(1001, 0); a >= b {
		t.Errorf("a later millisecond must be a greater position: %d, %d", a, b)
	}
	for _, c := range []struct {
		name string
		from Position
		d    time.Duration
		want Position
	}{
		{"thirty seconds", At(100_000, 9), 30 * time.Second, At(70_000, 9)},
		{"nothing", At(100_000, 9), 0, At(100_000, 9)},
		{"less than a millisecond", At(100_000, 9), time.Millisecond - 1, At(100_000, 9)},
		{"to the first place there is", At(30_000, 1), 30 * time.Second, At(0, 1)},
		{"exactly to zero, which is no position", At(30_000, 0), 30 * time.Second, 1},
		{"beyond the beginning", At(1, 0), time.Hour, 1},
		{"the longest duration there is", At(1<<41, 0), math.MaxInt64, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.from.Before(c.d); got != c.want {
				t.Errorf("Before(%v) = %d.%d, want %d.%d", c.d, got.Millis(), got.Seq(), c.want.Millis(), c.want.Seq())
			}
		})
	}
}

func TestOnlyTheZeroIDIsNone(t *testing.T) {
	if !(ID{}).IsZero() || (ID{Position: 1}).IsZero() || (ID{Low: 1}).IsZero() {
		t.Error("IsZero must hold for the zero ID alone")
	}
}

func TestAnIDIsReadInEitherCaseAndShownInLower(t *testing.T) {
	const s = "0193A1B2-C3D4-7ABC-B234-BEEF00C0FFEE"
	id, ok := ParseID([]byte(s))
	if !ok || id.String() != strings.ToLower(s) {
		t.Errorf("ParseID(%s) = %s, %v", s, id, ok)
	}
}

func TestWhatIsNoIDIsNone(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                       "",
		"the word undefined":          "undefined",
		"the word null":               "null",
		"version 4":                   "0193a1b2-c3d4-4abc-9234-beef00c0ffee",
		"variant 0":                   "0193a1b2-c3d4-7abc-7234-beef00c0ffee",
		"variant 110":                 "0193a1b2-c3d4-7abc-c234-beef00c0ffee",
		"without dashes":              "0193a1b2c3d47abc9234beef00c0ffee",
		"braced":                      "{0193a1b2-c3d4-7abc-9234-beef00c0ffee}",
		"one short":                   "0193a1b2-c3d4-7abc-9234-beef00c0ffe",
		"one long":                    "0193a1b2-c3d4-7abc-9234-beef00c0ffee0",
		"a dash too many":             "0193a1b2-c3d4-7abc-9234-beef00c0f-ee",
		"a letter beyond f":           "0193a1b2-c3d4-7abc-9234-beef00c0ffeg",
		"a dash of another alphabet":  "0193a1b2-c3d4-7abc-9234\u2010eef00c0ffe",
		"a sign where a digit stands": "+193a1b2-c3d4-7abc-9234-beef00c0ffee",
	} {
		t.Run(name, func(t *testing.T) {
			if id, ok := ParseID(s); ok || !id.IsZero() {
				t.Errorf("ParseID(%q) = %v, %v, want none", s, id, ok)
			}
		})
	}
}

var uuidv7 = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$`)

func FuzzParseID(f *testing.F) {
	f.Add("0193a1b2-c3d4-7abc-9234-beef00c0ffee")
	f.Add("FFFFFFFF-FFFF-7FFF-BFFF-FFFFFFFFFFFF")
	f.Add("0193a1b2-c3d4-4abc-9234-beef00c0ffee")
	f.Add("0193a1b2-c3d4-7abc-9234-beef00c0f-ee")
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := ParseID(s)
		if want := uuidv7.MatchString(s); ok != want {
			t.Fatalf("ParseID(%q) = %v, want %v", s, ok, want)
		}
		if !ok {
			return
		}
		if got := id.String(); got != strings.ToLower(s) {
			t.Fatalf("%s is shown as %s", s, got)
		}
		raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
		if err != nil {
			t.Fatal(err)
		}
		high, low := binary.BigEndian.Uint64(raw), binary.BigEndian.Uint64(raw[8:])
		if id.Position != At(int64(high>>16), int(high&0xfff)) || id.Low != Low(low) {
			t.Fatalf("%s is read as %v", s, id)
		}
	})
}

func TestANodeNeverMakesAnIdentityTwice(t *testing.T) {
	const routines, each = 8, 500
	m := NewMinter(3)
	var mu sync.Mutex
	seen := make(map[Low]bool)
	var wg sync.WaitGroup
	for range routines {
		wg.Go(func() {
			for i := range each {
				l := m.Low(uint16(i), i%2 == 0)
				mu.Lock()
				if seen[l] {
					t.Errorf("%x was made twice", l)
				}
				seen[l] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != routines*each {
		t.Errorf("%d identities, want %d", len(seen), routines*each)
	}
}

func TestANodeStartedAgainBeginsElsewhere(t *testing.T) {
	begins := make(map[uint32]bool)
	for range 8 {
		begins[NewMinter(1).counter.Load()] = true
	}
	if len(begins) < 7 { // two of eight alike: once in 150 million runs
		t.Errorf("eight starts begin at %d counts: a restart repeats identities", len(begins))
	}
	if NewMinter(9).Node() != 9 {
		t.Error("a minter forgets its node")
	}
}

func BenchmarkIDAppend(b *testing.B) {
	id := ID{Position: At(1_700_000_000_000, 5), Low: NewMinter(1).Low(2, false)}
	buf := make([]byte, 0, IDBytes)
	b.ReportAllocs()
	for b.Loop() {
		buf = id.AppendTo(buf[:0])
	}
}

func BenchmarkParseID(b *testing.B) {
	s := fmt.Sprint(ID{Position: At(1_700_000_000_000, 5), Low: NewMinter(1).Low(2, false)})
	b.ReportAllocs()
	for b.Loop() {
		ParseID(s)
	}
}
