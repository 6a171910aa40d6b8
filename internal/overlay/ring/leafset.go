package ring

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"sort"

	"atoll.example/atoll/internal/id"
)

// Member is a node in a leaf set: its GUID, and the reference under which the
// overlay keeps what else it knows of it.
type Member struct {
	GUID id.GUID
	Ref  uint32
}

// LeafSet holds the h nodes nearest to self on each side. (The chapter's l is
// this h; the paper's l is 2h.)
//
// A leaf set is wrapped while it is known to hold every other node of the
// ring: both sides then overlap, and each is cut from the same list. It stops
// being wrapped when it overflows; from then on the two sides are kept apart,
// even when deaths leave both short, until Wrap is told that the far ends meet
// again. Without this distinction a node that lost half a side would take the
// far end of the other side for its neighbour's neighbour, and an arc it knows
// nothing of for its own.
type LeafSet struct {
	self    id.GUID
	h       int
	all     []Member // clockwise from self
	keys    []uint64 // the key of each
	split   int      // all[:split] is the right side, if not wrapped
	wrapped bool
}

// NewLeafSet returns the empty leaf set of a node that knows nobody. Wrapped
// says that there is nobody else to know.
func NewLeafSet(self id.GUID, h int, wrapped bool) LeafSet {
	return LeafSet{
		self: self, h: h, wrapped: wrapped,
		all: make([]Member, 0, 2*h+1), keys: make([]uint64, 0, 2*h+1), // Insert adds before it drops
	}
}

// key is the way from self to g in units of 2^-64 of the ring, and never falls
// on the way clockwise from self: enough to search by, but where two are equal.
func (l *LeafSet) key(g id.GUID) uint64 {
	k := prefix(g) - prefix(l.self)
	if k == 0 && g.Less(l.self) {
		return math.MaxUint64
	}
	return k
}

// prefix is the first 8 bytes of g.
func prefix(g id.GUID) uint64 { return binary.BigEndian.Uint64(g[:8]) }

