//go:build !linux

package node

import (
	"time"

	"atoll.example/atoll/internal/machine"
)

var processStart = time.Now()

// bootClock counts with the wall clock's monotonic part where that keeps up
// with the wall clock, and with the wall clock where it has fallen behind by
// more than a second: the computer has slept, and no lease may outlive that.
func bootClock() machine.Time {
	now := time.Now()
	mono := now.Sub(processStart)
	wall := now.Round(0).Sub(processStart.Round(0))
	if wall > mono+time.Second {
		return machine.Time(wall.Microseconds())
	}
	return machine.Time(mono.Microseconds())
}
