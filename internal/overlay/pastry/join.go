package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

const (
	firstBackoff = 50 * machine.Millisecond
	lastBackoff  = 5 * machine.Second
	maxContacts  = 16
)

// joining is the state of a node that is not ready yet.
type joining struct {
	since    machine.Time
	contacts []uint32 // seeds and remembered nodes
	next     int      // round robin among contacts
	other    int      // and among all peers
	ready    []uint32 // contacts that said they are ready
	smaller  bool     // an unready contact has a smaller GUID
	ringSeen bool     // some ready node answered
	ringAt   machine.Time
	backoff  machine.Duration
	restart  bool // this node was a member before
	waited   bool // gave way to a smaller restarted node once
	big      bool // the ring is larger than a leaf set

	nonce   uint64
	sent    machine.Time
	via     uint32 // the contact that got our Join
	lock    uint64
	p, s    uint32
	ackP    bool
	ackS    bool
	settled machine.Time // when settling began
	tries   int
}

// Start begins membership. seeds are nodes to try; saved is the last Save
// effect, nil if there is none. A creator that remembers nobody is ready at
// once, and the root of everything.
func (n *Node) Start(now machine.Time, seeds []*id.Handle, saved []byte, creator bool, out []machine.Effect) []machine.Effect {
	outer := n.enter(now, out)
	defer func() { n.out = outer }()
	n.state = Joining
	n.join = joining{since: now, backoff: firstBackoff}
	n.set(tSweep, 0, machine.Minute)
	n.everAdmit = n.cfg.Member
	remembered := n.restore(saved)
	n.join.restart = remembered > 0 || n.cfg.Member
	for _, h := range seeds {
		if h.GUID == n.me {
			continue
		}
		if r := n.intern(h); r != 0 && len(n.join.contacts) < 4*maxContacts {
			n.join.contacts = append(n.join.contacts, r)
			n.peer(r).pins++
		}
	}
	if creator && remembered == 0 {
		n.leaf.Wrap()
		n.becomeReady()
	} else {
		if n.join.restart {
			n.set(tAlone, 0, n.cfg.AloneAfter)
		}
		n.joinAttempt()
	}
	n.settleUp()
	return n.out
}

// joinAttempt is one try: a Join through a contact known to be ready, or else
// probes to find one; the first to answer is the nearest.
func (n *Node) joinAttempt() {
	if n.state != Joining && n.state != Settling {
		return
	}
	j := &n.join
	if j.nonce != 0 && j.lock == 0 && n.now.Sub(j.sent) < n.cfg.JoinWait {
		n.send(j.via, &Join{X: n.self, Nonce: j.nonce}) // it, or the reply, may be lost
		n.set(tJoin, 0, n.joinRetry())
		return
	}
	n.abandonJoin()
	for len(j.ready) > 0 {
		i := n.rnd.IntN(len(j.ready))
		r := j.ready[i]
		j.ready[i] = j.ready[len(j.ready)-1]
		j.ready = j.ready[:len(j.ready)-1]
		n.peer(r).pins--
		if n.peer(r).flags&(fSuspect|fFailed|fForgotten) == 0 {
			n.sendJoin(r)
			return
		}
	}
	for range min(maxContacts, len(j.contacts)) {
		r := j.contacts[j.next%len(j.contacts)]
		j.next++
		if p := n.peer(r); p.flags&fForgotten == 0 && p.work().ping == nil {
			n.pingPeer(r)
		}
	}
	// Whoever an earlier attempt made known may know the way when no contact
	// lives any more.
	known := int(n.peers.end()) - 1
	for i, asked := 0, 0; i < known && asked < maxContacts; i++ {
		r := uint32(1 + (j.other+i)%known)
		if p := n.peer(r); p.h != nil && p.work().ping == nil && p.flags&(fForgotten|fLeft) == 0 {
			n.pingPeer(r)
			asked++
		}
	}
	j.other += maxContacts
	n.joinLater(0)
}

