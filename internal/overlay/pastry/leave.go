package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// Leave ends this process's part in the ring in an orderly way: leases are
// returned, the leaf set is told and given our leaves, those who may have us in
// their tables are told, and messages under way are seen off. State is Left, and
// a trace "pastry.left" tells so, within LeaveWait. What the application wants to
// hand over it hands over before it calls Leave. The node may come back, as after
// a crash, under a higher boot epoch.
func (n *Node) Leave(now machine.Time, out []machine.Effect) []machine.Effect {
	outer := n.enter(now, out)
	defer func() { n.out = outer }()
	switch n.state {
	case Leaving, Left:
		return n.out
	case Ready:
		n.save()
	}
	n.releaseAdmission()
	ready := n.state == Ready
	n.abandonJoin()
	n.state = Leaving
	n.leftSince = now
	if ready {
		for _, s := range ring.Sides {
			if h := n.ledger.Drop(s); h.Until > now {
				if r := n.peers.find(h.Peer); r != 0 {
					n.send(r, &Beat{n.beatBody(r, backFlag(s))})
				}
			}
		}
		n.sayGoodbye()
		n.tellTables()
	}
	for _, k := range []timerKind{tBeat, tSilence, tGrant, tJoin, tSettle, tJoined, tExchange, tGossip, tTable, tHeal, tAlone, tSave} {
		n.stop(k, 0)
	}
	n.set(tLeave, 0, 200*machine.Millisecond)
	if len(n.waiting) > 0 {
		n.set(tWait, 0, 0)
	}
	n.settleUp()
	return n.out
}

func (n *Node) sayGoodbye() {
	left, right := n.refs()
	for _, m := range n.leaf.All() {
		n.send(m.Ref, &Leave{Left: left, Right: right})
	}
}

// tellTables says goodbye to whoever is not a leaf and may have us in its table:
// a table entry that is silent for TableProbe is probed, so it has been heard.
// One who misses it notices when it next sends here.
func (n *Node) tellTables() {
	for r := uint32(1); r < n.peers.end(); r++ {
		p := n.peer(r)
		if p.h != nil && p.flags&(fVerified|fLeaf|fLeft|fForgotten) == fVerified && n.now.Sub(p.heard) < n.cfg.TableProbe+machine.Minute {
			n.send(r, &Leave{})
		}
	}
}

// leaveStep repeats the goodbye, which nobody acknowledges, and ends the leave
// when nothing is under way any more.
func (n *Node) leaveStep() {
	waited := n.now.Sub(n.leftSince)
	if waited < 400*machine.Millisecond {
		n.sayGoodbye()
	}
	told := waited >= 500*machine.Millisecond || n.leaf.Len() == 0
	if waited < n.cfg.LeaveWait && (len(n.flights) > 0 || len(n.waiting) > 0 || !told) {
		n.set(tLeave, 0, 100*machine.Millisecond)
		return
	}
	n.state = Left
	n.timers = machine.Timers[timer]{}
	n.trace("pastry.left", id.GUID{}, id.GUID{}, int64(waited), "")
}

// onLeave: r says goodbye. Its leases are over at once, and its leaves are
// ours to consider.
func (n *Node) onLeave(r uint32, m *Leave) {
	p := n.peer(r)
	if p.flags&fLeft != 0 {
		return
	}
	p.flags = p.flags&^fReady | fLeft
	p.failedAt = n.now
	n.died(r)
	n.trace("pastry.goodbye", p.h.GUID, id.GUID{}, 0, "")
	n.ledger.Gone(p.h.GUID)
	for _, s := range ring.Sides {
		if n.ledger.Held(s).Peer == p.h.GUID {
			n.ledger.Drop(s)
		}
	}
	leaf := p.flags&fLeaf != 0
	n.askDone(r)
	n.rumours(r, m.Left, m.Right)
	n.dropEverywhere(r)
	n.rerouteFrom(r)
	if leaf {
		n.repairLeaves()
	}
	n.grantDue(0)
	n.settleSoon()
}

// Forget drops a revoked member at once; it is never readmitted.
func (n *Node) Forget(now machine.Time, g id.GUID, out []machine.Effect) []machine.Effect {
	outer := n.enter(now, out)
	defer func() { n.out = outer }()
	r := n.peers.find(g)
	if r == 0 {
		r = n.peers.add(&id.Handle{GUID: g})
	}
	p := n.peer(r)
	if g == n.me || p.flags&fForgotten != 0 {
		return n.out
	}
	n.askDone(r)
	if p.work().proof != nil {
		p.endProof()
		n.stop(tProof, r)
	}
	if a := n.admission; a != nil && a.x == r {
		n.releaseAdmission()
	}
	p.flags = p.flags&^(fReady|fVerified|fSuspect) | fForgotten
	n.trace("pastry.forget", g, id.GUID{}, 0, "")
	n.dropEverywhere(r)
	n.rerouteFrom(r)
	n.repairLeaves()
	n.settleUp()
	return n.out
}
