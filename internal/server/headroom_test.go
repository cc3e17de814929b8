package server

import "testing"

func TestAScrapeTellsHowManySessionsThereMayBe(t *testing.T) {
	r := StartServer(t, "--max-sessions=700")
	if _, values := r.scrape(); values["realtime_sessions_limit"] != 700 {
		t.Errorf("realtime_sessions_limit is %v, want that of --max-sessions", values["realtime_sessions_limit"])
	}
}
