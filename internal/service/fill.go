package service

import (
	"sync"
	"time"
)

// fillRate tells from the usage seen at each status when the disk will be full.
type fillRate struct {
	mu   sync.Mutex
	at   time.Time
	used int64
	rate float64 // bytes a second, smoothed over minutes
}

// fillSpan is the least time between two samples: shorter spans tell of bursts.
const fillSpan = 10 * time.Second

// fullIn is the time in seconds until free bytes are used up at the rate seen, 0
// once they are; nil while the disk is not filling.
func (f *fillRate) fullIn(used, free int64) *int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.at.IsZero() {
		f.at, f.used = now, used
	} else if span := now.Sub(f.at); span >= fillSpan {
		rate := float64(used-f.used) / span.Seconds()
		weight := min(1, span.Minutes()/5)
		f.rate += weight * (rate - f.rate)
		f.at, f.used = now, used
	}
	if f.rate < 1 && free > 0 {
		return nil
	}
	if free <= 0 {
		return new(int64)
	}
	s := int64(float64(free) / f.rate)
	return &s
}
