package sim

import (
	"context"
	"strings"
	"testing"
	"time"
)

// logTable shows what a run printed, where the test fails or -v asks.
func logTable(t testing.TB, r Report) {
	t.Helper()
	var b strings.Builder
	r.Print(&b)
	t.Log("\n" + b.String())
}

// runOverlay runs 60 nodes for 10 minutes, as changed, and logs the table.
func runOverlay(t testing.TB, change func(*OverlayConfig)) *Result {
	t.Helper()
	cfg := DefaultOverlay()
	cfg.Nodes, cfg.Duration = 60, 10*time.Minute
	change(&cfg)
	r, err := RunOverlay(context.Background(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	logTable(t, r)
	return r
}

func TestOverlayQuiet(t *testing.T) {
	r := runOverlay(t, func(c *OverlayConfig) { c.Churn, c.Loss, c.Lookups = "none", 0, 0.1 })
	if !r.Passed || r.Lost.Count > 0 || r.WrongBest.Count > 0 {
		t.Error("a quiet ring fails")
	}
}

// TestOverlayReplay: one seed, one history; the codec changes nothing.
func TestOverlayReplay(t *testing.T) {
	run := func(encode bool, churn string) *Result {
		return runOverlay(t, func(c *OverlayConfig) { c.Lookups, c.Encode, c.Churn = 0.1, encode, churn })
	}
	a, b := run(false, "poisson:30m"), run(false, "poisson:30m")
	if a.TraceHash != b.TraceHash {
		t.Error("one seed, two hashes")
	}
	if !a.Passed {
		t.Error("failed")
	}
	// Deadlines travel in whole ms: histories agree as long as none expires.
	c, d := run(false, "none"), run(true, "none")
	if c.TraceHash != d.TraceHash {
		t.Error("crossing the codec changes the history")
	}
	if d.ControlBytesS == 0 {
		t.Error("no bytes counted")
	}
}

// TestOverlaySeeds: the sum of seeds is what each of them gives alone.
func TestOverlaySeeds(t *testing.T) {
	cfg := DefaultOverlay()
	cfg.Nodes, cfg.Duration, cfg.Lookups, cfg.Seed = 40, 2*time.Minute, 0.1, 7
	all, err := RunOverlaySeeds(t.Context(), cfg, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	var best, owned int64
	for i, r := range all.Runs {
		c := cfg
		c.Seed += uint64(i)
		one, err := RunOverlay(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		if one.TraceHash != r.TraceHash {
			t.Errorf("seed %d has another history beside others", c.Seed)
		}
		if one.Cost == nil || one.Cost.HeapPerNode <= 0 || one.Cost.GarbagePerEvent <= 0 || r.Cost != nil {
			t.Errorf("seed %d: cost alone %+v, beside others %+v", c.Seed, one.Cost, r.Cost)
		}
		best, owned = best+one.WrongBest.Of, owned+one.WrongOwned.Of
	}
	if len(all.Runs) != 3 || all.Partial || !all.Passed || all.WrongBest.Of != best || all.WrongOwned.Of != owned || best == 0 {
		t.Errorf("%d runs, partial %v, passed %v, deliveries %d and %d of %d and %d", len(all.Runs), all.Partial, all.Passed,
			all.WrongBest.Of, all.WrongOwned.Of, best, owned)
	}
}

// TestReplayLine: a failure names the command that made the run, whatever
// made it.
func TestReplayLine(t *testing.T) {
	commit := commitFlag() // of the test's own binary: usually none
	for name, want := range map[string]string{
		"overlay-kill": "atoll sim --scenario overlay-kill --seed 3 --quick" + commit,
		"dht-calm":     "atoll sim --scenario dht-calm --seed 3 --quick" + commit,
	} {
		s, err := ScenarioByName(name)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r, err := s.Run(ctx, 3, Options{Quick: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		switch r := r.(type) {
		case *Result:
			got = r.Replay
		case *DHTResult:
			got = r.Replay
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	c := DefaultOverlay()
	if got := c.replay(); got != "atoll sim overlay --nodes 1000 --topology sphere --churn poisson:30m --loss 0.05 --lookups 0.01 --for 2h0m0s --seed 1"+commit {
		t.Error(got)
	}
}

func TestOverlayCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cfg := DefaultOverlay()
	cfg.Nodes, cfg.Duration = 60, 10*time.Hour
	r, err := RunOverlay(ctx, cfg, func(p Progress) {
		if p.Phase == "run" {
			cancel()
		}
	})
	if err != nil || !r.Partial {
		t.Fatalf("partial %v, error %v", r != nil && r.Partial, err)
	}
}

func TestOverlayConfigRefused(t *testing.T) {
	for _, change := range []func(*OverlayConfig){
		func(c *OverlayConfig) { c.Nodes = 0 },
		func(c *OverlayConfig) { c.Topology = "torus" },
		func(c *OverlayConfig) { c.Churn = "poisson:1s" },
		func(c *OverlayConfig) { c.Loss = 0.9 },
		func(c *OverlayConfig) { c.Bugs = []string{"None"} },
		func(c *OverlayConfig) { c.Preset = "moon" },
		func(c *OverlayConfig) { c.Leaves = 99 },
	} {
		c := DefaultOverlay()
		c.Nodes, c.Duration = 5, time.Minute
		change(&c)
		if _, err := RunOverlay(context.Background(), c, nil); err == nil {
			t.Errorf("accepted: %+v", c)
		}
	}
}
