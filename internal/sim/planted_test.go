package sim

import (
	"strings"
	"testing"
	"time"
)

// TestPlantedPastryBugs: each bug is found by the checker made for it, in one
// of a few seeds, and the first of them passes without the bug. (60-reliability §1: within 60 s on a core.)
func TestPlantedPastryBugs(t *testing.T) {
	frozen := func(c *OverlayConfig) {
		c.Churn, c.Lookups, c.Owned, c.Freeze, c.Spikes, c.Duration = "none", 0.1, 1, 60, 0.1, 5*time.Minute
	}
	flash := func(c *OverlayConfig) {
		c.Churn, c.Lookups, c.Owned, c.Flash, c.Duration = "poisson:5m", 0.1, 0.5, 1, 10*time.Minute
	}
	for name, setup := range map[string]func(*OverlayConfig){"frozen": frozen, "flash": flash} {
		if r := runOverlay(t, setup); !r.Passed {
			t.Errorf("%s, without a bug: %v", name, r.Failures)
		}
	}
	for _, c := range []struct {
		bug   string
		setup func(*OverlayConfig)
		finds []string // any of these failures
	}{
		{"LeaseFromReceipt", frozen, []string{"two owners"}},
		{"GrantEarly", frozen, []string{"two owners"}},
		{"DeliverWithoutLease", frozen, []string{"two owners"}},
		{"TrustLeafSets", flash, []string{"wrong delivery", "convergence", "build"}},
		{"JoinWithoutLock", flash, []string{"two owners", "wrong delivery", "convergence"}},
		{"AcceptUnready", flash, []string{"wrong delivery", "convergence", "build", "two owners"}},
	} {
		t.Run(c.bug, func(t *testing.T) {
			t.Parallel()
			all := ""
			for seed := uint64(1); seed <= 5; seed++ {
				r := runOverlay(t, func(cfg *OverlayConfig) {
					c.setup(cfg)
					cfg.Seed, cfg.Bugs = seed, []string{c.bug}
				})
				all = strings.Join(r.Failures, "\n")
				for _, f := range c.finds {
					if strings.Contains(all, f) {
						return
					}
				}
			}
			t.Errorf("not found by 5 seeds; failures of the last: %s", all)
		})
	}
}
