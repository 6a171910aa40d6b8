//go:build !unix

// Package cputime tells what computing cost, for measurements.
package cputime

import "time"

// Used is not known here.
func Used() time.Duration { return 0 }
