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
}

type sentNonce struct {
	nonce uint64
	at    machine.Time
}

func (n *Node) link(r uint32) *link {
	p := n.peer(r)
	if p.link == nil {
		p.link = new(link)
	}
	return p.link
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

// held returns until when the lease on side s counts.
func (n *Node) held(s ring.Side) machine.Time {
	r := n.nb[s]
	if r == 0 {
		return 0
	}
	h := n.peer(r).h
	return n.ledger.HeldUntil(s, h.GUID, h.Epoch)
}

// beatBody makes this node's half of an exchange with r: it grants a lease on
// each side where r is the neighbour and nothing stands in the way.
func (n *Node) beatBody(r uint32, flags uint8) BeatBody {
	p, l := n.peer(r), n.link(r)
	b := BeatBody{Nonce: n.nonce(), Hold: noEcho, Flags: flags, Trt: uint32(n.cfg.TableProbe / machine.Second)}
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
		if b.Hold == noEcho || p.flags&(fSuspect|fIndirect) == fSuspect || !n.mayVouch() {
			continue // nothing to count the lease from, or perhaps nobody to hold it
		}
		if at := n.ledger.BlockedUntil(n.now, s, p.h.GUID); at > n.now && !n.cfg.Bugs.GrantEarly {
			if when := n.timers.When(timer{tGrant, 0}); when > at {
				n.timers.Set(timer{tGrant, 0}, at)
			}
			continue
		}
		b.Grant = lease
		b.Flags |= grantFlag(s)
		n.ledger.Grant(s, p.h.GUID, p.h.Epoch, n.now.Add(lease))
	}
	return b
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
		if b.Flags&beatWant != 0 && n.mayGrant(r) && (l.repliedAt == 0 || n.now.Sub(l.repliedAt) >= n.probeTimeout(n.peer(r))) {
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

// mayVouch reports whether this node may grant leases at all. A joiner may not
// until it has held leases from both its neighbours at once: its place may be
// under a lease that one of them gave to a node evicted by error, and what it
// does not own it cannot grant. After a whole lease any such has lapsed.
func (n *Node) mayVouch() bool {
	if !n.vested && n.now >= n.readyAt.Add(max(n.cfg.Lease, n.cfg.ActiveLease)) {
		n.vested = true
	}
	return n.vested
}

// mayGrant reports whether a lease could be given to r now.
func (n *Node) mayGrant(r uint32) bool {
	for _, s := range ring.Sides {
		if n.state == Ready && n.mayVouch() && n.nb[s] == r && n.ledger.BlockedUntil(n.now, s, n.peer(r).h.GUID) <= n.now {
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
			n.ledger.Returned(s.Other(), p.h.GUID)
			n.grantDue()
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
	if !known || b.Hold > 2*max(n.cfg.Lease, n.cfg.ActiveLease) {
		return
	}
	until := ring.LeaseEnd(sent, b.Hold, b.Grant)
	if n.cfg.Bugs.LeaseFromReceipt {
		until = n.now.Add(b.Grant)
	}
	for _, s := range ring.Sides {
		// We are on the sender's side s, so the sender is on our other side.
		if b.Flags&grantFlag(s) != 0 {
			n.ledger.Take(s.Other(), p.h.GUID, p.h.Epoch, until)
		}
	}
	if !n.vested && n.state == Ready && n.held(ring.Left) > n.now && n.held(ring.Right) > n.now {
		n.vested = true
		n.grantDue()
	}
	n.retryOwned()
}

// grantDue runs when a grant that stood in the way has ended: whoever waits
// gets its lease.
func (n *Node) grantDue() {
	if n.state != Ready {
		return
	}
	for _, s := range ring.Sides {
		r := n.nb[s]
		if r == 0 {
			continue
		}
		g := n.peer(r).h.GUID
		given := false
		for _, o := range n.ledger.Outstanding(n.now, s) {
			given = given || o.Peer == g
		}
		if !given && n.ledger.BlockedUntil(n.now, s, g) <= n.now {
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
		n.nb[s] = cur
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
	r, ok := n.peers.byGUID[h.Peer]
	if !ok || h.Until <= n.now || n.peer(r).flags&(fFailed|fForgotten) != 0 {
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
