package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRegress runs the seeds that once failed: scenarios/regress/seeds.txt.
func TestRegress(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "scenarios", "regress", "seeds.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			t.Fatalf("%q: want scenario, seed and node-hours", line)
		}
		s, err := ScenarioByName(f[0])
		if err != nil {
			t.Fatal(err)
		}
		seed, err1 := strconv.ParseUint(f[1], 10, 64)
		hours, err2 := strconv.ParseFloat(f[2], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q: seed and node-hours are numbers", line)
		}
		t.Run(f[0]+"-"+f[1], func(t *testing.T) {
			t.Parallel()
			r, err := s.Run(context.Background(), seed, Options{NodeHours: hours}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				var w strings.Builder
				r.Print(&w)
				t.Error(w.String())
			}
		})
	}
}

// TestRegressConfigs runs the configurations that once failed: a set of one
// under joins, whose newcomers did not ask the holder; sets whose members were
// evicted by mistake; disks lost while the pool grows. One seed of the slow ones:
// with every change of the machines a seed is another history.
func TestRegressConfigs(t *testing.T) {
	grow := DHTConfig{K: 3, NodeHours: 4, Faults: []string{"join", "amnesia"}, Intensity: 10, OpsPerS: 1.5}
	one := DHTConfig{
		Nodes: 20, K: 1, NodeHours: 4, Faults: []string{"join", "loss", "spike", "slow"}, Intensity: 10,
		OpsPerS: 10, Signed: 1, Keep: true,
	}
	late := DHTConfig{
		Nodes: 20, K: 3, NodeHours: 4, Faults: []string{"loss", "spike", "reorder", "duplicate", "diskslow"}, Intensity: 10,
		OpsPerS: 20, Registers: 2, Signed: 95,
	}
	lost := DHTConfig{
		Nodes: 20, K: 3, NodeHours: 4, Faults: []string{"join", "loss", "spike", "slow", "amnesia"}, Intensity: 10,
		OpsPerS: 20, Registers: 100, Signed: 97,
	}
	for _, c := range []struct {
		name  string
		cfg   DHTConfig
		seeds []uint64
	}{
		{"grow", grow, []uint64{2}},
		{"one", one, []uint64{5}},
		{"late", late, []uint64{4, 9, 80, 93}},
		{"lost", lost, []uint64{2}},
	} {
		for _, seed := range c.seeds {
			t.Run(fmt.Sprintf("%s-%d", c.name, seed), func(t *testing.T) {
				t.Parallel()
				cfg := c.cfg
				cfg.Seed = seed
				r, err := RunDHT(context.Background(), cfg, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range r.Failures {
					t.Error(f)
				}
			})
		}
	}
}
