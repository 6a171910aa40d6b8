package dht

import (
	"bytes"
	"encoding/binary"
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
	grown  []bool         // of set: it came in while nobody of the set before was away
	mask   uint64         // the set without self
	rank   int            // of self in set; -1: not in it

	synced bool   // self knows what the set knows; false forbids "absent"
	near   uint64 // candidates at its ends, to be asked on entry
	seen   uint64 // peers compared with on the whole arc since they came (back)
	fresh  uint64 // of these, those that were unsynced themselves

	dirty  bool         // a copy may be missing: count again
	stale  bool         // blocks came or went: count again when asked
	copies int          // asked for when it was counted last
	short  machine.Time // since when copies have been found missing; 0: none were
	found  bool         // the count under way found one
	due    machine.Time // when a copy that is missing may be made
	cursor id.GUID      // where counting goes on
	midway bool
	tally  tally // of the count under way
	stats  tally // of the last finished one
}

// tally counts blocks by the number of their copies.
type tally struct{ blocks, full, degraded, belowW, lost int64 }

// add counts a block that has c copies and should have k.
func (t *tally) add(c, k int) {
	t.blocks++
	switch {
	case c >= k:
		t.full++
	case c >= quorum(k):
		t.degraded++
	case c > 0:
		t.belowW++
	default:
		t.lost++
	}
}

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

// circle is the known part of the ring, in order of GUID. In a pool that fits
// into the leaf set it is whole; else it begins and ends at the farthest
// neighbours, and what lies between the end and the beginning is unknown.
type circle struct {
	nodes []*peer
	at    []uint64 // the first 64 bits of each one's GUID: enough for most comparisons
	whole bool
}

func newCircle(nodes []*peer, whole bool) circle {
	c := circle{nodes: nodes, at: make([]uint64, len(nodes)), whole: whole}
	for i, p := range nodes {
		c.at[i] = leading(&p.h.GUID)
	}
	return c
}

func leading(g *id.GUID) uint64 { return binary.BigEndian.Uint64(g[:8]) }

