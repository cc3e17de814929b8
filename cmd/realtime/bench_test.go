package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestBenchStartsNodesThatShareARedisAndHarmsIt(t *testing.T) {
	t.Setenv(asProcess, "1")
	t.Setenv("REALTIME_EDGE_ADDR", "no address at all") // nodes of the run take none of the environment's options
	var out, errs bytes.Buffer
	args := strings.Fields("bench --nodes=2 --sessions=12 --rooms=2 --rate=100 --flap=4 --warmup=100ms --duration=1200ms --settle=1s --fault=kill-all --fault-every=500ms --fault-for=10ms")
	if err := run(context.WithoutCancel(t.Context()), args, &out, &errs); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	if text := out.String(); strings.Count(text, "kill-all") != 3 || !strings.Contains(text, "12 held at the end") {
		t.Errorf("it prints:\n%s", text)
	}
}
