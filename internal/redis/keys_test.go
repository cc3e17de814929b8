package redis

import (
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/message"
)

func TestRoomsHaveLiteralChannels(t *testing.T) {
	for room, want := range map[message.Room]string{
		"general":                   "p:realtime:room:general",
		"a/b:c@d":                   "p:realtime:room:a/b:c@d",
		message.Global:              "p:realtime:global",
		message.UserRoom("u1"):      "p:realtime:user:u1",
		message.UserRoom("a b%{é}"): "p:realtime:user:a%20b%25%7B%C3%A9%7D",
	} {
		k := keys("p:")
		if got := k.channel(room); got != want {
			t.Errorf("channel(%q) = %q, want %q", room, got, want)
		}
		if got, ok := k.room(want); !ok || got != room {
			t.Errorf("room(%q) = %q, %v, want %q", want, got, ok, room)
		}
	}
}

func TestWhatIsNoRoomsChannelNamesNoRoom(t *testing.T) {
	for _, ch := range []string{
		"", "realtime:", "realtime:ctl", "realtime:room:", "realtime:room:.a", "realtime:room:a b", "realtime:room:{x}",
		"realtime:user:", "realtime:user:%", "realtime:user:%4", "realtime:user:%41", "realtime:user:%c3%a9", "realtime:user:a b",
		"realtime:user:%0A", "other:realtime:room:a", "__redis__:invalidate",
	} {
		if room, ok := keys("").room(ch); ok {
			t.Errorf("room(%q) = %q", ch, room)
		}
	}
}

func FuzzChannelsAndRoomsAreOneToOne(f *testing.F) {
	f.Add("a%20b", "realtime:user:a%20b")
	f.Add("{x}", "realtime:room:x")
	f.Fuzz(func(t *testing.T, user, ch string) {
		k := keys("")
		if room := message.UserRoom(user); message.CheckUser(user) == nil {
			got := k.channel(room)
			if strings.ContainsAny(got, "{}") {
				t.Errorf("channel(%q) = %q has a brace", room, got)
			}
			if back, ok := k.room(got); !ok || back != room {
				t.Errorf("room(channel(%q)) = %q, %v", room, back, ok)
			}
		}
		if room, ok := k.room(ch); ok && k.channel(room) != ch {
			t.Errorf("channel(room(%q)) = %q", ch, k.channel(room))
		}
	})
}
