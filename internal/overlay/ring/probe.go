package ring

import "atoll.example/atoll/internal/machine"

// RTT is a smoothed round-trip time and its mean deviation, as in TCP
// (RFC 6298). The zero value knows nothing.
type RTT struct{ srtt, dev int32 } // µs

// Sample takes one measured round trip. Retransmitted messages give none.
func (r *RTT) Sample(d machine.Duration) {
	v := int32(min(max(d, 1), 1000*machine.Second))
	if r.srtt == 0 {
		r.srtt, r.dev = v, v/2
		return
	}
	diff := v - r.srtt
	r.srtt += diff / 8
	if r.srtt < 1 {
		r.srtt = 1
	}
	r.dev += (max(diff, -diff) - r.dev) / 4
}

// Known reports whether there was a sample.
func (r *RTT) Known() bool { return r.srtt != 0 }

// Smoothed is the smoothed round-trip time, 0 if unknown.
func (r *RTT) Smoothed() machine.Duration { return machine.Duration(r.srtt) }

// RTO is the time after which an unanswered message counts as lost: smoothed
// time and four deviations, between floor and cap; first if nothing is known.
func (r *RTT) RTO(floor, limit, first machine.Duration) machine.Duration {
	if r.srtt == 0 {
		return first
	}
	return min(max(machine.Duration(r.srtt)+4*machine.Duration(r.dev), floor), limit)
}

// Bucket is a token bucket. The zero value, given a rate, starts full.
type Bucket struct {
	Every machine.Duration // time for one token
	Burst int64
	spent machine.Time // when the bucket would have been full
	used  bool
}

// Take takes a token if there is one.
func (b *Bucket) Take(now machine.Time) bool {
	if now < b.Next() {
		return false
	}
	if !b.used || b.spent < now {
		b.spent, b.used = now, true
	}
	b.spent = b.spent.Add(b.Every)
	return true
}

// Next returns when a token is there.
func (b *Bucket) Next() machine.Time {
	if !b.used {
		return 0
	}
	return b.spent.Add(-b.Every * machine.Duration(b.Burst-1))
}
