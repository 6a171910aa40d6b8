package dht

import (
	"atoll.example/atoll/internal/id"
)

// Entry. A node that starts, returns, or finds itself in a new arc is unsynced
// there until it has compared its records with every live member of the
// previous set: the k nearest nodes that are not unsynced themselves. We ask
// all the 4k nearest candidates, which takes one message each where they have
// nothing: then nodes that took a block in while this one was away, in a set
// that no longer exists, are asked too. If nobody is synced (the whole pool
// restarted) this is the pairwise comparison of all.

// checkEntered ends the entry of arcs that have been compared with all who
// must be asked.
func (n *Node) checkEntered() {
	for _, a := range n.arcs {
		if a.mine() && !a.synced && n.entered(a) {
			a.synced = true
			a.dirty = true
			n.trace("dht.entered", id.GUID{}, a.lo, 0, "")
		}
	}
}

// optionalTries is how many sessions in a row must fail before an entry goes
// on without a candidate that the overlay calls live: some five minutes. Few,
// and a newcomer would say "absent" of what only that node knows.
const optionalTries = 8

func (n *Node) entered(a *arc) bool {
	must := n.previous(a, a.lo) | n.previous(a, a.hi)
	done := true
	n.each(a.near&^a.seen&n.live, func(p *peer) {
		if must&p.bit() != 0 || p.sync.fails < optionalTries {
			done = false
		}
	})
	return done
}

// previous is the previous set at one end of a, which is not waived. It may lie
// beyond the candidates, where many came at once.
func (n *Node) previous(a *arc, end id.GUID) (mask uint64) {
	for count := 4 * n.cfg.K; ; count *= 2 {
		near, _ := n.circle.nearest(n.scratch[:0], end, count)
		n.scratch = near[:0]
		var synced []*peer
		for _, p := range near {
			if p != n.me && a.fresh&p.bit() == 0 {
				synced = append(synced, p)
			}
			a.near |= p.bit()
		}
		synced = pickPeers(nil, synced, n.cfg.K)
		if len(synced) < n.cfg.K && len(near) == count {
			continue
		}
		for _, p := range synced {
			mask |= p.bit()
		}
		return mask
	}
}

// reenter: p is back after it was evicted. What it and others agreed on
// meanwhile is not known here, so this node is unsynced on the arcs they share.
func (n *Node) reenter(p *peer) {
	bit := p.bit()
	for _, a := range n.arcs {
		if a.near&bit != 0 {
			a.synced = false
			a.seen &^= bit
		}
	}
}

// missedBy: p says that it had evicted this node, which may know nothing of
// it. The same follows.
func (n *Node) missedBy(p *peer) {
	if p.bit() == 0 {
		return
	}
	n.settle()
	n.reenter(p)
	n.pulseSoon()
}
