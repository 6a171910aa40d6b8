package sim

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"time"

	"atoll.example/atoll/internal/machine"
)

// Churn says how nodes come and go.
type Churn struct {
	Mean machine.Duration // mean session; 0: nodes stay
}

// ParseChurn reads "none" or "poisson:T" with T such as 30m: sessions are
// exponential with mean T, and N/T nodes arrive a second.
func ParseChurn(s string) (Churn, error) {
	if s == "" || s == "none" {
		return Churn{}, nil
	}
	if t, ok := strings.CutPrefix(s, "poisson:"); ok {
		d, err := time.ParseDuration(t)
		if err == nil && d >= time.Minute {
			return Churn{Mean: machine.Duration(d.Microseconds())}, nil
		}
	}
	return Churn{}, fmt.Errorf("unknown churn %q: none, or poisson:T with T of at least 1m", s)
}

func (c Churn) String() string {
	if c.Mean == 0 {
		return "none"
	}
	return fmt.Sprintf("poisson:%s", time.Duration(c.Mean)*time.Microsecond)
}

// expDuration draws from the exponential distribution of the given mean, in
// integers: −ln u of a 64-bit uniform u, by its leading zeros and 24 squarings.
func expDuration(r *rand.Rand, mean machine.Duration) machine.Duration {
	u := r.Uint64() | 1
	z := bits.LeadingZeros64(u)
	m := u << z >> 32 // mantissa in [2^31, 2^32)
	var log uint64    // log2(m/2^31) in units of 2^-24
	for range 24 {
		m = m * m >> 31
		log <<= 1
		if m >= 1<<32 {
			m >>= 1
			log |= 1
		}
	}
	minus := uint64(z+1)<<24 - log // −log2 u, in units of 2^-24
	ln := minus * 11629080 >> 24   // ln 2 = 11629080 / 2^24
	if mean < 2*4096 {             // of which the line below would make nothing, or half
		return machine.Duration(int64(mean) * int64(ln) >> 24)
	}
	return machine.Duration(int64(mean) / 4096 * int64(ln) >> 12)
}
