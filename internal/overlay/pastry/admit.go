package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// maxPasses bounds how often a Join is handed on among nodes that disagree
// about who is next to whom.
const maxPasses = 4

// admission is the one joiner this node is helping.
type admission struct {
	lock    ring.Lock
	nonce   uint64
	x       uint32
	peer    uint32 // the other neighbour; 0 if this node is alone
	asP     bool   // this node is P: it owns the arc and talks to X
	granted bool   // P: S has locked itself too
	tries   int
	since   machine.Time
	rows    []Row
	others  []Ref // P: S's leaf set
}

type lastAdmission struct {
	joiner id.GUID
	epoch  uint32
	lock   uint64
	until  machine.Time
}

func (n *Node) joinBusy(x uint32, nonce uint64) {
	left, right := n.refs()
	n.send(x, &JoinBusy{Nonce: nonce, Retry: firstBackoff, Ready: n.state == Ready, Left: left, Right: right})
}

// place is where a Join has found the root of its key. The joiner's place is
// on the arc to our right, which we own, or on that of our left neighbour.
func (n *Node) place(x uint32, m *Join) {
	if m.Look {
		n.send(x, &JoinReply{Nonce: m.Nonce, L: n.leafHandles(m.X.GUID)})
		return
	}
	if n.state != Ready {
		n.joinBusy(x, m.Nonce)
		return
	}
	right, ok := n.leaf.NearestBut(ring.Right, m.X.GUID)
	if !ok {
		n.admit(x, m, 0)
		return
	}
	if m.X.GUID.Sub(n.me).Less(right.GUID.Sub(n.me)) {
		n.admit(x, m, right.Ref)
		return
	}
	left, _ := n.leaf.NearestBut(ring.Left, m.X.GUID)
	if int(m.Passes) >= maxPasses {
		n.joinBusy(x, m.Nonce)
		return
	}
	n.send(left.Ref, &Join{X: m.X, Nonce: m.Nonce, Passes: m.Passes + 1, Rows: m.Rows})
}

// admit tries to lock this node and s for x. Nobody waits while holding a
// lock, so there is no deadlock.
func (n *Node) admit(x uint32, m *Join, s uint32) {
	if n.cfg.Bugs.JoinWithoutLock {
		a := &admission{lock: ring.Lock{ID: n.nonce()}, nonce: m.Nonce, x: x, peer: s, rows: m.Rows}
		n.sendJoinReply(a)
		return
	}
	if a := n.admission; a != nil && a.lock.Stands(n.now) {
		if a.lock.Joiner != m.X.GUID || !a.asP || a.peer != s {
			n.joinBusy(x, m.Nonce)
			return
		}
		a.nonce = m.Nonce // the same joiner asks again
		if a.granted {
			n.sendJoinReply(a)
		}
		return
	}
	n.releaseAdmission()
	a := &admission{
		lock: ring.Lock{
			ID: n.nonce(), Joiner: m.X.GUID, Epoch: m.X.Epoch, Side: ring.Right,
			Until: n.now.Add(n.cfg.LockLife), Peer: n.me,
		},
		nonce: m.Nonce, x: x, peer: s, asP: true, since: n.now, rows: m.Rows,
	}
	n.peer(x).pins++
	n.admission = a
	if s == 0 {
		a.granted = true
		n.sendJoinReply(a)
		return
	}
	n.peer(s).pins++
	a.lock.Peer = n.peer(s).h.GUID
	n.send(s, &AdmitReq{X: m.X, Lock: a.lock.ID})
	n.set(tAdmit, 0, n.rto(n.peer(s)))
}

// releaseAdmission ends the admission in hand. The other neighbour's lock
// lapses by itself.
func (n *Node) releaseAdmission() {
	a := n.admission
	if a == nil {
		return
	}
	n.peer(a.x).pins--
	if a.peer != 0 {
		n.peer(a.peer).pins--
	}
	n.admission = nil
	n.stop(tAdmit, 0)
}

func (n *Node) admitTimeout() {
	a := n.admission
	if a == nil || !a.asP || a.granted {
		return
	}
	if n.now.Sub(a.since) >= n.cfg.AdmitWait {
		x, nonce := a.x, a.nonce
		n.releaseAdmission()
		n.joinBusy(x, nonce)
		return
	}
	a.tries++
	n.send(a.peer, &AdmitReq{X: n.peer(a.x).handleFor(a.lock.Epoch), Lock: a.lock.ID})
	n.set(tAdmit, 0, min(n.rto(n.peer(a.peer))<<min(a.tries, 4), a.since.Add(n.cfg.AdmitWait).Sub(n.now)))
}

// handleFor returns the handle of the given boot, if it is known.
func (p *peer) handleFor(epoch uint32) *id.Handle {
	if c := p.work().claimed; c != nil && c.Epoch == epoch {
		return c
	}
	return p.h
}

// onAdmitReq: P asks this node, as S, to help no other joiner for a while.
func (n *Node) onAdmitReq(r uint32, m *AdmitReq) {
	left, right := n.refs()
	ok := n.mayAdmit(r, m)
	n.send(r, &AdmitRep{Lock: m.Lock, OK: ok, Left: left, Right: right})
}