// joinLater arms the next attempt after the back-off, which doubles.
func (n *Node) joinLater(atLeast machine.Duration) {
	d := max(n.join.backoff, atLeast)
	n.set(tJoin, 0, machine.Jitter(&n.rnd, d, 300_000))
	n.join.backoff = min(2*n.join.backoff, lastBackoff)
}

// joinPinged: a contact answered the probe of joinAttempt.
func (n *Node) joinPinged(r uint32, ready bool) {
	if n.state != Joining {
		return
	}
	if !ready {
		n.join.smaller = n.join.smaller || n.peer(r).h.GUID.Less(n.me)
		return
	}
	n.join.ringSeen, n.join.ringAt = true, n.now
	if n.join.nonce == 0 {
		n.sendJoin(r)
		return
	}
	n.readyContact(r)
}

func (n *Node) readyContact(r uint32) {
	if len(n.join.ready) < maxContacts {
		for _, have := range n.join.ready {
			if have == r {
				return
			}
		}
		n.peer(r).pins++
		n.join.ready = append(n.join.ready, r)
	}
}

func (n *Node) sendJoin(r uint32) {
	j := &n.join
	j.nonce, j.sent, j.via = n.nonce(), n.now, r
	n.send(r, &Join{X: n.self, Nonce: j.nonce})
	n.set(tJoin, 0, n.joinRetry())
}

// joinRetry is when a Join is sent again: its way has some hops, and two
// nodes take locks at its end.
func (n *Node) joinRetry() machine.Duration {
	return min(max(3*n.rto(n.peer(n.join.via)), n.cfg.ProbeMin), n.cfg.JoinWait)
}

// abandonJoin forgets an attempt that came to nothing.
func (n *Node) abandonJoin() {
	j := &n.join
	j.nonce, j.lock, j.p, j.s, j.ackP, j.ackS = 0, 0, 0, 0, false, false
	n.stop(tSettle, 0)
	n.stop(tJoined, 0)
	n.state = Joining
}

func (n *Node) onJoinBusy(r uint32, m *JoinBusy) {
	if n.state == Ready || n.state == Leaving || m.Nonce != n.join.nonce || n.join.nonce == 0 {
		return
	}
	if m.Ready {
		n.join.ringSeen, n.join.ringAt = true, n.now
		n.readyContact(r)
	} else if n.peer(r).h.GUID.Less(n.me) {
		n.join.smaller = true
	}
	n.abandonJoin()
	n.joinLater(m.Retry)
}

// onJoinReply brings the lock: this node may now settle between P and S.
// Without a lock it answers a look.
func (n *Node) onJoinReply(r uint32, m *JoinReply) {
	if m.Lock == 0 {
		n.onLook(r, m)
		return
	}
	j := &n.join
	if n.state != Joining || m.Nonce != j.nonce || j.nonce == 0 || m.S == nil {
		return
	}
	n.state = Settling
	j.ringSeen, j.ringAt = true, n.now
	j.lock, j.p, j.settled = m.Lock, r, n.now
	j.s = r
	if m.S.GUID != n.peer(r).h.GUID {
		if j.s = n.intern(m.S); j.s == 0 {
			n.joinAttempt()
			return
		}
	}
	n.readyContact(r)
	n.setReady(r, true)
	// Whoever is on the ring will be told to us or is told by those: our leaf
	// set holds the whole ring until it overflows.
	n.leaf.Wrap()
	n.insertLeaf(r, 0)
	for _, l := range n.leaf.All() {
		n.ask(l.Ref) // those of an earlier attempt may be dead
	}
	n.candidate(j.s)
	for _, h := range m.L {
		if h.GUID != n.me {
			n.candidate(n.intern(h))
		}
	}
	slots := make(map[[2]int]bool)
	for _, row := range m.Rows {
		for _, h := range row.Handles {
			p := id.CommonDigits(n.me, h.GUID)
			if p >= id.Digits {
				continue
			}
			at := [2]int{p, h.GUID.Digit(p)}
			if slots[at] || n.table.at(at[0], at[1]).primary != 0 || n.leaf.Wants(h.GUID) {
				continue
			}
			if q := n.intern(h); q != 0 && n.peer(q).flags&fForgotten == 0 {
				slots[at] = true
				n.pingPeer(q)
			}
		}
	}
	n.stop(tJoin, 0)
	n.set(tSettle, 0, 50*machine.Millisecond)
	n.set(tJoin, 0, n.cfg.LockLife)
}

