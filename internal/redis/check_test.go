package redis_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestACheckTellsWhatARedisIs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	r, err := redis.Check(t.Context(), options(t, server.Addr, "p:"))
	if err != nil || !strings.Contains(r.Version, ".") || len(r.Lacks) != 1 || !strings.Contains(r.Lacks[0], "noeviction: with allkeys-lru") {
		t.Errorf("Check = %+v, %v, want its version and that it evicts", r, err)
	}
	keys := server.Do("DBSIZE")
	if n, err := keys.AsInt64(); err != nil || n != 0 {
		t.Errorf("%d keys are left behind, %v", n, err)
	}
	server.Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	if r, err := redis.Check(t.Context(), options(t, server.Addr, "")); err != nil || len(r.Lacks) != 0 {
		t.Errorf("Check = %+v, %v, want nothing to be lacking", r, err)
	}
}

func TestAUserWithTheDocumentedRightsIsEnoughAndWithLessIsNot(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const prefix = "p:"
	rules := []string{"+@all", "-@dangerous", "~p:rt:*", "&p:rt:*", "&p:realtime:*"}
	check := func(rules ...string) (redis.Report, error) {
		server.Do(append([]string{"ACL", "SETUSER", "ann", "reset", "on", ">hunter2"}, rules...)...)
		o := options(t, server.Addr, prefix)
		o.Client.Username, o.Client.Password = "ann", "hunter2"
		return redis.Check(t.Context(), o)
	}
	r, err := check(rules...)
	if err != nil || len(r.Lacks) != 1 || !strings.Contains(r.Lacks[0], "INFO") {
		t.Errorf("Check = %+v, %v, want only INFO to be lacking", r, err)
	}
	for name, less := range map[string][]string{
		"no keys":           {"+@all", "&p:rt:*", "&p:realtime:*"},
		"keys of others":    {"+@all", "~rt:*", "&p:rt:*", "&p:realtime:*"},
		"no probes":         {"+@all", "~p:rt:*", "&p:realtime:*"},
		"no rooms":          {"+@all", "~p:rt:*", "&p:rt:*"},
		"no scripts":        {"+@all", "-@scripting", "~p:rt:*", "&p:rt:*", "&p:realtime:*"},
		"no subscriptions":  {"+@all", "-subscribe", "~p:rt:*", "&p:rt:*", "&p:realtime:*"},
		"nothing but hello": {"+hello"},
	} {
		_, err := check(less...)
		if _, unfit := errors.AsType[*redis.UnfitError](err); !unfit || !strings.Contains(err.Error(), server.Addr) || !strings.Contains(err.Error(), "p:rt:*") {
			t.Errorf("%s: %v, want it to name %s and the rights", name, err, server.Addr)
		}
	}
}

func TestAWrongPasswordIsToldWithTheHostAndNotThePassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("CONFIG", "SET", "requirepass", "right")
	for name, password := range map[string]string{"a wrong one": "hunter2", "none": ""} {
		o := options(t, server.Addr, "")
		o.Client.Password = password
		_, err := redis.Check(t.Context(), o)
		if _, unfit := errors.AsType[*redis.UnfitError](err); !unfit || !strings.Contains(err.Error(), server.Addr) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want it to name %s", name, err, server.Addr)
		}
	}
}

func TestARedisThatIsAwayOrFullMayStillCome(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("CONFIG", "SET", "maxmemory", "1000")
	_, err := redis.Check(t.Context(), options(t, server.Addr, ""))
	if _, unfit := errors.AsType[*redis.UnfitError](err); err == nil || unfit {
		t.Errorf("full: %v", err)
	}
	server.Kill()
	_, err = redis.Check(t.Context(), options(t, server.Addr, ""))
	if _, unfit := errors.AsType[*redis.UnfitError](err); err == nil || unfit {
		t.Errorf("away: %v", err)
	}
}

func TestSeveralAddressesWithoutSentinelsAreRefused(t *testing.T) {
	t.Parallel()
	o := options(t, redistest.Start(t).Addr, "")
	o.Client.InitAddress = append(o.Client.InitAddress, o.Client.InitAddress[0])
	_, err := redis.Check(t.Context(), o)
	if _, unfit := errors.AsType[*redis.UnfitError](err); !unfit || !strings.Contains(err.Error(), "master_set") {
		t.Errorf("Check = %v, want it to tell of master_set", err)
	}
}

func TestAClusterIsChecked(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	var o redis.Options
	rules := strings.Fields("reset on >hunter2 ~p:rt:* &p:rt:* &p:realtime:* +@all -@dangerous +info +role +cluster|slots")
	check := func(less ...string) (redis.Report, error) {
		for _, s := range slices.Concat(c.Primaries[:], c.Replicas[:]) { // rights are each server's own
			s.Do(slices.Concat([]string{"ACL", "SETUSER", "ann"}, rules, less)...)
		}
		o = options(t, c.Primaries[1].Addr, "p:")
		o.Client.InitAddress = append(o.Client.InitAddress, c.Replicas[0].Addr)
		o.Client.Username, o.Client.Password = "ann", "hunter2"
		return redis.Check(t.Context(), o)
	}
	r, err := check()
	if err != nil || !strings.Contains(r.Version, ".") || len(r.Lacks) != 0 {
		t.Errorf("Check = %+v, %v, want nothing to be lacking", r, err)
	}
	for right, want := range map[string]string{
		"-ssubscribe": "&p:realtime:*", "resetchannels": "&p:realtime:*", "resetkeys": "~p:rt:*", "-spublish": "&p:realtime:*",
	} {
		_, err := check(right)
		if _, unfit := errors.AsType[*redis.UnfitError](err); !unfit || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Check = %v, want it to name %s", right, err, want)
		}
	}
}

func TestAClusterThatHidesItsSlotsIsRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes")
	server.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	server.Do("ACL", "SETUSER", "ann", "on", ">hunter2", "+@all", "-cluster", "allkeys", "allchannels")
	o := options(t, server.Addr, "")
	o.Client.Username, o.Client.Password = "ann", "hunter2"
	_, err := redis.Check(t.Context(), o)
	if _, unfit := errors.AsType[*redis.UnfitError](err); !unfit || !strings.Contains(err.Error(), "+cluster|slots") {
		t.Errorf("Check = %v, want it to name the right", err)
	}
}

func TestSentinelsThatWantAPasswordGetTheirOwn(t *testing.T) {
	t.Parallel()
	k := redistest.StartSentinel(t)
	k.Do("ACL", "SETUSER", "watch", "on", ">hunter2", "+@all", "allchannels")
	k.Do("ACL", "SETUSER", "default", "off")
	for query, unfit := range map[string]bool{
		"": true, "&sentinel_username=watch&sentinel_password=guess": true, "&sentinel_username=watch&sentinel_password=hunter2": false,
	} {
		o := options(t, k.Addr, "")
		var err error
		if o.Client, err = redis.ParseURL("redis://" + k.Addr + "?master_set=" + k.Name + query); err != nil {
			t.Fatal(err)
		}
		_, err = redis.Check(t.Context(), o)
		if _, refused := errors.AsType[*redis.UnfitError](err); refused != unfit || !unfit && err != nil {
			t.Errorf("%s: Check = %v, want it refused: %t", query, err, unfit)
		}
	}
}
