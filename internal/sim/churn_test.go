package sim

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// TestExpDurationMean: gaps of some ms have their mean too, as between the
// lookups of 30,000 nodes: were they none, lookups would flood the run.
func TestExpDurationMean(t *testing.T) {
	r := machine.NewRand(1, id.GUID{}, "exp")
	for _, mean := range []machine.Duration{100, 3333, 5000, 100 * machine.Millisecond, machine.Hour} {
		const n = 20_000
		var sum machine.Duration
		for range n {
			sum += expDuration(r, mean)
		}
		if got := sum / n; got < mean*95/100 || got > mean*105/100 {
			t.Errorf("mean %d µs, want %d", got, mean)
		}
	}
}
