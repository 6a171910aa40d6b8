package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
)

// hopCap is 2⌈log₁₆N⌉+8; N of one counts as 16.
func hopCap(n int64) int64 {
	digits := int64(1)
	for v := int64(16); v < n; v *= 16 {
		digits++
	}
	return 2*digits + 8
}

// nextHop picks the next node for m: 0 if this node is the root. It follows
// Figure 10.9 in its order:
//
//	line 2  key within the leaf set: the member of L ∪ {self} closest to it
//	line 6  else the entry R[p,i], p the shared digits, i key's digit p
//	line 8  else, the rare case, any node of L ∪ R that shares no fewer bits
//	        and is numerically closer
//
// "Empty" includes suspected entries: their backup link is next, then the rare
// case. A suspected closest leaf is chosen all the same: bypassing it is how
// messages reach the wrong node.
//
// Loop freedom: order nodes by (bits shared with key, −distance). Lines 6 and
// 8 raise that order. Line 2 lowers distance but may lower the bits, so the
// message is in its leaf phase from there on, and only hops strictly nearer
// than any before are allowed. Both phases are finite.
//
// It looks past the node but, if that is set. False: no allowed next hop is
// known and this node is not the root by its own leaf set; its leaf set is
// short by a whole side.
// Source: Coulouris et al., 5th ed., §10.5.1, Figure 10.9; 10-overlay §3.2.
func (n *Node) nextHop(m *kbr.Message, but *id.GUID) (next uint32, rule kbr.Rule, ok bool) {
	if m.App == appRing && m.Origin != nil && but == nil {
		but = &m.Origin.GUID // a joiner is never on the way to its own place
	}
	leafPhase := m.Flags&kbr.FlagLeaf != 0
	if n.leaf.Covers(m.Key) {
		best, other := n.leaf.Closest(m.Key, but)
		if !other {
			return 0, kbr.RuleRoot, true
		}
		if !leafPhase || n.allowed(m, best.GUID) {
			return best.Ref, kbr.RuleLeaf, true
		}
		// Our leaf set knows a nearer node, yet the message has been nearer
		// than that already: only a lying hop brings it here.
		return 0, kbr.RuleRoot, false
	}
	if leafPhase || n.cfg.LeafSetOnly {
		if r := n.nearest(m, -1, but); r != 0 {
			return r, kbr.RuleLeaf, true
		}
		return 0, kbr.RuleRoot, false
	}
	p := id.CommonDigits(n.me, m.Key)
	if p < id.Digits {
		s := n.table.at(p, m.Key.Digit(p))
		if n.usable(s.primary, but) {
			return s.primary, kbr.RuleTable, true
		}
		if n.usable(s.backup, but) {
			return s.backup, kbr.RuleTable, true
		}
		n.repairSlot(p)
	}
	if r := n.nearest(m, id.CommonBits(n.me, m.Key), but); r != 0 {
		return r, kbr.RuleRare, true
	}
	return 0, kbr.RuleRoot, false
}

func (n *Node) usable(r uint32, but *id.GUID) bool {
	if r == 0 {
		return false
	}
	p := n.peer(r)
	return p.flags&fSuspect == 0 && (but == nil || p.h.GUID != *but)
}

// allowed reports whether a message in its leaf phase may go to g.
func (n *Node) allowed(m *kbr.Message, g id.GUID) bool {
	if id.CmpDist(m.Key, g, n.me) >= 0 {
		return false
	}
	return !m.BestDist.Less(id.Dist(g, m.Key))
}

// nearest returns the node of L ∪ R nearest to m's key among those nearer than
// this one and sharing at least bits bits with it, unsuspected ones first; 0 if
// there is none.
func (n *Node) nearest(m *kbr.Message, bits int, but *id.GUID) uint32 {
	var best, bestSuspect uint32
	consider := func(r uint32) {
		p := n.peer(r)
		g := p.h.GUID
		if but != nil && g == *but || id.CommonBits(g, m.Key) < bits || id.CmpDist(m.Key, g, n.me) >= 0 {
			return
		}
		if m.Flags&kbr.FlagLeaf != 0 && !n.allowed(m, g) {
			return
		}
		to := &best
		if p.flags&fSuspect != 0 {
			if p.flags&fLeaf == 0 {
				return
			}
			to = &bestSuspect
		}
		if *to == 0 || id.CmpDist(m.Key, g, n.peer(*to).h.GUID) < 0 {
			*to = r
		}
	}
	for _, l := range n.leaf.All() {
		consider(l.Ref)
	}
	if !n.cfg.LeafSetOnly {
		n.table.each(consider)
	}
	if best == 0 {
		return bestSuspect
	}
	return best
}
