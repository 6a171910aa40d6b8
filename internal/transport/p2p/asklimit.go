package p2p

import (
	"net/netip"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// Rates of questions from one address: a burst, then one a second (20-dht §7).
const (
	askBurst = 8
	askEvery = time.Second
	// maxAskers bounds the addresses remembered. When it is reached, the
	// addresses not yet known share one allowance.
	maxAskers = 4096
)

// askLimit is a token bucket per remote address: an IPv4 address, an IPv6
// /64, and one for all that come through relays. A bucket is kept as the time
// at which it will be full again.
type askLimit struct {
	local time.Duration // burst of loopback addresses, as a count

	mu   sync.Mutex
	full map[netip.Prefix]time.Time
}

func newAskLimit(local int) *askLimit {
	return &askLimit{local: time.Duration(local), full: map[netip.Prefix]time.Time{}}
}

// allow takes a token of the bucket that m belongs to.
func (a *askLimit) allow(m ma.Multiaddr, now time.Time) bool {
	var who netip.Prefix // the zero Prefix: relayed, or one too many
	burst := time.Duration(askBurst)
	if ip, ok := ipOf(m); ok && kindOf(m) != kindRelay {
		bits := 32
		if ip.Is6() {
			bits = 64
		}
		who, _ = ip.Prefix(bits)
		if ip.IsLoopback() {
			burst = a.local
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	full, ok := a.full[who]
	if !ok && len(a.full) >= maxAskers {
		who = netip.Prefix{}
		full = a.full[who]
	}
	if full.Before(now) {
		full = now
	}
	full = full.Add(askEvery)
	if full.Sub(now) > burst*askEvery {
		return false
	}
	a.full[who] = full
	return true
}

func (a *askLimit) sweep(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, full := range a.full {
		if full.Before(now) {
			delete(a.full, k)
		}
	}
}
