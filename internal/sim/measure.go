package sim

import (
	"math"
	"slices"
)

// Rate is a share with the upper end of its one-sided 95 % interval; with no
// event in n that is the rule of three, 3/n.
type Rate struct {
	Count   int64   `json:"count"`
	Of      int64   `json:"of"`
	Rate    float64 `json:"rate"`
	Bound95 float64 `json:"bound95"`
}

func rate(count, of int64) Rate {
	r := Rate{Count: count, Of: of}
	if of > 0 {
		r.Rate = float64(count) / float64(of)
		r.Bound95 = min(1, poissonUpper(count)/float64(of))
	}
	return r
}

// poissonUpper is the mean at which k or fewer events have a probability of
// 5 %.
func poissonUpper(k int64) float64 {
	if k > manyEvents {
		return float64(k) + 1.645*math.Sqrt(float64(k)) + 1.5
	}
	return poissonMean(k, 0.05)
}

// poissonLower is the mean at which k or more events have a probability of 5 %.
func poissonLower(k int64) float64 {
	switch {
	case k == 0:
		return 0
	case k > manyEvents:
		return float64(k) - 1.645*math.Sqrt(float64(k))
	}
	return poissonMean(k-1, 0.95)
}

// manyEvents is from where on the normal distribution will do. The sum of
// poissonMean would fail soon after: e^-m is no float64 above a mean of 745.
const manyEvents = 500

// poissonMean is the mean at which k or fewer events have probability p.
func poissonMean(k int64, p float64) float64 {
	lo, hi := 0.0, float64(k)+4*math.Sqrt(float64(k))+6
	for range 60 {
		m := (lo + hi) / 2
		term, sum := math.Exp(-m), 0.0
		for i := range k + 1 {
			if i > 0 {
				term *= m / float64(i)
			}
			sum += term
		}
		if sum > p {
			lo = m
		} else {
			hi = m
		}
	}
	return hi
}

// Dist sums up a sample.
type Dist struct {
	N    int     `json:"n"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// dist sorts v.
func dist(v []float64) Dist {
	if len(v) == 0 {
		return Dist{}
	}
	slices.Sort(v)
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	at := func(q float64) float64 { return v[min(len(v)-1, int(q*float64(len(v))))] }
	return Dist{N: len(v), Mean: sum / float64(len(v)), P50: at(0.50), P95: at(0.95), P99: at(0.99), Max: v[len(v)-1]}
}
