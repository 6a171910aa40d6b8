package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// Strays are records of keys so far from this node, after many joins, that it
// is not even a candidate there and has no arc for them. Their sets are looked
// up, told what is held here, and asked for tombstones, so that copies far away
// are counted too, and do not outlive their claims. Those that have one set are
// told of together.

// Bounds of one look; there are four a round.
const (
	strayStretches = 64       // sets told
	strayBatch     = 8 * 1024 // records they are told of, about
)

func (n *Node) lookForStrays() {
	n.later(machine.Jitter(n.rnd, n.cfg.Round/4, 200_000), n.lookForStrays)
	n.settle()
	if n.straying || n.circle.whole || len(n.circle.nodes) == 0 {
		return
	}
	n.straying = true
	n.nextStrays(strayStretches, strayBatch)
}

// nextStrays tells the set of the next stray of it and of those after it that
// are its too, and goes on, until stretches or batch is used up.
func (n *Node) nextStrays(stretches, batch int) {
	first := n.firstStray()
	if first == nil || stretches == 0 || batch <= 0 || len(n.calls) > n.cfg.MaxOps/2 {
		n.straying = false
		return
	}
	g := first.guid
	n.place(g, 0, false, func(set, _ []*peer) {
		n.stray = g.Add(one)
		if len(set) == 0 {
			n.straying = false
			return
		}
		es := n.straysOf(g, set)
		if len(es) > 0 {
			n.stray = es[len(es)-1].guid.Add(one)
		}
		for _, p := range set {
			if p != n.me && len(es) > 0 {
				n.tellStrays(p, es)
			}
		}
		n.nextStrays(stretches-1, batch-len(es))
	})
}

func (n *Node) isStray(e *entry) bool {
	return e.item().flags&(itemHave|itemTombs) != 0 && n.arcOf(e.guid) == nil
}

// firstStray is the next record in order of GUID that lies on no arc. After the
// last it is nil, and the next time the first.
func (n *Node) firstStray() (first *entry) {
	n.tree.walk(n.stray, maxGUID, func(e *entry) bool {
		if n.isStray(e) {
			first = e
		}
		return first == nil
	})
	if first == nil {
		n.stray = id.GUID{}
	}
	return first
}

// straysOf are the items of the strays from g on whose set is set, up to the first
// record that is none.
func (n *Node) straysOf(g id.GUID, set []*peer) (items []item) {
	n.tree.walk(g, maxGUID, func(e *entry) bool {
		if !n.isStray(e) {
			return false
		}
		if e.guid != g {
			if s, _, ok := n.known(e.guid, 0); !ok || !samePeers(s, set) {
				return false
			}
		}
		items = append(items, e.item())
		return len(items) < maxKeys
	})
	return items
}

// samePeers: in any order, which goes by the distance to a key.
func samePeers(a, b []*peer) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(p *peer) bool { return !slices.Contains(b, p) })
}

// tellStray tells p of the record of g.
func (n *Node) tellStray(p *peer, g id.GUID) {
	if e := n.tree.get(g); e != nil {
		n.tellStrays(p, []item{e.item()})
	}
}

// tellStrays tells p what is held here of items, and takes from it what it knows
// better.
func (n *Node) tellStrays(p *peer, items []item) {
	lo, hi := items[0].guid, items[len(items)-1].guid
	n.ask(p, 2*n.cfg.SyncTimeout, func(req uint64) machine.Message {
		return &syncKeysMsg{req: req, lo: lo, hi: hi, partial: true, items: items}
	}, func(p *peer, m machine.Message) {
		ack, ok := m.(*syncKeysAckMsg)
		if !ok || ack.lo != lo || ack.hi != hi {
			return
		}
		wants := n.compare(p, lo, hi, ack.items, true)
		for len(wants) > 0 && n.sides < sideWants {
			c := wants[:min(len(wants), maxOffer)]
			wants = wants[len(c):]
			n.sides++
			n.fetchRecords(p, c, func(bool) { n.sides-- })
		}
	})
}
