package sim

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// runCase runs c and fails the test if it cannot.
func runCase(t testing.TB, c Case) *outcome {
	t.Helper()
	r, err := c.Run(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return outcomeOf(r)
}

// TestShrink: a planted bug is shrunk to the few parts it needs, and what is
// left fails by the same history when it is read from its file; without the bug
// it passes, so it is the bug that makes it fail.
func TestShrink(t *testing.T) {
	for _, g := range []struct {
		c    Case
		want string // its finding
		most Size   // what the bug needs, with room for other seeds' luck
	}{
		// A node that has the bytes counts for one that has stored the claim: two puts.
		{Case{Scenario: "dht-churn", Seed: 21, NodeHours: 2, Bugs: []string{"HaveIsAck"}}, "ack", Size{8, 4, 2, 120}},
		// A removal's stamp read the wrong way round: found by the reads at the end.
		{Case{Scenario: "dht-churn", Seed: 21, NodeHours: 2, Bugs: []string{"StampReversed"}}, "resurrected", Size{8, 6, 2, 300}},
		// Two nodes, one asleep while its range is taken over, and a lookup.
		{Case{Scenario: "overlay-freeze", Seed: 1, Quick: true, Bugs: []string{"DeliverWithoutLease"}}, "two owners", Size{5, 2, 2, 120}},
	} {
		t.Run(g.c.Bugs[0], func(t *testing.T) {
			t.Parallel()
			r, err := Shrink(t.Context(), g.c, nil)
			if err != nil {
				t.Fatal(err)
			}
			var w strings.Builder
			r.Print(&w)
			t.Log("\n" + w.String())
			if r.OK() || r.Stopped() || r.Finding != g.want || r.Case == nil || len(r.Failures) == 0 {
				t.Fatalf("passed %v, partial %v, finding %q, failures %q", r.OK(), r.Stopped(), r.Finding, r.Failures)
			}
			a, b := r.After, r.Before
			if a.Nodes >= b.Nodes || a.Ops >= b.Ops || a.Faults >= b.Faults || a.ForS >= b.ForS {
				t.Errorf("%v is not smaller than %v", a, b)
			}
			if strings.HasPrefix(g.c.Scenario, "dht-") && a.Nodes < leastNodes {
				t.Errorf("shrunk to %v: the checkers do not hold for so few nodes", a)
			}
			if a.Nodes > g.most.Nodes || a.Ops > g.most.Ops || a.Faults > g.most.Faults || a.ForS > g.most.ForS {
				t.Errorf("shrunk to %v only, %v is expected", a, g.most)
			}
			file, err := r.Case.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := DecodeCase(file)
			if err != nil {
				t.Fatal(err)
			}
			o := runCase(t, again)
			if o.kinds[g.want] == 0 || o.hash != r.Hash {
				t.Errorf("read from its file it finds %v by history %s, not %s by %s", o.kinds, o.hash, g.want, r.Hash)
			}
			again.Bugs = nil
			if o := runCase(t, again); len(o.kinds) > 0 {
				t.Errorf("without the bug it finds %v", o.kinds)
			}
		})
	}
}

// TestShrinkPassed: a seed that passes leaves nothing to shrink.
func TestShrinkPassed(t *testing.T) {
	r, err := Shrink(t.Context(), Case{Scenario: "dht-calm", Seed: 21, NodeHours: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var w strings.Builder
	r.Print(&w)
	if !r.OK() || r.Tries != 1 || r.Case != nil || !strings.Contains(w.String(), "nothing to shrink") {
		t.Errorf("%+v\n%s", r, w.String())
	}
}

// TestAllParts: a run of all the parts of a run is that run, event for event.
// So the parts are told apart right, and each draws what it drew.
func TestAllParts(t *testing.T) {
	dht := func(change func(*DHTConfig)) func(*testing.T, *Subset) *outcome {
		return func(t *testing.T, only *Subset) *outcome {
			return &runDHT(t, func(c *DHTConfig) {
				c.Nodes, c.NodeHours, c.Intensity, c.Only = 15, 1, 8, only
				change(c)
			}).outcome
		}
	}
	for name, run := range map[string]func(*testing.T, *Subset) *outcome{
		"dht, all faults":   dht(func(c *DHTConfig) { c.Faults = []string{"all"} }),
		"dht, joins, disks": dht(func(c *DHTConfig) { c.Faults = []string{"join", "amnesia", "diskslow", "bitrot", "full", "leave"} }),
		"overlay": func(t *testing.T, only *Subset) *outcome {
			return &runOverlay(t, func(c *OverlayConfig) {
				c.Nodes, c.Duration, c.Lookups, c.Churn, c.Leave, c.Loss, c.Spikes = 30, 5*time.Minute, 0.1, "poisson:5m", 0.5, 0.05, 0.01
				c.Split, c.Kill, c.Flash, c.Freeze, c.Drift, c.Only = time.Minute, 0.2, 0.2, 20, true, only
			}).outcome
		},
		"overlay, made by the oracle": func(t *testing.T, only *Subset) *outcome {
			return &runOverlay(t, func(c *OverlayConfig) { c.Nodes, c.Duration, c.Build, c.Only = 30, time.Minute, "oracle", only }).outcome
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := run(t, nil)
			all := whole.parts.seen
			if len(all.Nodes) == 0 || len(all.Ops) == 0 || len(all.Faults) == 0 {
				t.Fatalf("a run of %d nodes, %d operations, %d faults", len(all.Nodes), len(all.Ops), len(all.Faults))
			}
			all.Finding, all.UntilMS = "none", wholeMS(whole.span)
			if o := run(t, &all); o.hash != whole.hash {
				t.Error("all parts together have another history than the run they are of")
			}
		})
	}
}

// TestSmallPools: what is left out of a run makes no checker fail: a pool as
// small as they shrink keeps its promises under the faults of the large one.
func TestSmallPools(t *testing.T) {
	c := Case{Scenario: "dht-swarm", Seed: 24, NodeHours: 4}
	all := runCase(t, c).parts.seen
	for name, only := range map[string]Subset{
		"nodes":  {Nodes: all.Nodes[:leastNodes], Ops: all.Ops, Faults: all.Faults},
		"ops":    {Nodes: all.Nodes, Ops: all.Ops[len(all.Ops)/2:], Faults: all.Faults},
		"faults": {Nodes: all.Nodes, Ops: all.Ops, Faults: all.Faults[len(all.Faults)/2:]},
		"all":    {Nodes: all.Nodes[:2*leastNodes], Ops: all.Ops[:len(all.Ops)/2], Faults: all.Faults[:len(all.Faults)/2]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			only.Finding = "none"
			c.Only = &only
			if o := runCase(t, c); len(o.kinds) > 0 {
				t.Errorf("finds %v", o.kinds)
			}
		})
	}
}

func TestReduce(t *testing.T) {
	all := make([]int, 100)
	for i := range all {
		all[i] = i
	}
	for _, needed := range [][]int{nil, {0}, {99}, {3, 50}, {0, 1, 2, 97, 98, 99}, all} {
		left, tries := slices.Clone(all), 0
		reduce(func() []int { return left }, func(rest []int) bool {
			tries++
			for _, n := range needed {
				if !slices.Contains(rest, n) {
					return false
				}
			}
			left = rest
			return true
		})
		if !slices.Equal(left, needed) {
			t.Errorf("reduced to %v, %v is needed", left, needed)
		}
		if tries > 250 {
			t.Errorf("%d tries for %v", tries, needed)
		}
	}
}