// at returns the position of the first member whose key is not less than k.
func (l *LeafSet) at(k uint64) int {
	lo, hi := 0, len(l.keys)
	for lo < hi {
		if m := (lo + hi) / 2; l.keys[m] < k {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// ByPrefix returns the position in All of the member whose GUID begins with the
// 8 bytes of pre.
func (l *LeafSet) ByPrefix(pre uint64) (int, bool) {
	i := l.at(pre - prefix(l.self))
	return i, i < len(l.all) && prefix(l.all[i].GUID) == pre
}

// Beyond reports whether every GUID that begins with pre is too far away: both
// sides are full of nearer nodes.
func (l *LeafSet) Beyond(pre uint64) bool {
	k, s := pre-prefix(l.self), l.split
	return !l.wrapped && s == l.h && len(l.keys) == 2*l.h && l.keys[s-1] < k && k < l.keys[s]
}

// clockwise orders a before b on the way clockwise from self.
func (l *LeafSet) clockwise(a, b id.GUID) bool {
	if wa, wb := a.Less(l.self), b.Less(l.self); wa != wb {
		return wb
	}
	return a.Less(b)
}

// find returns the position of g, or where it belongs.
func (l *LeafSet) find(g id.GUID) (int, bool) {
	k := l.key(g)
	i := l.at(k)
	for i < len(l.all) && l.keys[i] == k && l.clockwise(l.all[i].GUID, g) {
		i++
	}
	return i, i < len(l.all) && l.all[i].GUID == g
}

// H is the number of nodes wanted on each side.
func (l *LeafSet) H() int { return l.h }

// Len is the number of members.
func (l *LeafSet) Len() int { return len(l.all) }

// All returns the members clockwise from self. It is the leaf set's own slice.
func (l *LeafSet) All() []Member { return l.all }

// Wrapped reports whether the leaf set is known to hold the whole ring.
func (l *LeafSet) Wrapped() bool { return l.wrapped }

// Has reports whether g is a member.
func (l *LeafSet) Has(g id.GUID) bool { _, ok := l.find(g); return ok }

// Count is the number of members on a side. In a wrapped leaf set a member may
// count on both.
func (l *LeafSet) Count(s Side) int {
	switch {
	case l.wrapped:
		return min(l.h, len(l.all))
	case s == Right:
		return l.split
	default:
		return len(l.all) - l.split
	}
}

// At returns the i-th member on a side, 0 the nearest, i < Count(s).
func (l *LeafSet) At(s Side, i int) Member {
	if s == Right {
		return l.all[i]
	}
	return l.all[len(l.all)-1-i]
}

// Nearest returns the direct neighbour on a side, if there is any member: with
// one side empty, the far end of the other is the best that is known.
func (l *LeafSet) Nearest(s Side) (Member, bool) {
	if len(l.all) == 0 {
		return Member{}, false
	}
	return l.At(s, 0), true
}

// NearestBut is Nearest, looking past one node.
func (l *LeafSet) NearestBut(s Side, but id.GUID) (Member, bool) {
	for i := range l.all {
		m := l.all[i]
		if s == Left {
			m = l.all[len(l.all)-1-i]
		}
		if m.GUID != but {
			return m, true
		}
	}
	return Member{}, false
}

// Farthest returns the far end of a side, if that side has members.
func (l *LeafSet) Farthest(s Side) (Member, bool) {
	if c := l.Count(s); c > 0 {
		return l.At(s, c-1), true
	}
	return Member{}, false
}

// Complete reports whether nobody is missing: the whole ring is here, or both
// sides are full.
func (l *LeafSet) Complete() bool {
	return l.wrapped || l.split >= l.h && len(l.all)-l.split >= l.h
}

// place says where g would go: its position and side, and whether it would
// stay.
func (l *LeafSet) place(g id.GUID) (i int, s Side, fits bool) {
	i, have := l.find(g)
	if have || g == l.self {
		return i, Left, false
	}
	if l.wrapped {
		// An overflowing wrapped set drops the node at position h.
		return i, Left, len(l.all) < 2*l.h || i != l.h
	}
	s = Left
	if i < l.split || i == l.split && g.Sub(l.self).Less(l.self.Sub(g)) {
		s = Right
	}
	switch {
	case l.Count(s) < l.h:
		fits = true
	case i == l.split:
		// Beyond the end of a full side: the far end of the other, if that is
		// short.
		s = s.Other()
		fits = l.Count(s) < l.h
	default:
		fits = true // nearer than the far end, which makes room
	}
	return i, s, fits
}

// Wants reports whether Insert(g) would change the leaf set: add g, or at least
// show that it does not hold the whole ring.
func (l *LeafSet) Wants(g id.GUID) bool {
	i, _, fits := l.place(g)
	return fits || l.overflows(i, g)
}

// overflows reports whether g at position i is one node too many for a wrapped
// leaf set, and the one that would have to go.
func (l *LeafSet) overflows(i int, g id.GUID) bool {
	return l.wrapped && len(l.all) == 2*l.h && i == l.h && g != l.self && l.all[min(i, len(l.all)-1)].GUID != g
}

// Insert adds m if it belongs. It returns the member that had to make room, if
// any.
func (l *LeafSet) Insert(m Member) (added bool, out Member, dropped bool) {
	i, s, fits := l.place(m.GUID)
	if !fits {
		if l.overflows(i, m.GUID) {
			l.wrapped, l.split = false, l.h
		}
		return false, Member{}, false
	}
	l.all = slices.Insert(l.all, i, m)
	l.keys = slices.Insert(l.keys, i, l.key(m.GUID))
	drop := -1
	switch {
	case l.wrapped:
		if len(l.all) > 2*l.h {
			l.wrapped, l.split, drop = false, l.h, l.h
		}
	case s == Right:
		// The far end makes room: it becomes that of the other side if that
		// is short.
		if l.split++; l.split > l.h {
			l.split--
			if len(l.all)-l.split > l.h {
				drop = l.split
			}
		}
	case len(l.all)-l.split > l.h:
		if l.split < l.h {
			l.split++
		} else {
			drop = l.split
		}
	}
	if drop < 0 {
		return true, Member{}, false
	}
	out = l.all[drop]
	l.cut(drop)
	return true, out, true
}

func (l *LeafSet) cut(i int) {
	l.all = slices.Delete(l.all, i, i+1)
	l.keys = slices.Delete(l.keys, i, i+1)
}

// Remove takes g out, if it is in.
func (l *LeafSet) Remove(g id.GUID) bool {
	i, ok := l.find(g)
	if !ok {
		return false
	}
	l.cut(i)
	if !l.wrapped && i < l.split {
		l.split--
	}
	return true
}

// Wrap tells the leaf set that its members and self are the whole ring.
func (l *LeafSet) Wrap() { l.wrapped, l.split = true, 0 }

// Unwrap tells the leaf set that there are nodes it does not know, although
// it never overflowed. Its members are parted by the shorter way to them.
func (l *LeafSet) Unwrap() {
	if !l.wrapped {
		return
	}
	l.wrapped = false
	l.split = sort.Search(len(l.all), func(i int) bool {
		g := l.all[i].GUID
		return !g.Sub(l.self).Less(l.self.Sub(g))
	})
	for l.split > l.h {
		l.split--
	}
	l.split = max(l.split, len(l.all)-l.h)
}

// IsLeft reports whether g is a member of the left side and not of the right.
func (l *LeafSet) IsLeft(g id.GUID) bool {
	i, ok := l.find(g)
	return ok && !l.wrapped && i >= l.split
}

// Covers reports whether the root of k is among the members and self, as far
// as the leaf set knows: k lies between the two far ends.
func (l *LeafSet) Covers(k id.GUID) bool {
	if l.wrapped {
		return true
	}
	if len(l.all) == 0 {
		return false
	}
	lo, hi := l.ends()
	return !hi.Sub(lo).Less(k.Sub(lo))
}

func (l *LeafSet) ends() (lo, hi id.GUID) {
	lo, hi = l.self, l.self
	if m, ok := l.Farthest(Left); ok {
		lo = m.GUID
	}
	if m, ok := l.Farthest(Right); ok {
		hi = m.GUID
	}
	return lo, hi
}

// Closest returns the member nearest to k, or false if self is nearer. It
// looks past the node but, if that is set.
func (l *LeafSet) Closest(k id.GUID, but *id.GUID) (Member, bool) {
	n := len(l.all)
	if n == 0 {
		return Member{}, false
	}
	// Position n stands for self. Only the two nodes around k can be nearest.
	i, _ := l.find(k)
	if k == l.self {
		i = n
	}
	at := func(j int) id.GUID {
		if j == n {
			return l.self
		}
		return l.all[j].GUID
	}
	up, down := i, (i+n)%(n+1)
	if but != nil {
		for up != n && at(up) == *but {
			up = (up + 1) % (n + 1)
		}
		for down != n && at(down) == *but {
			down = (down + n) % (n + 1)
		}
	}
	best := up
	if id.CmpDist(k, at(down), at(up)) < 0 {
		best = down
	}
	if best == n {
		return Member{}, false
	}
	return l.all[best], true
}

// line views the known stretch of the ring as a line, clockwise from the far
// left end over self to the far right end; a wrapped leaf set starts anywhere
// and goes round.
func (l *LeafSet) line(j int, selfRef uint32) Member {
	nl := len(l.all) - l.split
	switch {
	case j < nl:
		return l.all[l.split+j]
	case j == nl:
		return Member{GUID: l.self, Ref: selfRef}
	default:
		return l.all[j-nl-1]
	}
}

// lineAt returns the position on the line of the first node not before k,
// which must be covered, and whether that node is k itself.
func (l *LeafSet) lineAt(k id.GUID) (j int, exact bool) {
	nl := len(l.all) - l.split
	if k == l.self {
		return nl, true
	}
	i, exact := l.find(k)
	if i < l.split {
		return nl + 1 + i, exact
	}
	return i - l.split, exact
}

// Around appends the rank nodes nearest to k to dst, nearest first, self among
// them as selfRef where it belongs; fewer if the ring is smaller. False: some
// of them may be unknown here.
func (l *LeafSet) Around(k id.GUID, rank int, selfRef uint32, dst []Member) ([]Member, bool) {
	if !l.Covers(k) {
		return dst, false
	}
	total := len(l.all) + 1
	up, _ := l.lineAt(k)
	down := up - 1
	for range min(rank, total) {
		if l.wrapped {
			up, down = (up+total)%total, (down+total)%total
		} else if down < 0 || up >= total {
			return dst, false
		}
		u, d := l.line(up, selfRef), l.line(down, selfRef)
		if id.CmpDist(k, d.GUID, u.GUID) < 0 {
			dst = append(dst, d)
			down--
		} else {
			dst = append(dst, u)
			up++
		}
	}
	return dst, true
}

// Range returns the arc of keys for which g, a member or self, is among the
// rank nearest nodes. False: g is unknown, or its arc is not fully known.
func (l *LeafSet) Range(g id.GUID, rank int) (id.Arc, bool) {
	if rank <= 0 || g != l.self && !l.Has(g) {
		return id.Arc{}, false
	}
	total := len(l.all) + 1
	if l.wrapped && rank >= total {
		return id.FullArc, true
	}
	j, _ := l.lineAt(g)
	lo, hi := j-rank, j+rank
	if l.wrapped {
		lo, hi = (lo+2*total)%total, hi%total
	} else if lo < 0 || hi >= total {
		return id.Arc{}, false
	}
	return id.Arc{
		Lo: Border(l.line(lo, 0).GUID, g),
		Hi: Border(g, l.line(hi, 0).GUID),
	}, true
}

// Estimate returns the estimated number of nodes on the ring, self included:
// exact if wrapped, else from the density of the leaf set.
func (l *LeafSet) Estimate() int64 {
	n := uint64(len(l.all))
	if l.wrapped || n == 0 {
		return int64(n) + 1
	}
	lo, hi := l.ends()
	span := hi.Sub(lo)
	top := binary.BigEndian.Uint64(span[:8])
	if top <= n {
		return 1 << 40 // denser than can be told
	}
	q, _ := bits.Div64(n, 0, top)
	return int64(min(max(q, n+1), 1<<40))
}
