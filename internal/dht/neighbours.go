package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// RosterChanged tells that members or domains changed, so that sets are
// computed anew at once.
func (n *Node) RosterChanged(now machine.Time, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		if n.started {
			n.rosterNews()
		}
	})
}

// rosterNews: k copies may mean another number now, and sets differ.
func (n *Node) rosterNews() {
	if c := n.m.Count(); c != n.members {
		n.members = c
		n.recount()
	}
	n.roster = n.m.Digest()
	n.unsettle()
}

// Forget tells that g was revoked: it is out of every set at once, and what it
// held is copied without grace.
func (n *Node) Forget(now machine.Time, g id.GUID, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		n.forgotten[g] = true
		if p, ok := n.peers[g]; ok && p != n.me {
			n.lost(p)
		}
		n.unsettle()
	})
}

// Update is the upcall of a change of the leaf set.
func (n *Node) Update(now machine.Time, h *id.Handle, joined bool, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		if h.GUID == n.me.h.GUID {
			n.me.h = h
			n.unsettle()
			return
		}
		p := n.peer(h)
		p.heard = n.now
		switch {
		case joined && !p.leaf:
			n.arrived(p)
		case !joined:
			n.lost(p)
		}
		n.unsettle()
	})
}

// arrived: p is a neighbour now. If it had been one before, what it holds must
// be confirmed, and what others agreed on without us must be learnt.
func (n *Node) arrived(p *peer) {
	p.leaf = true
	p.fails, p.suspect = 0, 0
	n.slot(p)
	if p.gone {
		p.gone, p.returned = false, true
		p.rejoin = p.h.Epoch == p.epoch // else it restarted, and enters anyway
		n.trace("dht.return", p.h.GUID, id.GUID{}, 0, "")
	}
	n.news = append(n.news, p)
	p.sync.reset()
	if n.cfg.Bugs.DeleteOnReturn && p.returned {
		for _, g := range n.outsideCopies(maxQueued) {
			n.dropCopy(g, nil)
		}
	}
}

// lost: the overlay evicted p.
func (n *Node) lost(p *peer) {
	wasLeaf := p.leaf
	p.leaf, p.gone, p.epoch = false, true, p.h.Epoch
	p.sync.reset()
	if wasLeaf {
		n.trace("dht.gone", p.h.GUID, id.GUID{}, 0, "")
	}
	if n.live&p.bit() != 0 {
		n.live &^= p.bit()
		n.recount() // it may have held copies that belong elsewhere
	}
	n.abandon(p)
}

// pulseSoon brings the next look at sessions and repair forward, once for a
// burst of updates.
func (n *Node) pulseSoon() {
	if n.repair.soon || !n.started {
		return
	}
	n.repair.soon = true
	n.later(20*machine.Millisecond, func() {
		n.repair.soon = false
		n.settle()
		n.pulseSync()
		n.pulseRepair()
	})
}

// guids are the GUIDs of peers, ascending, for a refusal.
func guids(ps []*peer) []id.GUID {
	gs := make([]id.GUID, 0, len(ps))
	for _, p := range ps {
		gs = append(gs, p.h.GUID)
	}
	slices.SortFunc(gs, func(a, b id.GUID) int { return a.Cmp(b) })
	return slices.Compact(gs)
}

func handles(ps []*peer) []*id.Handle {
	hs := make([]*id.Handle, 0, min(len(ps), maxSet))
	for _, p := range ps[:min(len(ps), maxSet)] {
		hs = append(hs, p.h)
	}
	return hs
}
