package machine

import (
	"encoding/binary"
	"math/rand/v2"

	"atoll.example/atoll/internal/id"
)

// NewRand returns the random stream of (run seed, node, purpose). Each purpose
// has a stream of its own, so that one more draw in one place does not
// reshuffle the others. In real time the seed comes from crypto/rand, and the
// stream is used for choices and jitter, never for secrets.
func NewRand(seed uint64, node id.GUID, purpose string) *rand.Rand {
	return rand.New(NewPCG(seed, node, purpose))
}

// NewPCG is the source of NewRand: 16 bytes, for hosts that keep many.
func NewPCG(seed uint64, node id.GUID, purpose string) *rand.PCG {
	// FNV-1a over the purpose, mixed with two words of the GUID.
	h := uint64(14695981039346656037)
	for i := range len(purpose) {
		h = (h ^ uint64(purpose[i])) * 1099511628211
	}
	return rand.NewPCG(
		seed^binary.BigEndian.Uint64(node[:8]),
		h^binary.BigEndian.Uint64(node[8:16]),
	)
}

// Jitter returns a duration drawn evenly from d ± d·ppm/10^6.
func Jitter(r *rand.Rand, d Duration, ppm int64) Duration {
	span := int64(d) / 1_000_000 * ppm
	if span <= 0 {
		span = int64(d) * ppm / 1_000_000
	}
	if span <= 0 {
		return d
	}
	return d - Duration(span) + Duration(r.Int64N(2*span+1))
}