// settleSoon looks at once whether everybody has answered.
func (n *Node) settleSoon() {
	if n.state == Settling && n.join.settled != 0 && !n.armed(tJoined, 0) {
		n.set(tSettle, 0, 0)
	}
}

// settle decides whether this node knows its neighbours well enough to be
// admitted: every leaf has answered and both sides are full or the ring is
// round; after SettleWait half of each side will do.
func (n *Node) settle() {
	j := &n.join
	if n.state != Settling || n.armed(tJoined, 0) {
		return
	}
	waited := n.now.Sub(j.settled)
	if j.big && n.asks == 0 && n.leaf.Wrapped() && n.leaf.Len() < 2*n.leaf.H() {
		n.leaf.Unwrap() // so many were dead that we did not overflow
	}
	done := n.asks == 0 && n.fetching <= n.now && n.leaf.Complete()
	if !done && waited >= n.cfg.SettleWait {
		half := (n.leaf.H() + 1) / 2
		done = n.leaf.Wrapped() || n.leaf.Count(ring.Left) >= half && n.leaf.Count(ring.Right) >= half ||
			waited >= n.cfg.SettleWait+n.cfg.JoinWait && n.leaf.Len() > 0
	}
	if !done {
		if n.asks == 0 && n.fetching <= n.now {
			n.askEnds()
		} else {
			n.hurryAsks()
		}
		if n.armed(tSettle, 0) {
			return
		}
		n.set(tSettle, 0, 50*machine.Millisecond)
		return
	}
	l, okL := n.leaf.Nearest(ring.Left)
	r, okR := n.leaf.Nearest(ring.Right)
	if !okL || !okR || l.Ref != j.p || r.Ref != j.s {
		// P and S are not our neighbours after all: they have not met those
		// who are. Our LSProbes have told them; try again.
		n.trace("pastry.misplaced", id.GUID{}, id.GUID{}, int64(n.leaf.Len()), "")
		n.abandonJoin()
		n.joinLater(0)
		return
	}
	j.tries = 0
	n.sendJoined()
}

// askEnds asks the far ends of a leaf set that is neither full nor known to be
// the whole ring.
func (n *Node) askEnds() {
	for _, s := range ring.Sides {
		if m, ok := n.leaf.Farthest(s); ok {
			if p := n.peer(m.Ref); p.work().ask == nil && (n.now.Sub(p.asked) > n.rto(p) || p.asked == 0) {
				n.ask(m.Ref)
			}
		}
	}
}

// hurryAsks repeats the LSProbes of a joiner that were probably lost: others
// sent later have long been answered.
func (n *Node) hurryAsks() {
	slowest, known := machine.Duration(0), 0
	for _, m := range n.leaf.All() {
		if rtt := n.peer(m.Ref).rtt; rtt.Known() {
			slowest = max(slowest, rtt.Smoothed())
			known++
		}
	}
	if known < n.asks {
		return
	}
	limit := 2*slowest + n.cfg.RTOFloor
	for r := uint32(1); r < n.peers.end(); r++ {
		p := n.peer(r)
		if a := p.work().ask; a != nil && a.tries < 2 && n.now.Sub(a.last) > limit {
			a.tries++
			a.last = n.now
			n.sendLSProbe(r, true)
			n.set(tAsk, r, n.probeTimeout(p))
		}
	}
}

