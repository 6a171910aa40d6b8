package sim

import (
	"math"
	"strings"
	"testing"

	"atoll.example/atoll/internal/machine"
)

// TestPoisson: both ends of the interval against tables, and without a step
// where the normal distribution takes over.
func TestPoisson(t *testing.T) {
	for _, c := range []struct {
		k            int64
		lower, upper float64
	}{
		{0, 0, 2.996}, {1, 0.0513, 4.744}, {3, 0.818, 7.754}, {10, 5.425, 16.962}, {100, 84.14, 118.08},
	} {
		if l, u := poissonLower(c.k), poissonUpper(c.k); math.Abs(l-c.lower) > 0.01 || math.Abs(u-c.upper) > 0.01 {
			t.Errorf("%d: %.3f to %.3f, want %.3f to %.3f", c.k, l, u, c.lower, c.upper)
		}
	}
	for k := int64(1); k < 2*manyEvents; k++ {
		if l, u := poissonLower(k+1)-poissonLower(k), poissonUpper(k+1)-poissonUpper(k); l < 0.2 || l > 2 || u < 0.2 || u > 2 {
			t.Errorf("from %d to %d by %.2f and %.2f", k, k+1, l, u)
		}
	}
}

// TestRatesFarAbove: a rate fails a run only where it is far above the published
// one beyond doubt, and the published one is of such a run.
func TestRatesFarAbove(t *testing.T) {
	for _, c := range []struct {
		name       string
		lost, of   int64
		wrong      int64
		deliveries int64
		change     func(*OverlayConfig)
		want       string
	}{
		{name: "nothing"},
		{name: "as in twenty seeds", lost: 40, of: 1_462_993, wrong: 0, deliveries: 731_668},
		{name: "ten times the published rate", lost: 24, of: 73_000, wrong: 6, deliveries: 36_000},
		{name: "two of a short run", lost: 2, of: 60, wrong: 2, deliveries: 30},
		{name: "all of a short run", lost: 60, of: 60, want: "lost lookups"},
		{name: "one in four hundred", lost: 183, of: 73_000, want: "lost lookups"},
		{name: "one in two hundred wrong", of: 1200, wrong: 6, deliveries: 1200, want: "wrong deliveries (best effort)"},
		{name: "leaf sets only", lost: 60, of: 60, change: func(c *OverlayConfig) { c.LeafOnly = true }},
		{name: "short sessions", lost: 60, of: 60, change: func(c *OverlayConfig) { c.Churn = "poisson:5m" }},
		{name: "more loss", lost: 60, of: 60, change: func(c *OverlayConfig) { c.Loss = 0.2 }},
	} {
		cfg := DefaultOverlay()
		if c.change != nil {
			c.change(&cfg)
		}
		maker, err := newNodeMaker(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		k := &newOverlayRun(cfg, maker).check
		k.calm.lost, k.calm.judged, k.calm.wrong, k.calm.deliveries = c.lost, c.of, c.wrong, c.deliveries
		k.rates()
		got := strings.Join(k.failures, "\n")
		if (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestCalm: what was under way when the run was upset, and a grace after, is not
// held against a published rate.
func TestCalm(t *testing.T) {
	var c checks
	second := func(s machine.Duration) *lookup { return &lookup{issued: machine.Time(s * machine.Second)} }
	if !c.isCalm(second(1)) {
		t.Error("upset before anything has happened")
	}
	c.upset(machine.Time(100 * machine.Second))
	c.upset(machine.Time(50 * machine.Second)) // ended before the first
	for s, calm := range map[machine.Duration]bool{60: false, 100: false, 160: false, 161: true} {
		if c.isCalm(second(s)) != calm {
			t.Errorf("a lookup at %d s: calm %v", s, !calm)
		}
	}
}
