package dht

import (
	"slices"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

const maxServing = 256 // blocks being read from the disk for others

// stateOf says what this node can say of a content block that it does not
// have: where it is, or that it is nowhere, or that it does not know.
func (n *Node) stateOf(g id.GUID) (presence, []*peer) {
	a := n.arcOf(g)
	if e := n.tree.get(g); e != nil {
		if e.have() && e.flags&flagBad == 0 {
			return have, nil
		}
		if mask := e.holders & n.live; mask != 0 && !e.dead() {
			var ps []*peer
			n.each(mask, func(p *peer) { ps = append(ps, p) })
			n.byRTT(ps)
			return pointer, ps[:min(len(ps), 4)]
		}
	}
	if n.cfg.Bugs.AbsentWhileUnsynced {
		return absent, nil
	}
	switch {
	case a == nil && len(n.circle.nodes) == 0:
		return unsynced, nil
	case a == nil || !a.mine():
		set, _, ok := n.view(g, 0)
		if !ok {
			return unsynced, nil
		}
		return outside, set
	case !a.synced:
		return unsynced, nil
	}
	if e := n.tree.get(g); e != nil && !e.dead() {
		return unsynced, nil // known to exist, all holders away
	}
	return absent, nil
}

func (n *Node) onGet(p *peer, m *getMsg) {
	state, ps := n.stateOf(m.guid)
	if e := n.tree.get(m.guid); e != nil && e.signed() && (state == have || e.flags&flagBad != 0) {
		state = absent // as content: the name is a signed block's
	}
	if e := n.tree.get(m.guid); state == absent && e != nil && !e.signed() {
		if stamp, gone := e.removed(); gone {
			n.no(p, m.req, &refuseMsg{code: codeRemoved, stamp: stamp})
			return
		}
	}
	if state != have {
		n.send(p, &blockMsg{req: m.req, guid: m.guid, state: state, others: handles(ps), sum: matches})
		return
	}
	if n.serving >= maxServing {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 20})
		return
	}
	n.serving++
	n.loadBlock(m.guid, func(b []byte) {
		n.serving--
		if len(b) == 0 {
			n.send(p, &blockMsg{req: m.req, guid: m.guid, state: unsynced, sum: matches})
			return
		}
		n.stats.Served++
		n.stats.ServedBytes += int64(len(b))
		n.send(p, &blockMsg{req: m.req, guid: m.guid, state: have, block: b})
	})
}

func (n *Node) onHead(p *peer, m *headMsg) {
	ack := &headAckMsg{req: m.req, heads: make([]head, len(m.guids))}
	for i, g := range m.guids {
		ack.heads[i] = n.headOf(g)
	}
	n.send(p, ack)
}

func (n *Node) headOf(g id.GUID) head {
	var h head
	h.state, _ = n.stateOf(g)
	if a := n.arcOf(g); a != nil {
		h.inSet = a.mine()
		if e := n.tree.get(g); e != nil {
			others := 0
			n.each(e.holders&n.trusted(a), func(q *peer) {
				if !slices.Contains(a.set, q) {
					others++
				}
			})
			h.others = uint8(others)
			if k := int(e.k); k != 0 && k != n.cfg.K {
				h.inSet = slices.Contains(n.setOf(a, e), n.me)
			}
		}
	}
	if e := n.tree.get(g); e != nil {
		h.size, h.seq = e.size, e.seq()
		switch {
		case h.state == have:
			h.role = max(e.role, RoleReplica)
		case n.pointsAt(e):
			h.role = RoleDiverted
		}
	}
	return h
}

func (n *Node) onChallenge(p *peer, m *challengeMsg) {
	state, _ := n.stateOf(m.guid)
	if state != have || n.serving >= maxServing {
		n.send(p, &challengeAckMsg{req: m.req, state: state})
		return
	}
	n.serving++
	n.loadBlock(m.guid, func(b []byte) {
		n.serving--
		if len(b) == 0 {
			n.send(p, &challengeAckMsg{req: m.req, state: unsynced})
			return
		}
		n.send(p, &challengeAckMsg{req: m.req, state: have, proof: proofOf(m.nonce, b)})
	})
}

func proofOf(nonce [16]byte, block []byte) (p [32]byte) {
	h := blake3.New()
	_, _ = h.Write(nonce[:]) // a hash.Hash never fails to write
	_, _ = h.Write(block)
	h.Sum(p[:0])
	return p
}
