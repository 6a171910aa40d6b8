package sim

import (
	"fmt"
	"math/bits"
	"math/rand/v2"

	"atoll.example/atoll/internal/machine"
)

// Topology says how long a message takes from one place to another. Delays
// are computed in integers: floating point may differ between processors, and
// trace hashes must not (10-overlay §1).
type Topology string

const (
	// LAN draws 0.1–0.3 ms for each message.
	LAN Topology = "lan"
	// Sphere places nodes at random points of a sphere: the one-way delay is
	// 1 ms + the great-circle way, 150 ms between antipodes, + up to 0.5 ms.
	Sphere Topology = "sphere"
)

// ParseTopology refuses unknown names.
func ParseTopology(s string) (Topology, error) {
	switch t := Topology(s); t {
	case LAN, Sphere:
		return t, nil
	}
	return "", fmt.Errorf("unknown topology %q: lan or sphere", s)
}

// place is where a node lives: a point in a cube of side 2^21 around the
// origin, used by Sphere only.
type place struct{ x, y, z int32 }

const antipodal = 150 * machine.Millisecond

// newPlace draws a point evenly by direction: evenly in the cube, refused
// outside the ball and near its centre.
func newPlace(r *rand.Rand) place {
	const side = 1 << 20
	for {
		p := place{
			int32(r.IntN(2*side) - side),
			int32(r.IntN(2*side) - side),
			int32(r.IntN(2*side) - side),
		}
		n := p.dot(p)
		if n <= side*side && n >= side*side/64 {
			return p
		}
	}
}

func (p place) dot(q place) int64 {
	return int64(p.x)*int64(q.x) + int64(p.y)*int64(q.y) + int64(p.z)*int64(q.z)
}

// crossLen is |p × q|.
func (p place) crossLen(q place) int64 {
	// Components stay below 2^41; scaled to 2^30 each, so that the sum of
	// squares fits.
	cx := (int64(p.y)*int64(q.z) - int64(p.z)*int64(q.y)) >> 11
	cy := (int64(p.z)*int64(q.x) - int64(p.x)*int64(q.z)) >> 11
	cz := (int64(p.x)*int64(q.y) - int64(p.y)*int64(q.x)) >> 11
	return int64(isqrt(uint64(cx*cx+cy*cy+cz*cz))) << 11
}

// isqrt is the integer square root.
func isqrt(v uint64) uint64 {
	if v == 0 {
		return 0
	}
	x := uint64(1) << ((bits.Len64(v) + 1) / 2)
	for {
		y := (x + v/x) / 2
		if y >= x {
			return x
		}
		x = y
	}
}

// arctan[i] is atan(2^-i)/π in units of 2^-32: the angles of CORDIC.
var arctan = [...]int64{
	1073741824, 633866811, 334917815, 170009512, 85334662, 42708931, 21359677, 10680490, 5340327, 2670173,
	1335088, 667544, 333772, 166886, 83443, 41722, 20861, 10430, 5215, 2608,
}

// angle returns the angle between p and q as a share of π, in units of 2^-32.
func angle(p, q place) int64 {
	x, y := p.dot(q), p.crossLen(q)
	var a int64
	if x < 0 { // a quarter turn back into the first quadrant
		x, y, a = y, -x, 1<<31
	}
	for i, t := range arctan {
		if y > 0 {
			x, y, a = x+y>>i, y-x>>i, a+t
		} else {
			x, y, a = x-y>>i, y+x>>i, a-t
		}
	}
	return min(max(a, 0), 1<<32)
}

// base is the delay between two places without the random part.
func (t Topology) base(p, q place) machine.Duration {
	if t == LAN {
		return 100 * machine.Microsecond
	}
	return machine.Millisecond + machine.Duration(int64(antipodal)*angle(p, q)>>32)
}

// spread is the width of the random part.
func (t Topology) spread() int64 {
	if t == LAN {
		return 200
	}
	return 500
}

// direct is the mean one-way delay between two places: what relative delay
// penalties are measured against.
func (t Topology) direct(p, q place) machine.Duration {
	return t.base(p, q) + machine.Duration(t.spread()/2)
}
