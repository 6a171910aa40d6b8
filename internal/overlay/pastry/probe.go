package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// helpers is the number of nodes asked to probe a suspect indirectly.
const helpers = 3

// proof is a proof of death under way (10-overlay §3.4): a direct probe; after
// To another one and three indirect ones; at Ts/2 the same again; eviction if
// nothing answers within Ts.
type proof struct {
	since machine.Time
	step  int
	nonce uint64
	alone bool // on a rumour: others are asked in the last round only, for whoever spread it has asked them
}

// pinging is a Probe sent for a reason other than doubt: to measure a
// candidate for the table, to look after a silent entry, or on behalf of
// another node.
type pinging struct {
	nonce uint64
	sent  machine.Time
	tries int
	for_  []relay
}

type relay struct {
	to    uint32
	nonce uint64
}

const maxRelays = 16

// asking is an LSProbe under way to a node that may belong to the leaf set.
type asking struct {
	sent  machine.Time // first
	last  machine.Time
	tries int
	ready bool // it says that this node is ready
}

// probeTimeout is To.
func (n *Node) probeTimeout(p *peer) machine.Duration {
	return min(max(2*n.rto(p), n.cfg.ProbeMin), n.cfg.ProbeMax)
}

// suspect takes r out of routing until it answers, and starts to prove that it
// is dead. Suspicion costs nothing but the probes.
func (n *Node) suspect(r uint32) {
	p := n.peer(r)
	if p.flags&fFailed != 0 {
		return
	}
	if p.flags&fSuspect == 0 {
		p.flags |= fSuspect
		n.trace("pastry.suspect", p.h.GUID, id.GUID{}, int64(n.now.Sub(p.heard)), "")
	}
	n.doubt(r)
	p.work().proof.alone = false
}

// doubt starts to prove that r is dead, without suspicion: on a rumour.
func (n *Node) doubt(r uint32) {
	p := n.peer(r)
	if p.work().proof != nil || p.flags&fFailed != 0 {
		return
	}
	p.flags &^= fIndirect
	pr := &proof{since: n.now, nonce: n.nonce(), alone: true}
	p.begin().proof = pr
	n.send(r, &Probe{Nonce: pr.nonce})
	n.set(tProof, r, n.probeTimeout(p))
}

func (n *Node) proofStep(r uint32) {
	p := n.peer(r)
	pr := p.work().proof
	if pr == nil {
		return
	}
	end := pr.since.Add(n.cfg.EvictAfter)
	switch pr.step {
	case 0:
		n.probeBoth(r)
		n.timers.Set(timer{tProof, r}, max(pr.since.Add(n.cfg.EvictAfter/2), n.now.Add(n.probeTimeout(p))))
	case 1:
		n.probeBoth(r)
		n.timers.Set(timer{tProof, r}, max(end, n.now.Add(n.probeTimeout(p))))
	default:
		n.evict(r)
		return
	}
	pr.step++
}

// probeBoth probes directly and asks other nodes, those nearest to the
// suspect, to probe it too: its leaves if it is one of ours.
func (n *Node) probeBoth(r uint32) {
	p := n.peer(r)
	pr := p.work().proof
	n.send(r, &Probe{Nonce: pr.nonce})
	if pr.alone && pr.step == 0 {
		return
	}
	asked := 0
	for _, h := range n.around(p.h.GUID, r) {
		n.send(h, &PingReq{Target: p.handle(), Nonce: pr.nonce})
		if asked++; asked == helpers {
			break
		}
	}
}

// around returns unsuspected leaves, nearest to g first, without not.
func (n *Node) around(g id.GUID, not uint32) []uint32 {
	all := n.leaf.All()
	list := make([]uint32, 0, len(all))
	for _, m := range all {
		if m.Ref != not && n.peer(m.Ref).flags&fSuspect == 0 {
			list = append(list, m.Ref)
		}
	}
	n.sortByDist(list, g)
	return list
}

// cleared: r answered. It is back in routing at once.
func (n *Node) cleared(r uint32) {
	p := n.peer(r)
	if p.work().proof != nil {
		p.endProof()
		n.stop(tProof, r)
	}
	p.flags &^= fSuspect | fIndirect
	if p.flags&fFailed != 0 {
		p.flags &^= fFailed
		p.asked = 0
		n.trace("pastry.revive", p.h.GUID, id.GUID{}, int64(n.now.Sub(p.failedAt)), "")
	}
}

