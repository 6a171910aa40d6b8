package store

import (
	"math"
	"testing"
)

// TestReserve: it is that of what a store can hold, whichever bounds it, does not
// change with what the store itself writes, and is never taken by what is not urgent.
func TestReserve(t *testing.T) {
	const gib = 1 << 30
	for _, s := range []Space{
		{Limit: 10 << 40, FSFree: 67 * gib},
		{Limit: 10 << 40, Used: 60 * gib, FSFree: 7 * gib},
		{Limit: 67 * gib, FSFree: math.MaxInt64},
		{Limit: 67 * gib, Used: 60 * gib, FSFree: math.MaxInt64},
		{Limit: 67 * gib, Used: 70 * gib, FSFree: gib}, // lowered since
	} {
		if got, want := s.Usage().Reserve, ReserveOf(67*gib); got != want {
			t.Errorf("%+v: reserve %d, want %d", s, got, want)
		}
		u := s.Usage()
		if u.Free > 0 && (!s.Fits(u.Free, false) || s.Fits(u.Free+1, false)) || u.Free == 0 && s.Fits(1, false) {
			t.Errorf("%+v: does not take just what is free, %d", s, u.Free)
		}
		full := s
		full.Used += u.Free
		full.FSFree -= u.Free
		if left := min(full.Limit-full.Used, full.FSFree); u.Free > 0 && left != ReserveOf(67*gib) {
			t.Errorf("%+v: full with %d left, want the reserve", s, left)
		}
	}
	if s := (Space{Limit: gib, FSFree: -5}); s.Usage().Free != 0 || s.Reserve() != Ballast || s.Fits(1, true) {
		t.Errorf("a file system that is full: %+v", s.Usage())
	}
}