// after is the number of nodes between the first one and key, clockwise.
func (c *circle) after(key *id.GUID) int {
	first, k := &c.nodes[0].h.GUID, leading(key)-c.at[0]
	lo, hi := 0, len(c.at)
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		d := c.at[m] - c.at[0]
		before := d < k
		if d == k || k == 0 {
			before = c.nodes[m].h.GUID.Sub(*first).Less(key.Sub(*first))
		}
		if before {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// nearest appends the count nodes nearest to key. False: nodes beyond the ends
// may be nearer.
func (c *circle) nearest(dst []*peer, key id.GUID, count int) ([]*peer, bool) {
	size := len(c.nodes)
	count = min(count, size)
	if count == 0 {
		return dst, false
	}
	right := c.after(&key)
	left := right - 1
	if c.whole {
		left = (left + size) % size
		right %= size
	}
	k := leading(&key)
	for range count {
		if !c.whole && (left < 0 || right >= size) {
			return dst, false
		}
		// Distances rounded down to 2^-64 of the ring; where that cannot tell,
		// exactly.
		dl, dr := away(k, c.at[left]), away(k, c.at[right])
		near := dl < dr
		if dl-dr+2 <= 4 {
			near = id.CmpDist(key, c.nodes[left].h.GUID, c.nodes[right].h.GUID) < 0
		}
		if near {
			dst = append(dst, c.nodes[left])
			if left--; left < 0 && c.whole {
				left = size - 1
			}
		} else {
			dst = append(dst, c.nodes[right])
			if right++; right == size && c.whole {
				right = 0
			}
		}
	}
	return dst, true
}

// away is the shorter way between two points, round a ring of 2^64.
func away(a, b uint64) uint64 { return min(a-b, b-a) }

// candidates are the 4k nodes nearest to key, nil if this node does not know
// them all. The slice is valid until the next call.
func (n *Node) candidates(key id.GUID) []*peer {
	cands, ok := n.circle.nearest(n.scratch[:0], key, 4*n.cfg.K)
	n.scratch = cands[:0]
	if !ok {
		return nil
	}
	return cands
}

// arcOf returns the arc of key, nil if this node does not know it.
func (n *Node) arcOf(key id.GUID) *arc {
	n.settle()
	i, found := slices.BinarySearchFunc(n.arcs, key, func(a *arc, k id.GUID) int { return a.lo.Cmp(k) })
	if !found {
		i--
	}
	if i < 0 || n.arcs[i].hi.Less(key) {
		return nil
	}
	return n.arcs[i]
}

// unsettle notes that the leaf set or the roster changed; sets are computed
// anew when one is needed next, once for a burst of changes.
func (n *Node) unsettle() {
	n.unsettled = true
	n.pulseSoon()
}

func (n *Node) settle() {
	if n.unsettled && n.started {
		n.unsettled = false
		n.rebuild()
		for _, p := range n.news { // on the arcs as they are with them
			for _, a := range n.arcs {
				a.seen &^= p.bit()
			}
			if p.returned {
				n.reenter(p)
			}
		}
		n.news = n.news[:0]
	}
}

// rebuild recomputes ring and arcs. The set of a key changes only where two of
// its nearest nodes are equally far, and the nodes nearest to a key are
// neighbours on the ring, so: cut the ring at the midpoints of all pairs that
// can both be among the candidates, evaluate the set once per piece, and join
// equal neighbours. What was known of the old arcs is carried over.
func (n *Node) rebuild() {
	if !n.r.Ready() {
		n.circle, n.arcs = circle{}, nil
		return
	}
	changed := n.ringChanged()
	n.refreshLive()
	if !changed {
		return
	}
	cuts := n.cuts()
	old := n.arcs
	arcs := make([]*arc, 0, len(old)+8)
	var from *arc // where the last one came from
	j := 0
	for i, lo := range cuts {
		hi := maxGUID
		if i+1 < len(cuts) {
			hi = cuts[i+1].Sub(one)
		}
		cands := n.candidates(lo)
		if cands == nil || !n.circle.whole && (!slices.Contains(cands, n.me) || !n.knows1(hi)) {
			continue
		}
		for j < len(old) && old[j].hi.Less(lo) {
			j++
		}
		var was *arc
		if j < len(old) && !lo.Less(old[j].lo) {
			was = old[j]
		}
		set := pickPeers(n.set[:0], cands, n.cfg.K)
		n.set = set
		if l := len(arcs); l > 0 && was != nil && was == from && arcs[l-1].hi.Add(one) == lo && slices.Equal(arcs[l-1].set, set) {
			arcs[l-1].extend(hi, cands)
			continue
		}
		from = was
		arcs = n.joinArc(arcs, n.newArc(lo, hi, was, slices.Clone(set), cands))
	}
	// Whoever is a candidate somewhere on an arc is one at an end of it.
	for _, a := range arcs {
		cands, _ := n.circle.nearest(n.scratch[:0], a.hi, 4*n.cfg.K)
		n.scratch = cands[:0]
		for _, p := range cands {
			a.near |= p.bit()
		}
	}
	n.arcs = arcs
}

// extend lengthens an arc by a piece that was one with its last piece before
// and has the same set now.
func (a *arc) extend(hi id.GUID, cands []*peer) {
	a.hi, a.dirty = hi, true
	for _, p := range cands {
		a.near |= p.bit()
	}
}

func (n *Node) knows1(key id.GUID) bool {
	cands, ok := n.circle.nearest(n.scratch2[:0], key, 4*n.cfg.K)
	n.scratch2 = cands[:0]
	return ok
}

// ringChanged takes over the overlay's neighbours and their failure domains,
// and reports whether anything is new.
func (n *Node) ringChanged() bool {
	hs := n.r.NeighborSet(2 * maxSet)
	nodes := make([]*peer, 0, len(hs)+1)
	nodes = append(nodes, n.me)
	for _, h := range hs {
		if h.GUID != n.me.h.GUID && !n.forgotten[h.GUID] {
			nodes = append(nodes, n.peer(h))
		}
	}
	slices.SortFunc(nodes, func(a, b *peer) int { return a.h.GUID.Cmp(b.h.GUID) })
	nodes = slices.CompactFunc(nodes, func(a, b *peer) bool { return a == b })
	changed := false
	for _, p := range nodes {
		if p != n.me {
			p.leaf = true
			n.slot(p)
		}
		d := n.domainOf(p)
		num, ok := n.domains[d]
		if !ok {
			num = int32(len(n.domains)) + 1
			n.domains[d] = num
		}
		changed = changed || p.dom != num
		p.dom = num
	}
	_, whole := n.r.ReplicaSet(n.me.h.GUID.Add(id.FromPrefix("8")), 1)
	if !whole {
		nodes = n.cutOpen(nodes)
	}
	if !changed && whole == n.circle.whole && slices.Equal(nodes, n.circle.nodes) {
		return false
	}
	n.circle = newCircle(nodes, whole)
	return true
}

// cutOpen rotates the neighbours of a larger ring so that they begin after the
// stretch that is unknown: opposite to this node, or where the overlay says
// that it does not know the root.
func (n *Node) cutOpen(nodes []*peer) []*peer {
	size := len(nodes)
	me := slices.Index(nodes, n.me)
	for d := range size {
		i := (me + size/2 + (1-2*(d%2))*((d+1)/2) + size) % size
		a, b := nodes[i].h.GUID, nodes[(i+1)%size].h.GUID
		if _, ok := n.r.ReplicaSet(id.Midpoint(a, b), 1); !ok {
			return append(slices.Clone(nodes[(i+1)%size:]), nodes[:(i+1)%size]...)
		}
	}
	i := (me + size/2 + 1) % size
	return append(slices.Clone(nodes[i:]), nodes[:i]...)
}

var one = id.GUID{id.Size - 1: 1}

// cuts are the points, sorted, at which a set may begin to differ from that of
// the point before; the ends of the old arcs are among them, so that each
// piece lies in one old arc.
func (n *Node) cuts() []id.GUID {
	nodes := n.circle.nodes
	reach := n.cfg.K
	seen := make(map[int32]bool, len(nodes))
	for _, p := range nodes {
		if seen[p.dom] {
			reach = 4 * n.cfg.K
			break
		}
		seen[p.dom] = true
	}
	cuts := make([]id.GUID, 1, 2*len(nodes)*reach+2*len(n.arcs)+1)
	me := slices.Index(nodes, n.me)
	for i, a := range nodes {
		if !n.circle.whole && (i < me-4*n.cfg.K || i > me+4*n.cfg.K) {
			continue
		}
		for d := 1; d <= min(reach, len(nodes)-1); d++ {
			if !n.circle.whole && i+d >= len(nodes) {
				break
			}
			m := id.Midpoint(a.h.GUID, nodes[(i+d)%len(nodes)].h.GUID)
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

// newArc evaluates the set of one piece and takes over what the old arc knew.
func (n *Node) newArc(lo, hi id.GUID, was *arc, set, cands []*peer) *arc {
	a := &arc{lo: lo, hi: hi, rank: -1, due: machine.Never, set: set}
	for _, p := range cands {
		a.near |= p.bit()
	}
	a.since = make([]machine.Time, len(a.set))
	a.grown = make([]bool, len(a.set))
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
	if was.mine() == a.mine() {
		// Of an arc of others only their answer to what is held here is known:
		// that does not count for entering it.
		a.seen, a.fresh = was.seen, was.fresh
	}
	a.stale, a.stats, a.copies = true, was.stats, was.copies
	a.synced = was.synced && was.mine() && a.mine() // else it is entered anew
	a.dirty = was.dirty || was.midway || was.lo != lo || was.hi != hi || !slices.Equal(a.set, was.set)
	a.due, a.short = was.due, was.short
	for i, p := range a.set {
		if j := slices.Index(was.set, p); j >= 0 {
			a.since[i] = was.since[j]
		}
	}
	// Whoever enters a set of which nobody is away, as in a pool that grows,
	// stands for no copy that may come back.
	away := slices.ContainsFunc(was.set, func(p *peer) bool { return p != n.me && !p.leaf && n.m.Has(p.h.GUID) })
	for i, p := range a.set {
		if j := slices.Index(was.set, p); j >= 0 {
			a.grown[i] = was.grown[j]
		} else {
			a.grown[i] = !away
		}
	}
	return a
}

// nobodyAway reports whether every member of the pool is a neighbour: then no
// copy is with somebody who may come back.
func (n *Node) nobodyAway() bool {
	leaves := 1
	for _, p := range n.slots {
		if p != nil && p.leaf {
			leaves++
		}
	}
	return leaves >= n.m.Count()
}

// pickPeers is pick for peers, whose domains are numbered; it appends to set.
func pickPeers(set, cands []*peer, k int) []*peer {
	for i := 0; i < len(cands) && len(set) < k; i++ {
		if !slices.ContainsFunc(set, func(p *peer) bool { return p.dom == cands[i].dom }) {
			set = append(set, cands[i])
		}
	}
	if len(set) == k || len(set) == len(cands) {
		return set
	}
	chosen := slices.Clone(set)
	set = set[:0]
	fill := min(k, len(cands)) - len(chosen)
	for _, c := range cands {
		switch {
		case slices.Contains(chosen, c):
			set = append(set, c)
		case fill > 0:
			set = append(set, c)
			fill--
		}
	}
	return set
}

// sameGrace reports whether what two arcs of one set lack is waited for alike: a
// member that has just entered one of them may have been in the other for long.
func (n *Node) sameGrace(a, b *arc) bool {
	for i := range a.set {
		over := a.since[i].Add(n.cfg.Grace) <= n.now && b.since[i].Add(n.cfg.Grace) <= n.now
		if !over && (a.since[i] != b.since[i] || a.grown[i] != b.grown[i]) {
			return false
		}
	}
	return true
}

// joinArc appends a, or merges it into the arc before if that is adjacent and
// alike.
func (n *Node) joinArc(arcs []*arc, a *arc) []*arc {
	if len(arcs) > 0 {
		b := arcs[len(arcs)-1]
		if b.hi.Add(one) == a.lo && b.synced == a.synced && slices.Equal(a.set, b.set) && n.sameGrace(a, b) {
			b.hi = a.hi
			b.near |= a.near
			b.seen &= a.seen
			b.fresh &= a.fresh
			b.dirty = true
			b.due = min(a.due, b.due)
			if b.short == 0 || a.short != 0 && a.short < b.short {
				b.short = a.short
			}
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
		cands, _ := n.circle.nearest(nil, e.guid, 4*k)
		return pickPeers(nil, cands, k)
	}
	return a.set
}

// trusted masks the holders whose bits count on a: live, and confirmed if they
// had been away.
func (n *Node) trusted(a *arc) uint64 { return n.live & (^n.returned | a.seen) }
