package sim

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// Random traces of scripts, and of what may befall their keys, run on a real server and on the model. The server's clock is
// read before and after each: the model agrees if it does, at a time in between, what the server has done.
func TestTheModelDoesWhatRedisDoes(t *testing.T) {
	t.Parallel()
	// With one entry per node of a stream, a server that is asked to trim about so much trims exactly.
	actual := newActual(t, redistest.Start(t, "--stream-node-max-entries", "1").Addr)
	seed, runs := uint64(1), 0
	for end := time.Now().Add(traceTime); runs < traces && (runs < leastTraces || time.Now().Before(end)); runs++ {
		tr := &trace{
			t: t, actual: actual, rand: rand.New(rand.NewPCG(seed, uint64(runs))), model: data{}, ch: fmt.Sprintf("t%d:room", runs),
			now: time.Now().UnixMilli(),
		}
		tr.run()
		if t.Failed() {
			t.Fatalf("trace %d of seed %d:\n%s", runs, seed, strings.Join(tr.said, "\n"))
		}
	}
	t.Logf("%d traces, %d scripts, of which %d failed as they should", runs, actual.scripts, actual.errors)
	if actual.errors == 0 {
		t.Error("no script has failed: the traces do not try what they should")
	}
}

const (
	traces      = 4000
	leastTraces = 2000
	traceTime   = 10 * time.Second
)

// actual is a connection to a server, one as a user who may not publish, and what was published.
type actual struct {
	t               *testing.T
	client, mute    rueidis.Client
	sha             map[redis.Script]string
	published       chan published
	scripts, errors int
}

func newActual(t *testing.T, addr string) *actual {
	t.Helper()
	open := func(user string) rueidis.Client {
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true, Username: user, Password: "x"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	r := &actual{t: t, client: open("default"), sha: make(map[redis.Script]string), published: make(chan published, 1<<16)}
	r.do(r.client, "ACL", "SETUSER", "mute", "on", ">x", "~*", "+@all", "resetchannels")
	r.mute = open("mute")
	for s, name := range map[redis.Script]string{
		redis.ScriptPublish: "publish", redis.ScriptDelete: "delete", redis.ScriptRestore: "restore",
		redis.ScriptLease: "lease", redis.ScriptLeaseEnd: "lease_end", redis.ScriptRevoke: "revoke",
	} {
		lua, err := os.ReadFile("../" + name + ".lua")
		if err != nil {
			t.Fatal(err)
		}
		m := r.do(r.client, "SCRIPT", "LOAD", string(lua))
		if r.sha[s], err = m.ToString(); err != nil {
			t.Fatal(err)
		}
	}
	confirmed := make(chan struct{})
	d, release := r.client.Dedicate()
	d.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage:      func(m rueidis.PubSubMessage) { r.published <- published{m.Channel, m.Message} },
		OnSubscription: func(rueidis.PubSubSubscription) { close(confirmed) },
	})
	t.Cleanup(release)
	if err := d.Do(t.Context(), d.B().Psubscribe().Pattern("t*").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	<-confirmed
	return r
}

