package dht

import (
	"cmp"
	"math/bits"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// maxPeers bounds the peers remembered, maxSlots those that an entry's holders
// can name: more than the largest leaf set and its candidates.
const (
	maxPeers = 4096
	maxSlots = 64
)

// peer is another node, or this one (Node.me).
type peer struct {
	h        *id.Handle
	slot     int    // bit in entry.holders; -1: none yet
	dom      int32  // failure domain, numbered by this node
	leaf     bool   // among the overlay's neighbours now
	gone     bool   // was, and was evicted
	returned bool   // came back after that: what was known of it needs confirming
	rejoin   bool   // tell it so with the next SyncTree
	epoch    uint32 // its boot epoch when it was evicted
	heard    machine.Time
	free     uint64 // bytes it said it has left
	fullTill machine.Time
	fullFree uint64 // the least free that it has said since it was

	get  latency // of Get
	ack  latency // of small copies and votes
	bulk latency // of Copies with large blocks
	put  latency // of Puts, as a client sees them

	fails   int          // silences in a row
	suspect machine.Time // asked last until then

	sync session
}

func (p *peer) bit() uint64 {
	if p.slot < 0 {
		return 0
	}
	return 1 << p.slot
}

// latency is a running estimate in the manner of RFC 6298, with a 95th
// percentile beside it: up by 19 parts when a sample lies above, down by one
// when below.
type latency struct {
	srtt, dev, p95 machine.Duration
	n              int
}

func (l *latency) sample(d machine.Duration) {
	l.n++
	if l.n == 1 {
		l.srtt, l.dev, l.p95 = d, d/2, 2*d
		return
	}
	e := d - l.srtt
	l.srtt += e / 8
	if e < 0 {
		e = -e
	}
	l.dev += (e - l.dev) / 4
	step := max(l.p95/400, 10)
	if d > l.p95 {
		l.p95 += 19 * step
	} else {
		l.p95 -= step
	}
}

// copies is the estimate for a copy of a size.
func (p *peer) copies(size int) *latency {
	if size >= largeCopy {
		return &p.bulk
	}
	return &p.ack
}

// largeCopy is where the time of a copy is that of its bytes.
const largeCopy = 64 << 10

// rto is srtt + 4·dev, first for a peer never measured.
func (l *latency) rto(first, floor, ceiling machine.Duration) machine.Duration {
	d := first
	if l.n > 0 {
		d = l.srtt + 4*l.dev
	}
	return min(max(d, floor), ceiling)
}

// peer returns the peer of a handle, remembering it and its newest handle.
func (n *Node) peer(h *id.Handle) *peer {
	if p, ok := n.peers[h.GUID]; ok {
		if h.Epoch > p.h.Epoch || h.Epoch == p.h.Epoch && h != p.h {
			p.h = h
		}
		return p
	}
	if len(n.peers) >= maxPeers {
		n.forgetPeers()
	}
	p := &peer{h: h, slot: -1}
	n.peers[h.GUID] = p
	return p
}

// lookup returns the peer g if it can be reached somehow, else nil.
func (n *Node) lookup(g id.GUID) *peer {
	if p, ok := n.peers[g]; ok {
		return p
	}
	if h := n.r.Lookup(g); h != nil {
		return n.peer(h)
	}
	if h := n.m.Handle(g); h != nil {
		return n.peer(h)
	}
	return nil
}

// forgetPeers drops the quarter of the peers without slot that were heard of
// longest ago.
func (n *Node) forgetPeers() {
	var old []*peer
	for _, p := range n.peers {
		if p != n.me && p.slot < 0 && !p.leaf {
			old = append(old, p)
		}
	}
	slices.SortFunc(old, func(a, b *peer) int {
		if c := cmp.Compare(a.heard, b.heard); c != 0 {
			return c
		}
		return a.h.GUID.Cmp(b.h.GUID)
	})
	for _, p := range old[:len(old)/4] {
		delete(n.peers, p.h.GUID)
	}
}

// slot makes sure that p has a bit. If all are taken, the one of the peer gone
// longest is freed, and cleared everywhere.
func (n *Node) slot(p *peer) uint64 {
	if p == n.me {
		return 0
	}
	if p.slot >= 0 {
		return p.bit()
	}
	var worst *peer
	for i, q := range n.slots {
		if q == nil {
			n.slots[i], p.slot = p, i
			return p.bit()
		}
		if !q.leaf && (worst == nil || q.heard < worst.heard) {
			worst = q
		}
	}
	if worst == nil {
		return 0
	}
	bit := worst.bit()
	n.tree.walk(id.GUID{}, maxGUID, func(e *entry) bool {
		e.holders &^= bit
		if e.x != nil {
			e.x.pointed &^= bit
		}
		return true
	})
	for _, a := range n.arcs {
		a.seen &^= bit
	}
	n.live &^= bit
	p.slot, worst.slot = worst.slot, -1
	n.slots[p.slot] = p
	return bit
}

// refreshLive recomputes which slots count as live: neighbours of the overlay,
// and others heard within three rounds.
func (n *Node) refreshLive() {
	was, wereHere := n.live, n.allHere
	n.live, n.returned = 0, 0
	n.allHere = n.nobodyAway()
	for _, p := range n.slots {
		if p == nil {
			continue
		}
		if p.leaf || !p.gone && p.heard > 0 && n.now.Sub(p.heard) < 3*n.cfg.Round {
			n.live |= p.bit()
		}
		if p.returned {
			n.returned |= p.bit()
		}
	}
	if n.live != was || n.allHere != wereHere {
		n.recount() // who is away decides what repair waits for
	}
}

// each calls f for the peers whose bits are set.
func (n *Node) each(mask uint64, f func(p *peer)) {
	for ; mask != 0; mask &= mask - 1 {
		if p := n.slots[bits.TrailingZeros64(mask)]; p != nil {
			f(p)
		}
	}
}

// strike counts bad input.
func (n *Node) strike(p *peer, what string) {
	n.stats.Strikes++
	if p != n.me && n.cfg.BadInput != nil {
		n.cfg.BadInput(p.h.GUID, what)
	}
}

// full notes that p has no room for a block: no copy is made or diverted there
// until then, unless it has room again before.
func (p *peer) full(until machine.Time) { p.fullTill, p.fullFree = until, p.free }

// roomAgain is by how much the space of a full peer must grow before it is asked
// sooner: any block has room in that much, a diverted one too.
const roomAgain = 20 * MaxBlock

// says notes the bytes that p says it has left. By how much they grew counts, not
// what a block takes: a disk may refuse what its figures have room for.
func (n *Node) says(p *peer, free uint64) {
	p.free = free
	if p.fullTill <= n.now {
		return
	}
	if free >= p.fullFree+roomAgain {
		p.fullTill = 0
		n.recount() // what was put off for it
		return
	}
	p.fullFree = min(p.fullFree, free)
}

// silent notes that p left a question unanswered.
func (n *Node) silent(p *peer) {
	if p == n.me {
		return
	}
	p.fails = min(p.fails+1, 5)
	p.suspect = n.now.Add(machine.Duration(p.fails) * machine.Second)
}

// byRTT orders peers for reading: self, then those not under suspicion, then
// by measured round trip (unknown ones last), ties as they were.
func (n *Node) byRTT(ps []*peer) {
	slices.SortStableFunc(ps, func(a, b *peer) int { return cmp.Compare(n.cost(a), n.cost(b)) })
}

func (n *Node) cost(p *peer) machine.Duration {
	switch {
	case p == n.me:
		return -1
	case p.suspect > n.now:
		return machine.Hour
	}
	if d := n.r.RTT(p.h.GUID); d > 0 {
		return d
	}
	return machine.Minute
}
