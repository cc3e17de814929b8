package broker

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// claim publishes with a key.
func claim(t *testing.T, b *Memory, room message.Room, key string) (Receipt, error) {
	t.Helper()
	return b.Publish(t.Context(), Publication{Message: say(room, "1"), Caller: "ann", Key: key})
}

func TestAKeyIsRememberedForItsTimeAndNotLonger(t *testing.T) {
	inBubble(t, MemoryConfig{IdempotencyTTL: time.Minute}, func(t *testing.T, b *Memory) {
		first, _ := claim(t, b, "general", "k")
		time.Sleep(time.Minute - time.Millisecond)
		if again, err := claim(t, b, "general", "k"); err != nil || !again.Duplicate || again.ID != first.ID {
			t.Errorf("just before: %+v, %v, want a duplicate of %+v", again, err, first)
		}
		time.Sleep(time.Millisecond)
		second, err := claim(t, b, "general", "k") // no repeat has made it live longer
		if err != nil || second.Duplicate {
			t.Errorf("afterwards: %+v, %v, want a publication", second, err)
		}
		if again, _ := claim(t, b, "general", "k"); !again.Duplicate || again.ID != second.ID {
			t.Errorf("once more: %+v, want a duplicate of %+v", again, second)
		}
		if got := b.keys.Load(); got != 1 {
			t.Errorf("%d keys are remembered, want 1", got)
		}
	})
}

func TestKeysOfIdleRoomsAreForgotten(t *testing.T) {
	inBubble(t, MemoryConfig{Retention: Retention{Messages: -1}, IdempotencyTTL: 2 * time.Hour}, func(t *testing.T, b *Memory) {
		for i := range 200 {
			if _, err := claim(t, b, message.Room(fmt.Sprint("room-", i%50)), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2*time.Hour - time.Second)
		synctest.Wait()
		if keys, rooms := b.keys.Load(), known(b); keys != 200 || rooms != 50 {
			t.Errorf("before: %d keys in %d rooms, want 200 in 50, which the keys hold", keys, rooms)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if keys, rooms := b.keys.Load(), known(b); keys != 0 || rooms != 0 {
			t.Errorf("after: %d keys in %d rooms, want none", keys, rooms)
		}
	})
}

func TestKeysAboveTheBoundAreRefusedUntilOthersExpire(t *testing.T) {
	inBubble(t, MemoryConfig{MaxKeys: 3, IdempotencyTTL: time.Minute}, func(t *testing.T, b *Memory) {
		for i := range 3 {
			if _, err := claim(t, b, "general", fmt.Sprint(i)); err != nil {
				t.Fatalf("key %d: %v", i, err)
			}
		}
		for range 10 {
			if _, err := claim(t, b, "other", "k"); !errors.Is(err, ErrOverloaded) {
				t.Errorf("a key above the bound: %v, want ErrOverloaded", err)
			}
		}
		if p := page(t, b, message.Query{Room: "other", Limit: 1}); p.Tip != 0 {
			t.Error("what was refused was published")
		}
		if r, err := claim(t, b, "general", "1"); err != nil || !r.Duplicate {
			t.Errorf("a known key: %+v, %v, want a duplicate", r, err)
		}
		publish(t, b, say("other", "1")) // without a key
		time.Sleep(time.Minute + 10*time.Second)
		synctest.Wait()
		if _, err := claim(t, b, "other", "k"); err != nil {
			t.Errorf("a key when the others have expired: %v, want nil", err)
		}
	})
}

func TestCallerAndKeyCannotBeCutElsewhere(t *testing.T) {
	seen := make(map[keyHash]string)
	for _, c := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc", ""}, {"ab\x00", "c"}, {"ab", "\x00c"}, {"\x02ab", "c"}} {
		h := hashKey(c[0], c[1])
		if other, twice := seen[h]; twice {
			t.Errorf("%q and %q have one hash", c, other)
		}
		seen[h] = fmt.Sprint(c)
	}
}
