package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
)

// anchor are the members of whom one must be among those that acknowledge a put
// of key: those nearest to it who are counted everywhere. deniers holds them too,
// so an acknowledgement on one side of a split and a "not found" on the other
// exclude each other, though each side may have taken in members that the other
// has not heard of. The bound: a split that lasts longer than Config.Elder and
// takes in k members nearest to the key. A pool with fewer than k elders relies on
// all its members.
func (n *Node) anchor(key id.GUID) []id.GUID {
	if old := n.elders(key); len(old) >= n.cfg.K {
		return old
	}
	return n.m.Nearest(key, n.cfg.K)
}

// deniers are the members whose word "absent" it takes to say "not found", beside
// that of the whole set: any of them may be the only one within reach who has seen
// an acknowledged put. Nodes need not agree who is an elder, only who has been one
// for long: all up to the k-th of those hold every anchor that another may have
// chosen.
func (n *Node) deniers(key id.GUID) []id.GUID {
	gs := n.m.Nearest(key, n.cfg.K)
	sure := n.m.Elders(key, n.cfg.K, n.now, int64(n.unixMS()), 2*n.cfg.Elder)
	if len(sure) < n.cfg.K {
		for _, g := range n.elders(key) {
			if !slices.Contains(gs, g) {
				gs = append(gs, g)
			}
		}
		return gs
	}
	for {
		if i := slices.Index(gs, sure[len(sure)-1]); i >= 0 {
			return gs[:i+1]
		}
		gs = n.m.Nearest(key, 2*len(gs))
	}
}

// voters is anchor for a signed block, which only its set may vote on: where
// newcomers have taken all places of the elders, they suffice.
func (n *Node) voters(key id.GUID) []id.GUID {
	old := n.anchor(key)
	set, _, _ := n.view(key, 0)
	if slices.ContainsFunc(set, func(p *peer) bool { return slices.Contains(old, p.h.GUID) }) {
		return old
	}
	return n.m.Nearest(key, n.cfg.K)
}

func (n *Node) elders(key id.GUID) []id.GUID {
	return n.m.Elders(key, n.cfg.K, n.now, int64(n.unixMS()), n.cfg.Elder)
}
