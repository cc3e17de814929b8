package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes is a size, written as a number with an optional B, KiB, MiB or GiB.
type Bytes int64

var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads "64KiB" and "65536".
func (b *Bytes) UnmarshalText(text []byte) error {
	s, unit := string(text), int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = rest, u.size
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is not a size such as 64KiB, 256MiB or 1GiB", text)
	}
	*b = Bytes(n * unit)
	return nil
}

func (b Bytes) String() string {
	for _, u := range units {
		if int64(b) >= u.size && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}
