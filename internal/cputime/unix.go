//go:build unix

// Package cputime tells what computing cost, for measurements.
package cputime

import (
	"syscall"
	"time"
)

// Used is the processor time of this process so far, all threads together; 0 where
// the system does not tell.
func Used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
