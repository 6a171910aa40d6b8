package node

import (
	"golang.org/x/sys/unix"

	"atoll.example/atoll/internal/machine"
)

// bootClock reads CLOCK_BOOTTIME: it goes on while the computer sleeps, so a
// laptop that wakes does not believe an old lease (10-overlay §1).
func bootClock() machine.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("node: CLOCK_BOOTTIME: " + err.Error())
	}
	return machine.Time(ts.Sec*1_000_000 + ts.Nsec/1000)
}
