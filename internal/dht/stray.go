package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// Strays are records of keys so far from this node, after many joins, that it
// is not even a candidate there and has no arc for them. Their sets are looked
// up, told what is held here, and asked for tombstones, some each time: so
// that copies far away are counted too, and do not outlive their claims.

const strayBatch = 64 // records per look, four looks a round

func (n *Node) lookForStrays() {
	n.later(machine.Jitter(n.rnd, n.cfg.Round/4, 200_000), n.lookForStrays)
	n.settle()
	if n.circle.whole || len(n.circle.nodes) == 0 || len(n.calls) > n.cfg.MaxOps/2 {
		return
	}
	for _, e := range n.strays(strayBatch) {
		g := e.guid
		n.place(g, 0, false, func(set, _ []*peer) {
			for _, p := range set {
				if p != n.me {
					n.tellStray(p, g)
				}
			}
		})
	}
}

// strays takes the next records, in order of GUID, that lie on no arc; after
// the last it begins anew.
func (n *Node) strays(count int) (es []*entry) {
	next := n.stray
	n.tree.walk(next, maxGUID, func(e *entry) bool {
		next = e.guid.Add(one)
		if it := e.item(); it.flags&(itemHave|itemTombs) != 0 && n.arcOf(e.guid) == nil {
			es = append(es, e)
		}
		return len(es) < count
	})
	if len(es) < count {
		next = id.GUID{}
	}
	n.stray = next
	return es
}

func (n *Node) tellStray(p *peer, g id.GUID) {
	e := n.tree.get(g)
	if e == nil {
		return
	}
	n.ask(p, 2*n.cfg.SyncTimeout, func(req uint64) machine.Message {
		return &syncKeysMsg{req: req, lo: g, hi: g, partial: true, items: []item{e.item()}}
	}, func(p *peer, m machine.Message) {
		ack, ok := m.(*syncKeysAckMsg)
		if !ok || ack.lo != g || ack.hi != g || n.sides >= sideWants {
			return
		}
		if wants := n.compare(p, g, g, ack.items, true); len(wants) > 0 {
			n.sides++
			n.fetchRecords(p, wants, func(bool) { n.sides-- })
		}
	})
}