// evict takes r out of all tables: it is proven dead as far as we can tell.
func (n *Node) evict(r uint32) {
	p := n.peer(r)
	since := p.work().proof.since
	p.endProof()
	n.stop(tProof, r)
	p.flags = p.flags&^(fSuspect|fIndirect|fReady|fVerified) | fFailed
	p.failedAt = n.now
	n.died(r)
	n.trace("pastry.evict", p.h.GUID, id.GUID{}, int64(n.now.Sub(since)), "")
	near := r == n.nb[0] || r == n.nb[1]
	leaf := p.flags&fLeaf != 0
	if leaf {
		n.lost()
	}
	n.dropEverywhere(r)
	n.rerouteFrom(r)
	if leaf && n.leaf.Len() == 0 {
		n.armHeal()
	}
	if leaf {
		if near && n.state == Ready {
			for _, m := range n.leaf.All() {
				n.sendLSProbe(m.Ref, false)
			}
		}
		n.repairLeaves()
	}
}

// onProbeAck: r is alive, as hear has noted; the round trip is measured.
func (n *Node) onProbeAck(r uint32, m *ProbeAck) {
	p := n.peer(r)
	n.setReady(r, m.Ready)
	g := p.work().ping
	if g == nil || g.nonce != m.Nonce {
		return
	}
	if g.tries == 0 {
		p.rtt.Sample(max(n.now.Sub(g.sent)-m.Held, 1))
	}
	n.pingDone(r, true)
	if m.Ready || n.cfg.Bugs.AcceptUnready {
		n.table.offer(r, n)
	}
	n.joinPinged(r, m.Ready)
}

func (n *Node) pingDone(r uint32, ok bool) {
	p := n.peer(r)
	g := p.work().ping
	p.at.ping = nil
	p.rest()
	n.stop(tPing, r)
	for _, f := range g.for_ {
		if ok {
			n.send(f.to, &PingRep{Nonce: f.nonce, OK: true})
		}
		n.peer(f.to).pins--
	}
}

// pingPeer probes r once, with one repetition.
func (n *Node) pingPeer(r uint32) *pinging {
	p := n.peer(r)
	if g := p.work().ping; g != nil {
		return g
	}
	g := &pinging{nonce: n.nonce(), sent: n.now}
	p.begin().ping = g
	n.send(r, &Probe{Nonce: g.nonce})
	n.set(tPing, r, n.probeTimeout(p))
	return g
}

func (n *Node) pingTimeout(r uint32) {
	p := n.peer(r)
	g := p.work().ping
	if g == nil {
		return
	}
	if g.tries == 0 && len(g.for_) == 0 {
		g.tries++
		n.send(r, &Probe{Nonce: g.nonce})
		n.set(tPing, r, n.probeTimeout(p))
		return
	}
	n.pingDone(r, false)
	if p.flags&(fTable|fLeaf) != 0 {
		n.suspect(r)
	}
}

// onPingReq probes a third node on behalf of r.
func (n *Node) onPingReq(r uint32, m *PingReq) {
	if m.Target.GUID == n.me {
		n.send(r, &PingRep{Nonce: m.Nonce, OK: true})
		return
	}
	t := n.intern(m.Target)
	if t == 0 || n.peer(t).flags&fForgotten != 0 {
		return
	}
	g := n.pingPeer(t)
	if len(g.for_) < maxRelays {
		n.peer(r).pins++
		g.for_ = append(g.for_, relay{r, m.Nonce})
	}
}

// onPingRep: another node heard our suspect. It lives; only the direct way to
// it fails, and routing goes round it until it answers us.
func (n *Node) onPingRep(_ uint32, m *PingRep) {
	if !m.OK {
		return
	}
	for r := range n.peers.end() {
		p := n.peer(r)
		if pr := p.work().proof; pr != nil && pr.nonce == m.Nonce {
			p.endProof()
			p.flags |= fIndirect
			n.stop(tProof, r)
			n.trace("pastry.indirect", p.h.GUID, id.GUID{}, 0, "")
			n.beatIndirect(r)
			return
		}
	}
}

// setReady notes what r says of itself, and lets a ready r in where it
// belongs.
func (n *Node) setReady(r uint32, ready bool) {
	p := n.peer(r)
	if n.cfg.Bugs.AcceptUnready {
		ready = true
	}
	if !ready {
		// An adopted joiner that is not ready yet stays: nobody else owns its
		// place.
		p.flags &^= fReady
		return
	}
	if p.flags&fLeft != 0 {
		return
	}
	p.flags |= fReady
}
