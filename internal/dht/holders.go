package dht

import (
	"atoll.example/atoll/internal/id"
)

func (n *Node) holds(g id.GUID) bool {
	e := n.tree.get(g)
	return e != nil && e.have()
}

// holdsBy notes who holds the bytes that p acknowledged: p, or the node to
// which it diverted them.
func (n *Node) holdsBy(g id.GUID, p *peer, rs []Receipt) {
	if len(rs) > 0 && rs[0].Role == RoleDiverted && rs[0].Node != p.h.GUID {
		p.full(max(p.fullTill, n.now.Add(n.cfg.Round)))
		if q := n.lookup(rs[0].Node); q != nil {
			n.nowHolds(g, q)
		}
		return
	}
	n.nowHolds(g, p)
}

// nowHolds notes that p has the bytes of g.
func (n *Node) nowHolds(g id.GUID, p *peer) {
	if p == n.me {
		return
	}
	if e := n.tree.get(g); e != nil {
		n.holder(e, n.slot(p), true)
	}
}

// holder notes whether the peer of bit has e's bytes.
func (n *Node) holder(e *entry, bit uint64, has bool) {
	was := e.holders
	if has {
		e.holders |= bit
	} else {
		e.holders &^= bit
	}
	if e.holders != was {
		if a := n.arcOf(e.guid); a != nil {
			a.stale = true
			a.dirty = a.dirty || !has // one copy fewer than was counted: a repair may be due
		}
	}
}
