package id

import (
	"cmp"
	"encoding/binary"
	"math/bits"
)

// fromLimbs joins four 64-bit words, least significant first.
func fromLimbs(l [4]uint64) (g GUID) {
	for i := range l {
		binary.BigEndian.PutUint64(g[Size-8*(i+1):], l[i])
	}
	return g
}

// Add returns g + h mod 2^256.
func (g GUID) Add(h GUID) (s GUID) {
	var v, c uint64
	v, c = bits.Add64(binary.BigEndian.Uint64(g[24:]), binary.BigEndian.Uint64(h[24:]), 0)
	binary.BigEndian.PutUint64(s[24:], v)
	v, c = bits.Add64(binary.BigEndian.Uint64(g[16:]), binary.BigEndian.Uint64(h[16:]), c)
	binary.BigEndian.PutUint64(s[16:], v)
	v, c = bits.Add64(binary.BigEndian.Uint64(g[8:]), binary.BigEndian.Uint64(h[8:]), c)
	binary.BigEndian.PutUint64(s[8:], v)
	v, _ = bits.Add64(binary.BigEndian.Uint64(g[0:]), binary.BigEndian.Uint64(h[0:]), c)
	binary.BigEndian.PutUint64(s[0:], v)
	return s
}

// Sub returns g - h mod 2^256: the clockwise way from h to g.
func (g GUID) Sub(h GUID) (d GUID) {
	var v, c uint64
	v, c = bits.Sub64(binary.BigEndian.Uint64(g[24:]), binary.BigEndian.Uint64(h[24:]), 0)
	binary.BigEndian.PutUint64(d[24:], v)
	v, c = bits.Sub64(binary.BigEndian.Uint64(g[16:]), binary.BigEndian.Uint64(h[16:]), c)
	binary.BigEndian.PutUint64(d[16:], v)
	v, c = bits.Sub64(binary.BigEndian.Uint64(g[8:]), binary.BigEndian.Uint64(h[8:]), c)
	binary.BigEndian.PutUint64(d[8:], v)
	v, _ = bits.Sub64(binary.BigEndian.Uint64(g[0:]), binary.BigEndian.Uint64(h[0:]), c)
	binary.BigEndian.PutUint64(d[0:], v)
	return d
}

// Half returns g / 2, rounded down.
func (g GUID) Half() (h GUID) {
	var above uint64
	for i := 0; i < Size; i += 8 {
		v := binary.BigEndian.Uint64(g[i:])
		binary.BigEndian.PutUint64(h[i:], v>>1|above<<63)
		above = v
	}
	return h
}

// distance returns the circular distance between a and b in words, least
// significant first. It is the hottest code of a simulation, hence unrolled.
func distance(a, b *GUID) (d0, d1, d2, d3 uint64) {
	var c uint64
	d0, c = bits.Sub64(binary.BigEndian.Uint64(a[24:]), binary.BigEndian.Uint64(b[24:]), 0)
	d1, c = bits.Sub64(binary.BigEndian.Uint64(a[16:]), binary.BigEndian.Uint64(b[16:]), c)
	d2, c = bits.Sub64(binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:]), c)
	d3, _ = bits.Sub64(binary.BigEndian.Uint64(a[0:]), binary.BigEndian.Uint64(b[0:]), c)
	if d3>>63 == 0 {
		return d0, d1, d2, d3
	}
	// More than half of the ring, or just half: the other way round is no longer.
	d0, c = bits.Sub64(0, d0, 0)
	d1, c = bits.Sub64(0, d1, c)
	d2, c = bits.Sub64(0, d2, c)
	d3, _ = bits.Sub64(0, d3, c)
	return d0, d1, d2, d3
}

// Dist returns the circular distance between a and b: the shorter way round.
func Dist(a, b GUID) GUID {
	d0, d1, d2, d3 := distance(&a, &b)
	return fromLimbs([4]uint64{d0, d1, d2, d3})
}

// CmpDist orders a and b by their circular distance to key, the nearer first;
// ties go to the smaller GUID. It is the one definition of "numerically
// closest": the root of key is the live node that comes first in this order.
func CmpDist(key, a, b GUID) int {
	a0, a1, a2, a3 := distance(&a, &key)
	b0, b1, b2, b3 := distance(&b, &key)
	switch {
	case a3 != b3:
		return cmp.Compare(a3, b3)
	case a2 != b2:
		return cmp.Compare(a2, b2)
	case a1 != b1:
		return cmp.Compare(a1, b1)
	case a0 != b0:
		return cmp.Compare(a0, b0)
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
