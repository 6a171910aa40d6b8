package sim

import (
	"context"
	"strings"
	"testing"
)

// runDHT runs 20 nodes for 5 node-hours, as changed, and logs the table.
func runDHT(t testing.TB, change func(*DHTConfig)) *DHTResult {
	t.Helper()
	c := DefaultDHT()
	c.Nodes, c.NodeHours, c.Faults = 20, 5, []string{"none"}
	change(&c)
	r, err := RunDHT(context.Background(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	logTable(t, r)
	return r
}

func TestDHTCalm(t *testing.T) {
	r := runDHT(t, func(*DHTConfig) {})
	if !r.Passed || r.AckedPuts < 300 || r.AckedRemove < 50 || r.AckedWrites < 20 || r.Stale > 0 || r.Forks > 0 {
		t.Error("a calm pool fails")
	}
	for code, n := range r.Refused {
		if strings.HasSuffix(code, "unavailable") || strings.HasSuffix(code, "no_quorum") {
			t.Errorf("%s %d times in a calm pool", code, n)
		}
	}
}

// TestDHTReplay: one seed, one history; the codec changes nothing.
func TestDHTReplay(t *testing.T) {
	run := func(encode bool, faults ...string) string {
		return runDHT(t, func(c *DHTConfig) { c.NodeHours, c.Encode, c.Faults = 2, encode, faults }).TraceHash
	}
	faults := []string{"loss", "duplicate", "reorder", "crash", "crashstep", "torn", "bitrot", "join"}
	if a, b := run(false, faults...), run(false, faults...); a != b {
		t.Error("one seed, two hashes")
	}
	// Deadlines travel in whole ms: histories agree as long as none expires.
	if run(false, "duplicate", "reorder") != run(true, "duplicate", "reorder") {
		t.Error("crossing the codec changes the history")
	}
}

// TestRotOfSignedBlocks: many of them, seldom written and often rotting, are all
// whole again in the end.
func TestRotOfSignedBlocks(t *testing.T) {
	r := runDHT(t, func(c *DHTConfig) {
		c.NodeHours, c.Registers, c.Signed, c.Intensity, c.Faults = 3, 100, 60, 20, []string{"bitrot"}
	})
	if !r.Passed || r.Faults["bit_rot"] == 0 {
		t.Error("signed blocks that rot are not mended")
	}
}

func TestDHTConfigRefused(t *testing.T) {
	for _, change := range []func(*DHTConfig){
		func(c *DHTConfig) { c.Nodes = -1 },
		func(c *DHTConfig) { c.K = 9 },
		func(c *DHTConfig) { c.NodeHours = 0 },
		func(c *DHTConfig) { c.OpsPerS = 1e9 },
		func(c *DHTConfig) { c.Faults = []string{"flood"} },
		func(c *DHTConfig) { c.Bugs = []string{"None"} },
	} {
		c := DefaultDHT()
		change(&c)
		if _, err := RunDHT(context.Background(), c, nil); err == nil {
			t.Errorf("accepted: %+v", c)
		}
	}
}

func TestScenariosAreComplete(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Scenarios() {
		if s.Name == "" || s.About == "" || s.Run == nil || seen[s.Name] {
			t.Errorf("scenario %+v", s)
		}
		seen[s.Name] = true
		if _, err := ScenarioByName(s.Name); err != nil {
			t.Error(err)
		}
	}
	if _, err := ScenarioByName("none such"); err == nil {
		t.Error("an unknown scenario was found")
	}
}
