package redis

import (
	"math/bits"
	"strconv"
	"strings"
	"sync"
)

// slotCount is how many slots a cluster has. A key, and a channel, lies in one; and a slot belongs to one primary.
const slotCount = 16384

// crcTable is that of CRC-16/XMODEM.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// slotOf is the slot of a key or a channel: what stands between its first { and the } behind it decides, if that is something.
func slotOf(key string) uint16 {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	crc := uint16(0)
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return crc % slotCount
}

// slotTags has for each slot a number that, written in base 36, lies in it.
var slotTags = sync.OnceValue(func() *[slotCount]uint32 {
	tags, found := new([slotCount]uint32), 0
	for n := uint32(1); found < slotCount; n++ {
		if slot := slotOf(strconv.FormatUint(uint64(n), 36)); tags[slot] == 0 {
			tags[slot] = n
			found++
		}
	}
	return tags
})

// slotTag is a hash tag that puts what has it into a slot.
func slotTag(slot uint16) string {
	return "{" + strconv.FormatUint(uint64(slotTags()[slot]), 36) + "}"
}

// slots is a set of slots.
type slots [slotCount / 64]uint64

func (s *slots) add(slot uint16)      { s[slot/64] |= 1 << (slot % 64) }
func (s *slots) has(slot uint16) bool { return s[slot/64]&(1<<(slot%64)) != 0 }

func (s *slots) with(o *slots) (r slots) {
	for i := range s {
		r[i] = s[i] | o[i]
	}
	return r
}

func (s *slots) without(o *slots) (r slots) {
	for i := range s {
		r[i] = s[i] &^ o[i]
	}
	return r
}

// first is the least in it; false: it is empty.
func (s *slots) first() (uint16, bool) {
	for i, w := range s {
		if w != 0 {
			return uint16(64*i + bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

func (s *slots) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// allSlots is what a Redis has that is no cluster.
var allSlots = func() (s slots) {
	for i := range s {
		s[i] = ^uint64(0)
	}
	return s
}()
