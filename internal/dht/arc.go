package dht

import (
	"bytes"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// arc is a stretch of the ring, both ends inclusive and lo ≤ hi (an arc over
// zero is kept as two), on which every key has the same set in the same order.
type arc struct {
	lo, hi id.GUID
	set    []*peer
	since  []machine.Time // when each member entered the set
	mask   uint64         // the set without self
	rank   int            // of self in set; -1: not in it

	synced bool   // self knows what the set knows; false forbids "absent"
	near   uint64 // candidates, to be asked on entry
	seen   uint64 // peers compared with on the whole arc since they came (back)
	fresh  uint64 // of these, those that were unsynced themselves

	dirty  bool         // a copy may be missing: count again
	stale  bool         // blocks came or went: count again when asked
	due    machine.Time // when a copy that is missing may be made
	cursor id.GUID      // where counting goes on
	midway bool
	tally  tally // of the count under way
	stats  tally // of the last finished one
}

// tally counts blocks by the number of their copies.
type tally struct{ blocks, full, degraded, belowW, lost int64 }

func (a *arc) mine() bool { return a.rank >= 0 }

// pick chooses the set from candidates in order of distance: the first of each
// unused failure domain, filled up with the first that were skipped.
// The set is in order of distance too.
func pick[T any](cands []T, k int, domain func(T) string) []T {
	if len(cands) <= k {
		return slices.Clone(cands)
	}
	var used []string
	in := make([]bool, len(cands))
	chosen := 0
	for i, c := range cands {
		if chosen == k {
			break
		}
		if d := domain(c); !slices.Contains(used, d) {
			used = append(used, d)
			in[i] = true
			chosen++
		}
	}
	for i := range cands {
		if chosen == k {
			break
		}
		if !in[i] {
			in[i] = true
			chosen++
		}
	}
	set := make([]T, 0, k)
	for i, c := range cands {
		if in[i] {
			set = append(set, c)
		}
	}
	return set
}

func (n *Node) domainOf(p *peer) string { return n.m.Domain(p.h.GUID) }

// nearest returns the count nodes of the sorted ring that are nearest to key.
func nearest(ring []*peer, key id.GUID, count int) []*peer {
	if len(ring) == 0 {
		return nil
	}
	count = min(count, len(ring))
	out := make([]*peer, 0, count)
	right, _ := slices.BinarySearchFunc(ring, key, func(p *peer, k id.GUID) int { return p.h.GUID.Cmp(k) })
	left := right - 1
	for len(out) < count {
		l := ring[(left+2*len(ring))%len(ring)]
		r := ring[right%len(ring)]
		if id.CmpDist(key, l.h.GUID, r.h.GUID) < 0 {
			out = append(out, l)
			left--
		} else {
			out = append(out, r)
			right++
		}
	}
	return out
}

// candidates are the 4k nodes nearest to key, as far as known here.
func (n *Node) candidates(key id.GUID) []*peer { return nearest(n.ring, key, 4*n.cfg.K) }

// arcOf returns the arc of key, nil if this node does not know it.
func (n *Node) arcOf(key id.GUID) *arc {
	i, found := slices.BinarySearchFunc(n.arcs, key, func(a *arc, k id.GUID) int { return a.lo.Cmp(k) })
	if !found {
		i--
	}
	if i < 0 || n.arcs[i].hi.Less(key) {
		return nil
	}
	return n.arcs[i]
}

// rebuild recomputes ring and arcs after a change of the leaf set or roster.
// The set of a key changes only where two of its nearest nodes are equally
// far, and the nodes nearest to a key are neighbours on the ring, so: cut the ring at the midpoints of all pairs that can both be among
// the candidates, evaluate the set once per piece, and join equal neighbours.
// What was known of the old arcs is carried over.
func (n *Node) rebuild() {
	if !n.r.Ready() {
		n.ring, n.arcs = nil, nil
		return
	}
	hs := n.r.NeighborSet(2 * maxSet)
	ring := make([]*peer, 0, len(hs)+1)
	ring = append(ring, n.me)
	for _, h := range hs {
		if h.GUID != n.me.h.GUID && !n.forgotten[h.GUID] {
			ring = append(ring, n.peer(h))
		}
	}
	slices.SortFunc(ring, func(a, b *peer) int { return a.h.GUID.Cmp(b.h.GUID) })
	n.ring = slices.CompactFunc(ring, func(a, b *peer) bool { return a == b })
	for _, p := range n.ring {
		if p != n.me {
			p.leaf = true
			n.slot(p)
		}
	}
	n.refreshLive()

	cuts := n.cuts()
	_, whole := n.r.ReplicaSet(n.me.h.GUID.Add(id.FromPrefix("8")), 1)
	old := n.arcs
	arcs := make([]*arc, 0, len(cuts))
	j := 0
	for i, lo := range cuts {
		hi := maxGUID
		if i+1 < len(cuts) {
			hi = cuts[i+1].Sub(one)
		}
		if !whole && !n.known(lo, hi) {
			continue
		}
		for j < len(old) && old[j].hi.Less(lo) {
			j++
		}
		var was *arc
		if j < len(old) && !lo.Less(old[j].lo) {
			was = old[j]
		}
		arcs = joinArc(arcs, n.newArc(lo, hi, was))
	}
	n.arcs = arcs
	n.afterRebuild()
}

var one = id.GUID{id.Size - 1: 1}

// cuts are the points, sorted, at which a set may begin to differ from that of
// the point before; the ends of the old arcs are among them, so that each
// piece lies in one old arc.
func (n *Node) cuts() []id.GUID {
	reach := n.cfg.K
	seen := make(map[string]bool, len(n.ring))
	for _, p := range n.ring {
		d := n.domainOf(p)
		if seen[d] {
			reach = 4 * n.cfg.K
			break
		}
		seen[d] = true
	}
	cuts := []id.GUID{{}}
	for i, a := range n.ring {
		for d := 1; d <= min(reach, len(n.ring)-1); d++ {
			b := n.ring[(i+d)%len(n.ring)]
			m := id.Midpoint(a.h.GUID, b.h.GUID)
			cuts = append(cuts, m, m.Add(one))
		}
	}
	for _, a := range n.arcs {
		cuts = append(cuts, a.lo)
		if a.hi != maxGUID {
			cuts = append(cuts, a.hi.Add(one))
		}
	}
	slices.SortFunc(cuts, func(a, b id.GUID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(cuts)
}

// known reports whether this node is a candidate on a piece of a ring larger
// than its leaf set, and knows all the others there.
func (n *Node) known(lo, hi id.GUID) bool {
	if !slices.Contains(n.candidates(lo), n.me) {
		return false
	}
	for _, k := range []id.GUID{lo, hi} {
		if _, ok := n.r.ReplicaSet(k, 4*n.cfg.K); !ok {
			return false
		}
	}
	return true
}

// newArc evaluates the set of one piece and takes over what the old arc knew.
func (n *Node) newArc(lo, hi id.GUID, was *arc) *arc {
	a := &arc{lo: lo, hi: hi, rank: -1, due: machine.Never}
	a.set = pick(n.candidates(lo), n.cfg.K, n.domainOf)
	a.near = n.nearMask(lo)
	a.since = make([]machine.Time, len(a.set))
	for i, p := range a.set {
		a.since[i] = n.now
		if p == n.me {
			a.rank = i
		}
		a.mask |= p.bit()
	}
	if was == nil {
		a.dirty = true
		return a
	}
	a.seen, a.fresh = was.seen, was.fresh
	a.stale, a.stats = true, was.stats
	a.synced = was.synced && was.mine() && a.mine() // else it is entered anew
	a.dirty = was.dirty || was.midway || was.lo != lo || was.hi != hi || !slices.Equal(a.set, was.set)
	a.due = was.due
	for i, p := range a.set {
		if j := slices.Index(was.set, p); j >= 0 {
			a.since[i] = was.since[j]
		}
	}
	// A member that left for good, or was revoked, is not waited for.
	for _, p := range was.set {
		if !slices.Contains(a.set, p) && !p.leaf && !n.m.Has(p.h.GUID) {
			for i := range a.since {
				if a.since[i] == n.now {
					a.since[i] = n.now.Add(-n.cfg.Grace)
				}
			}
		}
	}
	return a
}

// joinArc appends a, or merges it into the arc before if that is adjacent and
// alike.
func joinArc(arcs []*arc, a *arc) []*arc {
	if len(arcs) > 0 {
		b := arcs[len(arcs)-1]
		if b.hi.Add(one) == a.lo && b.synced == a.synced && slices.Equal(a.set, b.set) {
			b.hi = a.hi
			b.near |= a.near
			b.seen &= a.seen
			b.fresh &= a.fresh
			b.dirty = true
			b.due = min(a.due, b.due)
			for i := range b.since {
				b.since[i] = min(a.since[i], b.since[i])
			}
			return arcs
		}
	}
	return append(arcs, a)
}

// kOf is the number of copies wanted of e: its own k where an owner asked for
// more, no more than there are members.
func (n *Node) kOf(e *entry) int { return n.kEff(int(e.k)) }

// kEff is min(k, members), k being the pool's if 0. It counts members, not
// nodes now visible: a node that is cut off must not acknowledge alone.
func (n *Node) kEff(k int) int {
	if k == 0 {
		k = n.cfg.K
	}
	return max(1, min(k, n.m.Count()))
}

// setOf returns the set of e, which lies on a.
func (n *Node) setOf(a *arc, e *entry) []*peer {
	if k := int(e.k); k != 0 && k != n.cfg.K {
		return pick(nearest(n.ring, e.guid, 4*k), k, n.domainOf)
	}
	return a.set
}

// trusted masks the holders whose bits count on a: live, and confirmed if they
// had been away.
func (n *Node) trusted(a *arc) uint64 { return n.live & (^n.returned | a.seen) }
