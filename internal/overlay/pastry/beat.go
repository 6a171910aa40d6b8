package pastry

import (
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// link is the exchange of beats with a neighbour: our last nonces with their
// send times, and the neighbour's last nonce with its time of receipt.
type link struct {
	sent    [4]sentNonce
	next    uint8
	theirs  uint64
	theirAt machine.Time
	have    bool // theirs is set
	active  bool // their arc is active
	waits   uint8

	repliedAt machine.Time // last answer to an ack
	got, back [2]uint32    // by our side: their last lease taken, or refused; and those up to which were returned
}

type sentNonce struct {
	nonce uint64
	at    machine.Time
}

func (n *Node) link(r uint32) *link {
	p := n.peer(r)
	if l := p.work().link; l != nil {
		return l
	}
	l := new(link)
	p.begin().link = l
	return l
}

// active reports whether this node's arc saw owned traffic lately.
func (n *Node) active() bool { return n.now < n.activeUntil }

// touch notes owned traffic. The first touch makes the arc active: beats go to
// both sides, more often.
func (n *Node) touch() {
	was := n.active()
	n.activeUntil = n.now.Add(n.cfg.ActiveFor)
	if !was && n.state == Ready {
		n.beatBoth()
		n.armBeat()
	}
}

func (n *Node) period() machine.Duration {
	if n.active() {
		return min(n.cfg.ActiveBeat, n.cfg.Beat)
	}
	return n.cfg.Beat
}

func (n *Node) leaseFor(l *link) machine.Duration {
	if n.active() || l.active {
		return min(n.cfg.ActiveLease, n.cfg.Lease)
	}
	return n.cfg.Lease
}

func (n *Node) armBeat() { n.set(tBeat, 0, n.period()) }

// beat is the periodic heartbeat: to the left neighbour always, to the right
// one if the arc is active or its lease runs short.
func (n *Node) beat() {
	if n.state != Ready {
		return
	}
	n.armBeat()
	if l := n.nb[ring.Left]; l != 0 {
		n.sendBeat(l, false, 0)
	}
	if r := n.nb[ring.Right]; r != 0 && r != n.nb[ring.Left] {
		if n.active() || n.held(ring.Right) < n.now.Add(n.period()) {
			n.sendBeat(r, false, 0)
		}
	}
}

// beatBoth beats to both neighbours now.
func (n *Node) beatBoth() {
	for _, s := range ring.Sides {
		if r := n.nb[s]; r != 0 && (s == ring.Left || r != n.nb[ring.Left]) {
			n.sendBeat(r, false, 0)
		}
	}
}

// setNeighbour makes r the neighbour on side s; 0: there is none.
func (n *Node) setNeighbour(s ring.Side, r uint32) {
	n.nb[s], n.nbHandle[s] = r, n.peer(r).h
}

// held returns until when the lease on side s counts.
func (n *Node) held(s ring.Side) machine.Time {
	h := n.nbHandle[s]
	if h == nil {
		return 0
	}
	return n.ledger.HeldUntil(s, h.GUID, h.Epoch)
}

// beatBody makes this node's half of an exchange with r: it grants a lease on
// each side where r is the neighbour and nothing stands in the way.
func (n *Node) beatBody(r uint32, flags uint8) BeatBody {
	p, l := n.peer(r), n.link(r)
	b := BeatBody{Nonce: n.nonce(), Hold: noEcho, Flags: flags | n.unwanted(r), Trt: uint32(n.cfg.TableProbe / machine.Second)}
	l.giveBack(&b)
	l.sent[l.next%4] = sentNonce{b.Nonce, n.now}
	l.next++
	if n.active() {
		b.Flags |= beatActive
	}
	lease := n.leaseFor(l)
	if l.have {
		if hold := n.now.Sub(l.theirAt); hold <= 2*lease {
			b.Echo, b.Hold = l.theirs, hold
		}
	}
	if n.state != Ready {
		return b
	}
	b.Flags |= beatReady
	for _, s := range ring.Sides {
		if n.nb[s] != r {
			continue
		}
		if n.held(s) < n.now.Add(n.period()) {
			b.Flags |= beatWant
		}
		if b.Hold == noEcho || p.flags&(fSuspect|fIndirect) == fSuspect {
			continue // nothing to count the lease from, or perhaps nobody to hold it
		}
		if at := n.grantAt(s); at > n.now {
			if when := n.timers.When(timer{tGrant, 0}); when > at {
				n.timers.Set(timer{tGrant, 0}, at)
			}
			continue
		}
		if b.Grant == 0 {
			n.grants++
			b.Grant, b.Seq = lease, n.grants
		}
		b.Flags |= grantFlag(s)
		n.ledger.Grant(s, p.h.GUID, p.h.Epoch, b.Seq, n.now.Add(lease))
	}
	return b
}

// giveBack returns in b every lease that the sender's neighbour of that link
// gave to its sides named by flags, and on which this node does not count any
// more, nor will on those still under way.
func (l *link) giveBack(b *BeatBody) {
	for _, s := range ring.Sides {
		if b.Flags&backFlag(s) != 0 {
			b.Back = max(b.Back, l.got[s])
		}
	}
	for _, s := range ring.Sides {
		if b.Flags&backFlag(s) != 0 {
			l.back[s] = max(l.back[s], b.Back)
		}
	}
}

// unwanted lists the leases of r that this node does not count on, as flags.
func (n *Node) unwanted(r uint32) (flags uint8) {
	if n.state != Ready {
		return 0
	}
	l, g := n.link(r), n.peer(r).h.GUID
	for _, s := range ring.Sides {
		if l.got[s] > l.back[s] && n.nb[s] != r && n.ledger.Held(s).Peer != g {
			flags |= backFlag(s)
		}
	}
	return flags
}

func (n *Node) sendBeat(r uint32, ack bool, flags uint8) {
	b := n.beatBody(r, flags)
	if ack {
		n.send(r, &BeatAck{b})
		return
	}
	n.send(r, &Beat{b})
	n.set(tBeatWait, r, n.probeTimeout(n.peer(r)))
}

// beatTimeout: a neighbour did not answer a beat. It is suspected, and the
// beat repeated until it answers or is evicted.
func (n *Node) beatTimeout(r uint32) {
	if n.state != Ready || r != n.nb[0] && r != n.nb[1] {
		return
	}
	n.suspect(r)
	l := n.link(r)
	if l.waits < 3 {
		l.waits++
	}
	n.sendBeat(r, false, 0)
	n.set(tBeatWait, r, n.probeTimeout(n.peer(r))<<l.waits)
}

// onBeat takes a neighbour's half of an exchange. A Beat is always answered, a
// BeatAck only if its sender lacks a lease that we can give.
func (n *Node) onBeat(r uint32, b *BeatBody, ack bool) {
	if n.state == Joining || n.state == Settling {
		if !ack {
			n.takeBeat(r, b)
			n.sendBeat(r, true, 0)
		}
		return
	}
	n.setReady(r, b.Flags&beatReady != 0)
	n.takeBeat(r, b)
	l := n.link(r)
	if ack {
		n.stop(tBeatWait, r)
		l.waits = 0
		// Once a round trip at most: were every ack answered by an ack, two
		// nodes at odds would never fall silent, and their nonces would be
		// forgotten before they are echoed.
		if (b.Flags&beatWant != 0 && n.mayGrant(r) || n.unwanted(r) != 0) && (l.repliedAt == 0 || n.now.Sub(l.repliedAt) >= n.probeTimeout(n.peer(r))) {
			l.repliedAt = n.now
			n.sendBeat(r, true, 0)
		}
		return
	}
	if r == n.nb[ring.Right] {
		n.armSilence()
	}
	n.sendBeat(r, true, 0)
}

// stall is how late a timer must be for this node to doubt that it has been
// running. Ours: far above what a loaded computer does, far below a lease.
const stall = machine.Second

// stalled: this node has been frozen, and others may think it dead.
func (n *Node) stalled() { n.soundSince = n.now }

func (n *Node) longestLease() machine.Duration { return max(n.cfg.Lease, n.cfg.ActiveLease) }

// soundAt is when this node will have been ready, and awake, for a whole lease.
func (n *Node) soundAt() machine.Time { return n.soundSince.Add(n.longestLease()) }

func (n *Node) sound() bool { return n.now >= n.soundAt() }

// vouchAt is when this node may grant leases on side s. It holds one on the
// other side, or else has been sound for so long that others know it: the
// place of a node that has just joined, or woken up, may lie under leases
// between two nodes that think it dead, and several such nodes in a row could
// own it on each other's word.
func (n *Node) vouchAt(s ring.Side) machine.Time {
	if n.held(s.Other()) > n.now {
		return n.now
	}
	return n.soundAt()
}

// grantAt is when a lease may be given to the neighbour on side s.
func (n *Node) grantAt(s ring.Side) machine.Time {
	if n.cfg.Bugs.GrantEarly {
		return n.now
	}
	return max(n.vouchAt(s), n.lapse(s), n.ledger.BlockedUntil(n.now, s, n.nbHandle[s].GUID))
}

// lapse is when the leases have ended that nodes between us and the neighbour
// on side s may hold from each other, as far as we have heard of them before
// they were evicted: they may be frozen, and not know it.
func (n *Node) lapse(s ring.Side) (at machine.Time) {
	far := n.nbHandle[s].GUID
	for _, r := range n.deaths {
		p := n.peer(r)
		if p.h == nil || p.flags&(fFailed|fLeft) != fFailed {
			continue
		}
		g := p.h.GUID
		if s == ring.Right && g.Sub(n.me).Less(far.Sub(n.me)) || s == ring.Left && n.me.Sub(g).Less(n.me.Sub(far)) {
			at = max(at, p.heard.Add(n.longestLease()))
		}
	}
	return at
}

// mayGrant reports whether a lease could be given to r now.
func (n *Node) mayGrant(r uint32) bool {
	for _, s := range ring.Sides {
		if n.state == Ready && n.nb[s] == r && n.grantAt(s) <= n.now {
			return true
		}
	}
	return false
}

// takeBeat records leases given, returned, and the nonce to echo.
func (n *Node) takeBeat(r uint32, b *BeatBody) {
	p, l := n.peer(r), n.link(r)
	l.theirs, l.theirAt, l.have = b.Nonce, n.now, true
	l.active = b.Flags&beatActive != 0
	for _, s := range ring.Sides {
		if b.Flags&backFlag(s) != 0 {
			// The sender's left side lease came from us as its left
			// neighbour: our right side.
			n.ledger.Returned(s.Other(), p.h.GUID, b.Back)
			n.grantDue(r)
		}
	}
	if b.Grant <= 0 || b.Hold == noEcho {
		return
	}
	var sent machine.Time
	known := false
	for _, s := range l.sent {
		if s.nonce == b.Echo && s.nonce != 0 {
			sent, known = s.at, true
		}
	}
	if !known || b.Hold > 2*n.longestLease() {
		return
	}
	until := ring.LeaseEnd(sent, b.Hold, b.Grant)
	if n.cfg.Bugs.LeaseFromReceipt {
		until = n.now.Add(b.Grant)
	}
	for _, s := range ring.Sides {
		// We are on the sender's side s, so the sender is on our other side.
		if b.Flags&grantFlag(s) != 0 {
			n.takeLease(r, s.Other(), b.Seq, until)
		}
	}
	n.retryOwned()
}

// takeLease takes lease number seq of r for our side s, if it is a neighbour,
// or about to be one, and the lease is none of those returned.
func (n *Node) takeLease(r uint32, s ring.Side, seq uint32, until machine.Time) {
	p, l := n.peer(r), n.link(r)
	l.got[s] = max(l.got[s], seq)
	if seq <= l.back[s] || n.state == Ready && n.nb[s] != r {
		return
	}
	before := n.held(s)
	n.ledger.Take(s, p.h.GUID, p.h.Epoch, until)
	if n.state == Ready && before <= n.now && until > n.now {
		n.grantDue(0) // we may vouch on the other side
	}
}

// grantDue runs when a grant that stood in the way has ended: whoever waits
// gets its lease. Not who has just returned one: were it given the next at once, two
// nodes that are not of one mind about their neighbours would beat without a pause.
func (n *Node) grantDue(returned uint32) {
	if n.state != Ready {
		return
	}
	for _, s := range ring.Sides {
		r := n.nb[s]
		if r == 0 || r == returned {
			continue
		}
		g := n.peer(r).h.GUID
		given := false
		for _, o := range n.ledger.Outstanding(n.now, s) {
			given = given || o.Peer == g
		}
		if !given && n.grantAt(s) <= n.now {
			n.sendBeat(r, false, 0)
		}
	}
}

// armSilence watches the right neighbour, who beats us.
func (n *Node) armSilence() {
	if r := n.nb[ring.Right]; r != 0 {
		n.set(tSilence, 0, n.cfg.Beat+n.probeTimeout(n.peer(r)))
	}
}

func (n *Node) silence() {
	r := n.nb[ring.Right]
	if r == 0 || n.state != Ready {
		return
	}
	p := n.peer(r)
	limit := n.cfg.Beat + n.probeTimeout(p)
	if quiet := n.now.Sub(p.heard); quiet < limit {
		n.set(tSilence, 0, limit-quiet)
		return
	}
	n.suspect(r)
	n.armSilence()
}

// neighboursChanged compares the direct neighbours with those of before.
// joiner is the node that both sides have just admitted, 0 if none: for it
// alone existing leases go on to count.
func (n *Node) neighboursChanged(joiner uint32) {
	for _, s := range ring.Sides {
		var cur uint32
		if m, ok := n.leaf.Nearest(s); ok {
			cur = m.Ref
		}
		old := n.nb[s]
		if cur == old {
			continue
		}
		n.setNeighbour(s, cur)
		switch {
		case joiner != 0 && cur == joiner:
			if old != 0 {
				n.ledger.Admit(s, n.peer(joiner).h.GUID, n.peer(old).h.GUID)
			}
			n.ledger.Carry(s)
		case old != 0:
			n.returnLease(s)
		}
		if a := n.admission; a != nil && a.lock.Side == s && cur != joiner {
			n.releaseAdmission()
		}
	}
	if n.state != Ready {
		return
	}
	for _, s := range ring.Sides {
		if r := n.nb[s]; r != 0 && r != joiner && n.held(s) == 0 && !n.armed(tBeatWait, r) {
			n.sendBeat(r, false, 0)
		}
	}
	n.armSilence()
}

// returnLease gives back the lease of a neighbour that is one no longer, so
// that it may grant to the node now between us.
func (n *Node) returnLease(s ring.Side) {
	h := n.ledger.Drop(s)
	r := n.peers.find(h.Peer)
	if r == 0 || h.Until <= n.now || n.peer(r).flags&(fFailed|fForgotten) != 0 {
		return
	}
	n.send(r, &Beat{n.beatBody(r, backFlag(s))})
}

// beatIndirect sends a beat to a neighbour that answers others but not us, as
// a routed message through a leaf of both: one dead link must not stall a
// range for ever.
func (n *Node) beatIndirect(r uint32) {
	if n.state != Ready || r != n.nb[0] && r != n.nb[1] {
		return
	}
	via := n.around(n.peer(r).h.GUID, r)
	if len(via) == 0 {
		return
	}
	n.routeRing(n.peer(r).h.GUID, &Beat{n.beatBody(r, 0)}, via[0])
}