func (r *actual) do(c rueidis.Client, args ...string) rueidis.RedisMessage {
	r.t.Helper()
	m, err := c.Do(r.t.Context(), c.B().Arbitrary(args[0]).Args(args[1:]...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		r.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return m
}

// between runs a command and tells between which times.
func (r *actual) between(c rueidis.Client, args ...string) (reply []string, from, to int64, err error) {
	rs := c.DoMulti(r.t.Context(), c.B().Time().Build(), c.B().Arbitrary(args[0]).Args(args[1:]...).Build(), c.B().Time().Build())
	at := [2]int64{}
	for i, res := range []rueidis.RedisResult{rs[0], rs[2]} {
		v, err := res.AsStrSlice()
		if err != nil {
			r.t.Fatal(err)
		}
		at[i] = number(v[0])*1000 + number(v[1])/1000
	}
	m, err := rs[1].ToMessage()
	if err != nil {
		return nil, at[0], at[1], err
	}
	return flat(r.t, m), at[0], at[1], nil
}

func flat(t *testing.T, m rueidis.RedisMessage) []string {
	t.Helper()
	list, err := m.ToArray()
	if err != nil {
		list = []rueidis.RedisMessage{m}
	}
	out := make([]string, len(list))
	for i := range list {
		if n, err := list[i].ToInt64(); err == nil {
			out[i] = strconv.FormatInt(n, 10)
		} else if out[i], err = list[i].ToString(); err != nil && !rueidis.IsRedisNil(err) {
			t.Fatal(err)
		}
	}
	return out
}

// written is a message that was stored, as a journal has it.
type written struct{ pos, prev, env string }

// trace is one random trace in one room.
type trace struct {
	t       *testing.T
	actual  *actual
	rand    *rand.Rand
	model   data
	ch      string
	frames  []published
	said    []string
	journal []written
	envs    []string // all that was ever sent
	lows    uint64
	now     int64
}

func (r *trace) key(kind string) string { return "rt:" + kind + ":{" + r.ch + "}" }

func (r *trace) keys() []string {
	ks := []string{r.key("s"), r.key("t"), r.key("x")}
	for i := range 4 {
		ks = append(ks, r.key("i")+strconv.Itoa(i))
	}
	return append(ks, r.key("nodes"), r.key("born"), r.key("rev"), r.key("rev")+":at", r.key("rev")+":v")
}

func (r *trace) odds(n, of int) bool { return r.rand.IntN(of) < n }

func (r *trace) run() {
	foreign := r.odds(1, 12)
	for range 3 + r.rand.IntN(12) {
		switch n := r.rand.IntN(100); {
		case n < 60:
			r.publish()
		case n < 66:
			r.script(redis.ScriptDelete, []string{r.key("s"), r.key("t"), r.key("x")}, []string{r.ch, "PUBLISH", "100"})
		case n < 78:
			r.restore()
		case n < 84:
			r.lose()
		case n < 88:
			r.junk()
		case n < 91 && foreign:
			r.foreign()
		case n < 94:
			r.lease()
		case n < 97:
			r.revoke()
		default:
			r.ahead()
		}
		if r.t.Failed() {
			return
		}
	}
	r.compare()
}

// script runs a script on both.
func (r *trace) script(s redis.Script, keys, args []string) []string {
	r.t.Helper()
	conn, mute := r.actual.client, r.odds(1, 40)
	if mute {
		conn = r.actual.mute
	}
	cmd := append([]string{"EVALSHA", r.actual.sha[s], strconv.Itoa(len(keys))}, append(slices.Clone(keys), args...)...)
	want, from, to, failed := r.actual.between(conn, cmd...)
	r.actual.scripts++
	if failed != nil {
		r.actual.errors++
	}
	r.said = append(r.said, fmt.Sprintf("%d %q %q -> %q %v", s, keys, args, want, failed))
	var got []string
	var err error
	held := ""
	if from < to { // the reply may not tell when it was
		held = r.held(keys[0])
	}
	for r.now = from; r.now <= to; r.now++ {
		c := call{data: r.model.clone(), now: r.now, mute: mute}
		got, err = c.run(s, keys, args)
		if slices.Equal(got, want) && word(err) == word(failed) && (from == to || shown(c.data[keys[0]]) == held) {
			r.model, r.frames = c.data, append(r.frames, c.out...)
			return got
		}
	}
	r.t.Errorf("at %d to %d the model says %q, %v", from, to, got, err)
	return nil
}

// word is the kind of an error; the library leaves the kind ERR out.
func word(err error) string {
	if err == nil {
		return ""
	}
	if w, _, _ := strings.Cut(err.Error(), " "); w == strings.ToUpper(w) {
		return w
	}
	return "ERR"
}

// raw runs a command on the server; f does the same to the model.
func (r *trace) raw(f func(now int64), args ...string) {
	r.t.Helper()
	reply, from, _, err := r.actual.between(r.actual.client, args...)
	r.said = append(r.said, fmt.Sprintf("%q -> %q %v", args, reply, err))
	if err != nil && !rueidis.IsRedisNil(err) {
		r.t.Fatalf("%q: %v", args, err)
	}
	f(from)
}

func (r *trace) env() string {
	if len(r.envs) > 0 && r.odds(1, 10) {
		return r.envs[r.rand.IntN(len(r.envs))]
	}
	r.lows++
	flags := 0
	if r.odds(1, 5) {
		flags = 4
	}
	return fmt.Sprintf("%08d%c%08d%s", r.lows, flags, r.rand.IntN(1e8), strings.Repeat("x", r.rand.IntN(40)))
}

// position is one that was given, or lies about there.
func (r *trace) position() string {
	if len(r.journal) == 0 {
		return strconv.FormatInt(r.now-5000, 10) + "-0"
	}
	at := parseID(r.journal[max(0, len(r.journal)-1-r.rand.IntN(12))].pos)
	if r.odds(1, 4) {
		at.ms -= uint64(r.rand.IntN(3))
	}
	return at.String()
}

func (r *trace) publish() {
	n := 1
	switch {
	case r.odds(1, 50):
		n = 60 + r.rand.IntN(70)
	case r.odds(2, 5):
		n = 2 + r.rand.IntN(7)
	}
	envs := make([]string, n)
	for i := range envs {
		envs[i] = r.env()
	}
	if len(r.envs) > 3 && r.odds(1, 6) { // the same again
		envs = slices.Clone(r.envs[len(r.envs)-1-r.rand.IntN(3):])
	}
	r.envs = append(r.envs, envs...)
	how, threshold := "MINID", strconv.FormatInt(r.now-int64(r.rand.IntN(20)), 10)
	if r.odds(1, 2) {
		how, threshold = "MAXLEN", strconv.Itoa(r.rand.IntN(40))
	}
	retry, guard := "", ""
	if r.odds(1, 3) {
		retry = r.position()
	}
	switch r.rand.IntN(6) {
	case 0:
		guard = r.position()
	case 1:
		guard = strconv.FormatInt(r.now+int64(r.rand.IntN(3000)), 10) + "-" + strconv.Itoa(r.rand.IntN(4096))
	case 2:
		guard = strconv.FormatInt(r.now+1e5, 10) + "-7"
	}
	keys := []string{r.key("s"), r.key("t")}
	args := append([]string{r.ch, "PUBLISH", how, threshold, "1000", "90000", "300", retry, guard}, envs...)
	if r.odds(1, 3) {
		index := make([]string, len(envs))
		for i := range envs {
			if r.odds(1, 2) {
				keys = append(keys, r.key("i")+strconv.Itoa(r.rand.IntN(4)))
				index[i] = strconv.Itoa(len(keys))
			}
		}
		if len(keys) > 2 {
			args = append(append(args, index...), strconv.Itoa(len(envs)))
		}
	}
	reply := r.script(redis.ScriptPublish, keys, args)
	if reply == nil {
		return
	}
	prev := reply[0]
	for i, say := range reply[1:] {
		if at, ok := strings.CutPrefix(say, "+"); ok {
			r.journal = append(r.journal, written{at, prev, envs[i]})
			prev = at
		}
	}
}

func (r *trace) restore() {
	if len(r.journal) == 0 {
		return
	}
	args := []string{r.ch, "PUBLISH", "1000", "90000", strconv.Itoa(2 + r.rand.IntN(30))}
	from := max(0, len(r.journal)-1-r.rand.IntN(20))
	some := slices.Clone(r.journal[from:])
	slices.SortFunc(some, func(a, b written) int { return parseID(a.pos).compare(parseID(b.pos)) })
	n := 0
	for _, w := range some {
		if !r.odds(2, 3) {
			continue
		}
		if r.odds(1, 10) {
			w.env = "othermsg" + w.env[8:]
		}
		args = append(args, w.pos, w.prev, w.env)
		n++
	}
	if n > 0 {
		r.script(redis.ScriptRestore, []string{r.key("s"), r.key("t"), r.key("x")}, args)
	}
}

// lose takes something out of the stream, or its end off, as a failover would.
func (r *trace) lose() {
	s, tip := r.key("s"), r.key("t")
	v := r.model[s]
	switch {
	case v == nil || v.kind != stream || len(v.entries) == 0 || r.odds(1, 5):
		for _, key := range []string{s, tip, r.key("x")} {
			if r.odds(1, 2) {
				r.raw(func(int64) { delete(r.model, key) }, "DEL", key)
			}
		}
	case r.odds(1, 3):
		at := v.entries[r.rand.IntN(len(v.entries))].id
		r.raw(func(now int64) { _ = r.model.xdel(s, now, at) }, "XDEL", s, at.String())
	default:
		keep := r.rand.IntN(len(v.entries))
		for _, e := range slices.Clone(v.entries[keep:]) {
			r.raw(func(now int64) { _ = r.model.xdel(s, now, e.id) }, "XDEL", s, e.id.String())
		}
		if keep > 0 {
			top := v.entries[keep-1].id
			r.raw(func(int64) { v.last = top }, "XSETID", s, top.String())
			r.raw(func(int64) { r.model.set(tip, top.String(), 0) }, "SET", tip, top.String())
		}
	}
}

// junk is what another program writes into the stream.
func (r *trace) junk() {
	s := r.key("s")
	v := r.model[s]
	if v == nil || v.kind != stream {
		return
	}
	fs := [][]string{{"other", "shape"}, {"p", "1-1", "d", "x"}, {"a", "1", "b", "2", "c", "3"}, {"p", "", "d", ""}}[r.rand.IntN(4)]
	at := id{v.last.ms + uint64(r.rand.IntN(2)), v.last.seq + 1}
	r.raw(func(now int64) { _, _ = r.model.xadd(s, now, trim{}, at, fs...) }, append([]string{"XADD", s, at.String()}, fs...)...)
}

// foreign puts something of another type under a key.
func (r *trace) foreign() {
	key := r.keys()[r.rand.IntN(7)]
	r.raw(func(int64) { delete(r.model, key) }, "DEL", key)
	if key == r.key("s") {
		r.raw(func(int64) { r.model.set(key, "text", 0) }, "SET", key, "text")
		return
	}
	r.raw(func(now int64) { _, _ = r.model.xadd(key, now, trim{}, id{5, 5}, "a", "b") }, "XADD", key, "5-5", "a", "b")
}

// ahead has the room's tip lie before the server's clock, or at the end of a millisecond.
func (r *trace) ahead() {
	tip := strconv.FormatInt(r.now+int64(r.rand.IntN(60_000)), 10) + "-" + []string{"4094", "4095", "1"}[r.rand.IntN(3)]
	r.raw(func(int64) { r.model.set(r.key("t"), tip, 0) }, "SET", r.key("t"), tip)
}

func (r *trace) lease() {
	inc := fmt.Sprintf("%d.boot.%d", r.rand.IntN(4), r.rand.IntN(2))
	keys := []string{r.key("nodes"), r.key("born"), r.key("rev") + ":v"}
	if r.odds(1, 4) {
		r.script(redis.ScriptLeaseEnd, keys[:1], []string{inc, "2"})
		return
	}
	if r.odds(1, 5) {
		inc = ""
	}
	r.script(redis.ScriptLease, keys, []string{inc, strconv.Itoa(1 + r.rand.IntN(5)), "10"})
}

func (r *trace) revoke() {
	expiry := ""
	if r.odds(3, 4) {
		expiry = strconv.Itoa(100 + r.rand.IntN(100))
	}
	rev := r.key("rev")
	r.script(redis.ScriptRevoke, []string{rev, rev + ":at", rev + ":v"}, []string{"u:" + strconv.Itoa(r.rand.IntN(3)), expiry, "7", strconv.Itoa(r.rand.IntN(200))})
}

// compare compares all that both hold, and what was published.
func (r *trace) compare() {
	for _, key := range r.keys() {
		m := r.actual.do(r.actual.client, "PEXPIRETIME", key)
		ends, err := m.ToInt64()
		if err != nil {
			r.t.Fatal(err)
		}
		want, got := r.held(key), shown(r.model[key])
		if want != got {
			r.t.Errorf("%s holds\n%s\nin the model\n%s", key, want, got)
		}
		if v := r.model[key]; v != nil && want != "" && (v.ends-max(ends, 0) > 50 || max(ends, 0)-v.ends > 50) {
			r.t.Errorf("%s ends at %d, in the model at %d", key, ends, v.ends)
		}
	}
	r.actual.do(r.actual.client, "PUBLISH", r.ch, "end")
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for _, want := range append(r.frames, published{r.ch, "end"}) {
		select {
		case got := <-r.actual.published:
			if got != want {
				r.t.Errorf("published %q, by the model %q", got, want)
				return
			}
		case <-ctx.Done():
			r.t.Errorf("not published: %q", want)
			return
		}
	}
}

// held is what the server holds under a key, as text.
func (r *trace) held(key string) string {
	m := r.actual.do(r.actual.client, "TYPE", key)
	switch kind, _ := m.ToString(); kind {
	case "stream":
		rs := r.actual.client.DoMulti(r.t.Context(),
			r.actual.client.B().XinfoStream().Key(key).Build(), r.actual.client.B().Xrange().Key(key).Start("-").End("+").Build())
		info, err := rs[0].AsMap()
		if err != nil {
			r.t.Fatal(err)
		}
		last := info["last-generated-id"]
		text, err := last.ToString()
		if err != nil {
			r.t.Fatal(err)
		}
		list, err := rs[1].ToArray()
		if err != nil {
			r.t.Fatal(err)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "last %s\n", text)
		for _, e := range list {
			pair, err := e.ToArray()
			if err != nil {
				r.t.Fatal(err)
			}
			name, _ := pair[0].ToString()
			fmt.Fprintf(&b, "%s %q\n", name, flat(r.t, pair[1]))
		}
		return b.String()
	case "string":
		m := r.actual.do(r.actual.client, "GET", key)
		s, _ := m.ToString()
		return fmt.Sprintf("%q", s)
	case "zset":
		m := r.actual.do(r.actual.client, "ZRANGE", key, "0", "-1", "WITHSCORES")
		list, err := m.ToArray()
		if err != nil {
			r.t.Fatal(err)
		}
		var b strings.Builder
		for _, e := range list { // the protocol has pairs
			pair, err := e.ToArray()
			if err != nil {
				r.t.Fatal(err)
			}
			name, _ := pair[0].ToString()
			score, _ := pair[1].ToFloat64()
			fmt.Fprintf(&b, "%s %.0f\n", name, score)
		}
		return b.String()
	case "hash":
		m := r.actual.do(r.actual.client, "HGETALL", key)
		all, err := m.AsStrMap()
		if err != nil {
			r.t.Fatal(err)
		}
		return fmt.Sprint(all)
	}
	return ""
}

// shown is the same of the model.
func shown(v *value) string {
	switch {
	case v == nil || v.kind == scores && len(v.scores) == 0 || v.kind == fields && len(v.fields) == 0:
		return ""
	case v.kind == stream:
		var b strings.Builder
		fmt.Fprintf(&b, "last %s\n", cmp.Or(v.last.String(), "0-0"))
		for _, e := range v.entries {
			fmt.Fprintf(&b, "%s %q\n", e.id, e.fields)
		}
		return b.String()
	case v.kind == text:
		return fmt.Sprintf("%q", v.text)
	case v.kind == scores:
		var b strings.Builder
		for _, name := range v.scored(lowest, highest, 0) {
			fmt.Fprintf(&b, "%s %d\n", name, v.scores[name])
		}
		return b.String()
	}
	return fmt.Sprint(maps.Collect(maps.All(v.fields)))
}
