package sim

import (
	"testing"
	"time"

	"atoll.example/atoll/internal/kbr"
)

// TestOverlayCodecAndDeadlines: messages that expire on their way do so at the
// same instant in a run through the codec and in one by pointers.
func TestOverlayCodecAndDeadlines(t *testing.T) {
	run := func(encode bool) *Result {
		return runOverlay(t, func(c *OverlayConfig) {
			c.Lookups, c.Owned, c.Deadline, c.Churn, c.Encode = 0.2, 1, time.Second, "poisson:5m", encode
			c.Loss, c.Spikes = 0.2, 0.1
		})
	}
	a, b := run(false), run(true)
	if a.TraceHash != b.TraceHash {
		t.Errorf("by pointers %s, through the codec %s", a.TraceHash, b.TraceHash)
	}
	if a.Drops[kbr.ErrDeadline.Error()] == 0 {
		t.Errorf("no message expired: %v", a.Drops)
	}
}
