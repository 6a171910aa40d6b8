package id

import (
	"encoding/binary"
	"math/bits"
)

// limbs splits g into four 64-bit words, least significant first.
func limbs(g GUID) (l [4]uint64) {
	for i := range l {
		l[i] = binary.BigEndian.Uint64(g[Size-8*(i+1):])
	}
	return l
}

func fromLimbs(l [4]uint64) (g GUID) {
	for i := range l {
		binary.BigEndian.PutUint64(g[Size-8*(i+1):], l[i])
	}
	return g
}

// Add returns g + h mod 2^256.
func (g GUID) Add(h GUID) GUID {
	a, b := limbs(g), limbs(h)
	var c uint64
	for i := range a {
		a[i], c = bits.Add64(a[i], b[i], c)
	}
	return fromLimbs(a)
}

// Sub returns g - h mod 2^256: the clockwise way from h to g.
func (g GUID) Sub(h GUID) GUID {
	a, b := limbs(g), limbs(h)
	var c uint64
	for i := range a {
		a[i], c = bits.Sub64(a[i], b[i], c)
	}
	return fromLimbs(a)
}

// Half returns g / 2, rounded down.
func (g GUID) Half() GUID {
	l := limbs(g)
	for i := range l {
		l[i] >>= 1
		if i < 3 {
			l[i] |= limbs(g)[i+1] << 63
		}
	}
	return fromLimbs(l)
}

// Dist returns the circular distance between a and b: the shorter way round.
func Dist(a, b GUID) GUID {
	d, e := a.Sub(b), b.Sub(a)
	if e.Less(d) {
		return e
	}
	return d
}

// CmpDist orders a and b by their circular distance to key, the nearer first;
// ties go to the smaller GUID. It is the one definition of "numerically
// closest": the root of key is the live node that comes first in this order.
func CmpDist(key, a, b GUID) int {
	if c := Dist(a, key).Cmp(Dist(b, key)); c != 0 {
		return c
	}
	return a.Cmp(b)
}

// Midpoint returns the point halfway on the clockwise way from a to b, rounded
// towards a. Midpoint(a, a) is the point opposite to a's own position only if
// the whole ring is meant; callers with a single node use a full Arc instead.
func Midpoint(a, b GUID) GUID { return a.Add(b.Sub(a).Half()) }

// Arc is the half-open stretch of the ring [Lo, Hi), clockwise. Lo == Hi means
// the whole ring: an empty Arc is never needed.
type Arc struct{ Lo, Hi GUID }

// FullArc is the whole ring.
var FullArc = Arc{}

// IsFull reports whether the arc is the whole ring.
func (a Arc) IsFull() bool { return a.Lo == a.Hi }

// Contains reports whether k lies on the arc.
func (a Arc) Contains(k GUID) bool {
	return a.IsFull() || k.Sub(a.Lo).Less(a.Hi.Sub(a.Lo))
}
