package sim

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// runMeasured runs a measuring scenario at its small size, and logs the table.
func runMeasured(t *testing.T, name string, o Options) Report {
	t.Helper()
	s, err := ScenarioByName(name)
	if err != nil {
		t.Fatal(err)
	}
	o.Quick = true
	r, err := s.Run(t.Context(), 1, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	logTable(t, r)
	return r
}

// TestWAN: the way to a replica is the time of a read, wherever the reader has
// measured it.
func TestWAN(t *testing.T) {
	t.Parallel()
	r := runMeasured(t, "dht-wan", Options{}).(*WANResult)
	if !r.Passed || r.Lost > 0 || r.AckedPuts != int64(r.Blocks) {
		t.Error("blocks of a calm pool are lost")
	}
	if r.Reads < 200 || r.Stretch.P50 < 0.9 || r.Stretch.P50 > wanTargetP50 || r.Near.P95 > wanTargetP95 || r.Near.N+r.Far.N != r.Reads {
		t.Errorf("reads take %+v round trips, %+v where the way was known", r.Stretch, r.Near)
	}
}

// TestRepairLazy: waiting for those who return spares copies, and no block.
func TestRepairLazy(t *testing.T) {
	t.Parallel()
	r := runMeasured(t, "dht-repair", Options{}).(*RepairResult)
	if !r.Passed || r.Lost > 0 || r.AckedPuts != 2*int64(r.Blocks) {
		t.Error("blocks are lost under churn")
	}
	if r.Away < 5 || r.Dead < 1 || r.Lazy.LostBytes == 0 || r.Lazy.Bytes < r.Lazy.LostBytes || r.Eager.Bytes <= r.Lazy.Bytes {
		t.Errorf("%d absences and %d dead disks; lazy copies %d bytes, eager %d", r.Away, r.Dead, r.Lazy.Bytes, r.Eager.Bytes)
	}
}

// TestMeasuredFindings: the checkers are on while a scenario measures.
func TestMeasuredFindings(t *testing.T) {
	t.Parallel()
	r := runMeasured(t, "dht-wan", Options{Bugs: []string{"AckAtWMinusOne"}}).(*WANResult)
	if r.Passed || !slices.ContainsFunc(r.Failures, func(f string) bool { return strings.HasPrefix(f, "ack ") }) {
		t.Errorf("a planted bug is not found: %v", r.Failures)
	}
}

// TestMeasuredReplay: one seed, one history.
func TestMeasuredReplay(t *testing.T) {
	t.Parallel()
	a, b := runMeasured(t, "dht-fill", Options{}).(*FillResult), runMeasured(t, "dht-fill", Options{}).(*FillResult)
	if a.TraceHash[0] != b.TraceHash[0] {
		t.Error("one seed, two hashes")
	}
	if !a.Passed || a.Lost > 0 || a.AckedPuts < 2000 || a.AtLimit.Used < 70 || a.AtLimit.Used > 100.5 || a.Waste > 5 {
		t.Errorf("%d of %d blocks lost; %+v", a.Lost, a.AckedPuts, a.AtLimit)
	}
}

// TestMeasuredWhole: a run that measures is not taken apart.
func TestMeasuredWhole(t *testing.T) {
	if _, err := Shrink(t.Context(), Case{Scenario: "dht-wan", Seed: 1, Quick: true}, nil); err == nil {
		t.Error("a run that measures was shrunk")
	}
}

// TestMeasuredSeeds: several seeds are several tables, also when stopped.
func TestMeasuredSeeds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := ScenarioByName("dht-repair")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(ctx, 3, Options{Quick: true}, nil)
	if err != nil || !r.Stopped() || r.(*RepairResult).Replay != "atoll sim --scenario dht-repair --seed 3 --quick"+commitFlag() {
		t.Errorf("%+v, %v", r, err)
	}
	rs := &Runs{Runs: []Report{r, r}}
	if b, err := json.Marshal(rs); err != nil || !strings.HasPrefix(string(b), `{"runs":[{"scenario":"dht-repair","seed":3,"partial":true,`) {
		t.Errorf("%s, %v", b, err)
	}
	var b strings.Builder
	rs.Print(&b)
	if !rs.Stopped() || rs.OK() != r.OK() || strings.Count(b.String(), "PARTIAL") != 2 {
		t.Error(b.String())
	}
}

func TestDraws(t *testing.T) {
	rnd := New(Config{Seed: 1}).Rand("draws")
	var sizes []float64
	for range 20_000 {
		sizes = append(sizes, float64(logNormal(rnd, fillMedian, fillDeviation, 1<<40)))
		if c := truncatedNormal(rnd, 100, 50, 60, 120); c < 60 || c > 120 {
			t.Fatal(c)
		}
	}
	if d := dist(sizes); d.P50 < 1250 || d.P50 > 1380 || d.Mean < 8500 || d.Mean > 12_500 {
		t.Errorf("median and mean of a proxy's files: %.0f and %.0f", d.P50, d.Mean)
	}
	if v := logNormal(rnd, 1000, 0, 1<<20); v != 1000 {
		t.Error(v)
	}
}