func (n *Node) sendJoined() {
	j := &n.join
	if !j.ackP {
		n.send(j.p, &Joined{Lock: j.lock, BeatBody: n.beatBody(j.p, 0)})
	}
	if j.s != j.p && !j.ackS {
		n.send(j.s, &Joined{Lock: j.lock, BeatBody: n.beatBody(j.s, 0)})
	}
	n.set(tJoined, 0, max(n.rto(n.peer(j.p)), n.rto(n.peer(j.s)))<<min(j.tries, 4))
}

func (n *Node) joinedTimeout() {
	j := &n.join
	if n.state != Settling {
		return
	}
	if j.tries++; j.tries > 8 || n.now.Sub(j.settled) > n.cfg.LockLife {
		n.abandonJoin()
		n.joinLater(0)
		return
	}
	n.sendJoined()
}

func (n *Node) onJoinedAck(r uint32, m *JoinedAck) {
	j := &n.join
	if n.state != Settling || m.Lock != j.lock || r != j.p && r != j.s {
		return
	}
	if !m.OK {
		n.abandonJoin()
		n.joinLater(0)
		return
	}
	n.takeBeat(r, &m.BeatBody)
	j.ackP = j.ackP || r == j.p
	j.ackS = j.ackS || r == j.s
	if j.ackP && j.ackS {
		n.becomeReady()
	}
}

// becomeReady ends the join: from here on this node delivers.
func (n *Node) becomeReady() {
	for _, r := range n.join.ready {
		n.peer(r).pins--
	}
	for _, r := range n.join.contacts {
		n.peer(r).pins--
	}
	took := n.now.Sub(n.join.since)
	n.join = joining{}
	for _, k := range []timerKind{tJoin, tSettle, tJoined, tAlone} {
		n.stop(k, 0)
	}
	n.state = Ready
	n.trace("pastry.ready", id.GUID{}, id.GUID{}, int64(took), "")
	n.updates = append(n.updates, update{n.self, true})
	for _, s := range ring.Sides {
		n.setNeighbour(s, 0)
	}
	n.soundSince = n.now
	if n.leaf.Len() == 0 && n.ownedAfter <= n.now {
		n.soundSince = n.now.Add(-n.longestLease()) // the creator: there is nobody else
	}
	n.neighboursChanged(0)
	for _, r := range n.nb {
		if r != 0 && !n.armed(tBeatWait, r) {
			n.sendBeat(r, false, 0) // they wait for our lease
		}
	}
	n.set(tBeat, 0, machine.Jitter(&n.rnd, n.period()/2, 900_000))
	n.exchangeSoon(n.cfg.ExchangeNear)
	n.set(tGossip, 0, machine.Jitter(&n.rnd, n.gossip, 200_000))
	n.set(tTable, 0, machine.Jitter(&n.rnd, machine.Minute, 300_000))
	n.armHeal()
	for _, m := range n.leaf.All() {
		if m.Ref != n.nb[0] && m.Ref != n.nb[1] {
			n.ask(m.Ref) // to be heard by all, it must be answered
		}
	}
	n.announceRows()
	if len(n.waiting) > 0 {
		n.set(tWait, 0, 0)
	}
}

// onJoin takes a Join that came directly: from the joiner, whose seed we are,
// or from the root of its place, which holds us for its neighbour P.
func (n *Node) onJoin(r uint32, m *Join) {
	if m.X.GUID == n.me {
		return
	}
	x := n.intern(m.X)
	if x == 0 || n.peer(x).flags&fForgotten != 0 {
		return
	}
	if n.state != Ready {
		n.joinBusy(x, m.Nonce)
		return
	}
	if m.Passes > 0 {
		n.place(x, m)
		return
	}
	n.routeRing(m.X.GUID, &Join{X: m.X, Nonce: m.Nonce, Look: m.Look}, 0)
}