func (n *Node) mayAdmit(r uint32, m *AdmitReq) bool {
	if n.state != Ready || m.X.GUID == n.me {
		return false
	}
	p := n.peer(r).h.GUID
	if a := n.admission; a != nil && a.lock.Stands(n.now) {
		if a.asP || a.lock.Joiner != m.X.GUID || a.lock.Peer != p {
			return false
		}
	}
	l, ok := n.leaf.NearestBut(ring.Left, m.X.GUID)
	if !ok || l.GUID != p || !m.X.GUID.Sub(p).Less(n.me.Sub(p)) {
		return false // we disagree on who is next to whom
	}
	x := n.intern(m.X)
	if x == 0 || n.peer(x).flags&fForgotten != 0 {
		return false
	}
	n.releaseAdmission()
	n.admission = &admission{
		lock: ring.Lock{
			ID: m.Lock, Joiner: m.X.GUID, Epoch: m.X.Epoch, Peer: p, Side: ring.Left,
			Until: n.now.Add(n.cfg.LockLife),
		},
		x: x, peer: r, granted: true, since: n.now,
	}
	n.peer(x).pins++
	n.peer(r).pins++
	return true
}

func (n *Node) onAdmitRep(r uint32, m *AdmitRep) {
	a := n.admission
	if a == nil || !a.asP || a.granted || a.peer != r || a.lock.ID != m.Lock {
		return
	}
	if !m.OK {
		x, nonce := a.x, a.nonce
		n.releaseAdmission()
		n.joinBusy(x, nonce)
		n.rumours(r, m.Left, m.Right) // perhaps it knows a neighbour we do not
		return
	}
	n.stop(tAdmit, 0)
	a.granted = true
	a.others = append(append([]Ref(nil), m.Left...), m.Right...)
	n.sendJoinReply(a)
}

// leafHandles lists this node and its leaves, without x.
func (n *Node) leafHandles(x id.GUID) []*id.Handle {
	hs := []*id.Handle{n.self}
	for _, m := range n.leaf.All() {
		if m.GUID != x && len(hs) < 2*maxSide {
			hs = append(hs, n.peer(m.Ref).h)
		}
	}
	return hs
}

func (n *Node) sendJoinReply(a *admission) {
	m := &JoinReply{Nonce: a.nonce, Lock: a.lock.ID, S: n.self, L: n.leafHandles(n.peer(a.x).h.GUID), Rows: a.rows}
	if a.peer != 0 {
		m.S = n.peer(a.peer).h
	}
	have := make(map[id.GUID]bool, len(m.L))
	for _, h := range m.L {
		have[h.GUID] = true
	}
	for _, f := range a.others {
		if q, ok := n.resolve(f); ok && len(m.L) < 2*maxSide {
			if h := n.peer(q).h; !have[h.GUID] && h.GUID != n.peer(a.x).h.GUID {
				have[h.GUID] = true
				m.L = append(m.L, h)
			}
		}
	}
	n.send(a.x, m)
}

// onJoined: the joiner has settled. If the lock still stands, and we still
// have the same neighbour on its far side, it is ours.
func (n *Node) onJoined(r uint32, m *Joined) {
	p := n.peer(r)
	if l := &n.admitted; l.lock == m.Lock && l.joiner == p.h.GUID && l.epoch == p.h.Epoch && n.now < l.until && p.flags&fLeaf != 0 {
		n.takeBeat(r, &m.BeatBody)
		n.send(r, &JoinedAck{Lock: m.Lock, OK: true, BeatBody: n.beatBody(r, 0)})
		return
	}
	if !n.adopt(r, m.Lock) {
		n.send(r, &JoinedAck{Lock: m.Lock, BeatBody: BeatBody{Hold: noEcho}})
		return
	}
	n.takeBeat(r, &m.BeatBody)
	n.send(r, &JoinedAck{Lock: m.Lock, OK: true, BeatBody: n.beatBody(r, 0)})
}

func (n *Node) adopt(r uint32, lock uint64) bool {
	p := n.peer(r)
	if n.state != Ready || p.flags&fForgotten != 0 {
		return false
	}
	if !n.cfg.Bugs.JoinWithoutLock {
		a := n.admission
		if a == nil || !a.lock.Stands(n.now) || a.lock.ID != lock || a.x != r || a.lock.Epoch != p.h.Epoch || !a.granted {
			return false
		}
		if m, ok := n.leaf.NearestBut(a.lock.Side, p.h.GUID); ok && m.Ref != a.peer || !ok && a.peer != 0 {
			n.releaseAdmission()
			return false
		}
		n.releaseAdmission()
	}
	n.admitted = lastAdmission{p.h.GUID, p.h.Epoch, lock, n.now.Add(n.cfg.LockLife)}
	n.everAdmit = true
	p.flags |= fReady
	n.trace("pastry.admit", p.h.GUID, id.GUID{}, 0, "")
	n.insertLeaf(r, r)
	n.table.offer(r, n)
	return true
}
