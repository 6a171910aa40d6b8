package pastry

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// recentDeath is how long an eviction is told to others.
const recentDeath = 60 * machine.Second

// askAgain is when a candidate that did not answer, or a node that was evicted
// and that others still name, may be asked again.
const askAgain = 15 * machine.Second

// maxRounds is how often that happens without being told of it again.
const maxRounds = 2

// insertLeaf puts the verified, ready peer r into the leaf set if it belongs
// there. joiner is r if r has just been admitted, else 0.
func (n *Node) insertLeaf(r, joiner uint32) bool {
	p := n.peer(r)
	added, out, dropped := n.leaf.Insert(ring.Member{GUID: p.h.GUID, Ref: r})
	if !added {
		n.estimate = n.leaf.Estimate() // it may have shown that there are more
		return false
	}
	p.flags |= fLeaf
	n.updates = append(n.updates, update{p.h, true})
	if dropped {
		q := n.peer(out.Ref)
		q.flags &^= fLeaf
		n.updates = append(n.updates, update{q.h, false})
	}
	n.leavesChanged(p.h.GUID, joiner)
	return true
}

func (n *Node) removeLeaf(r uint32) {
	p := n.peer(r)
	if p.flags&fLeaf == 0 {
		return
	}
	near := n.isNear(p.h.GUID)
	n.leaf.Remove(p.h.GUID)
	p.flags &^= fLeaf
	if p.flags&fLeft == 0 {
		n.lastLoss = n.now
	}
	if lease := n.longestLease(); n.leaf.Len() == 0 && n.lastLoss != 0 {
		// Alone, as far as we can tell. Whoever went without a goodbye may only
		// be cut off from us, and hold a lease for a while yet.
		n.ownedAfter = max(n.ownedAfter, n.lastLoss.Add(lease))
	}
	n.updates = append(n.updates, update{p.h, false})
	n.leavesChanged(p.h.GUID, 0)
	if near {
		n.exchangeSoon(n.cfg.ExchangeNear)
	}
}

// leavesChanged follows every change of the leaf set.
func (n *Node) leavesChanged(g id.GUID, joiner uint32) {
	n.lsLeft, n.lsRight = nil, nil
	n.estimate = n.leaf.Estimate()
	n.changed = true
	n.neighboursChanged(joiner)
	if n.isNear(g) {
		n.exchangeSoon(n.cfg.ExchangeNear)
	} else {
		n.exchangeSoon(n.cfg.ExchangeFar)
	}
	if len(n.waiting) > 0 {
		n.set(tWait, 0, 0)
	}
}

// isNear reports whether g is among the four nearest leaves of a side.
func (n *Node) isNear(g id.GUID) bool {
	for _, s := range ring.Sides {
		for i := range min(4, n.leaf.Count(s)) {
			if n.leaf.At(s, i).GUID == g {
				return true
			}
		}
	}
	return false
}

// refs returns both sides of the leaf set as refs, nearest first. The slices
// are shared by all messages sent until the leaf set changes.
func (n *Node) refs() (left, right []Ref) {
	if n.lsLeft == nil {
		both := make([]Ref, 0, n.leaf.Count(ring.Left)+n.leaf.Count(ring.Right))
		for i := range n.leaf.Count(ring.Left) {
			both = append(both, refOf(n.peer(n.leaf.At(ring.Left, i).Ref).h))
		}
		for i := range n.leaf.Count(ring.Right) {
			both = append(both, refOf(n.peer(n.leaf.At(ring.Right, i).Ref).h))
		}
		l := n.leaf.Count(ring.Left)
		n.lsLeft, n.lsRight = both[:l:l], both[l:]
	}
	return n.lsLeft, n.lsRight
}

// failedRefs lists nodes that were evicted or left lately and would otherwise be leaves.
func (n *Node) failedRefs() []Ref {
	list := []Ref{}
	for _, r := range n.deaths {
		p := n.peer(r)
		if p.h != nil && p.flags&(fFailed|fLeft) != 0 && n.now.Sub(p.failedAt) < recentDeath && len(list) < maxFailed && n.leaf.Wants(p.h.GUID) {
			list = append(list, refOf(p.h))
		}
	}
	return list
}

func (n *Node) sendLSProbe(r uint32, reply bool) {
	left, right := n.refs()
	n.send(r, &LSProbe{Reply: reply, Ready: n.state == Ready, Left: left, Right: right, Failed: n.failedRefs()})
}

// ask sends r an LSProbe and waits for the answer: r is inserted once it has
// answered and is ready.
func (n *Node) ask(r uint32) {
	p := n.peer(r)
	p.asked = n.now
	if p.work().ask != nil {
		return
	}
	p.flags &^= fAgain
	p.begin().ask = &asking{sent: n.now, last: n.now, ready: n.state == Ready}
	n.asks++
	n.sendLSProbe(r, true)
	n.set(tAsk, r, n.probeTimeout(p))
}

func (n *Node) askDone(r uint32) {
	if p := n.peer(r); p.work().ask != nil {
		p.at.ask = nil
		p.rest()
		n.asks--
		n.stop(tAsk, r)
	}
}

func (n *Node) askTimeout(r uint32) {
	p := n.peer(r)
	a := p.work().ask
	if a == nil {
		again := p.flags&fAgain != 0
		p.flags &^= fAgain
		if again && p.flags&(fLeaf|fFailed|fForgotten) == 0 && n.leaf.Wants(p.h.GUID) {
			n.ask(r)
		}
		return
	}
	if a.tries++; a.tries < 3 {
		a.last = n.now
		n.sendLSProbe(r, true)
		n.set(tAsk, r, n.probeTimeout(p))
		return
	}
	n.askDone(r)
	if p.flags&fLeaf != 0 {
		n.suspect(r)
	} else {
		n.exchangeSoon(askAgain) // three lost messages prove nothing
		if p.rounds++; p.rounds <= maxRounds {
			p.flags |= fAgain
			n.set(tAsk, r, askAgain)
		}
	}
	n.settleSoon()
}

// candidate considers a node that another one named as a leaf: it is asked,
// never believed.
func (n *Node) candidate(r uint32) {
	p := n.peer(r)
	if r == 0 || p.flags&(fLeaf|fQueued|fForgotten) != 0 || p.work().ask != nil || !n.leaf.Wants(p.h.GUID) {
		return
	}
	if p.flags&fLeft != 0 && p.work().claimed == nil {
		return
	}
	if n.cfg.Bugs.TrustLeafSets && p.flags&fLeft == 0 {
		n.insertLeaf(r, 0)
		return
	}
	if n.state != Ready {
		n.ask(r)
		return
	}
	if len(n.candidates) >= 128 {
		return
	}
	p.flags |= fQueued
	n.candidates = append(n.candidates, r)
	n.drainCandidates()
}

// drainCandidates asks queued candidates as tokens come.
func (n *Node) drainCandidates() {
	for len(n.candidates) > 0 {
		r := n.candidates[0]
		p := n.peer(r)
		wanted := p.flags&(fLeaf|fForgotten) == 0 && n.leaf.Wants(p.h.GUID)
		if wanted && !n.bucket.Take(n.now) {
			n.timers.Set(timer{tRepair, 0}, n.bucket.Next())
			return
		}
		n.candidates = slices.Delete(n.candidates, 0, 1)
		p.flags &^= fQueued
		if wanted {
			n.ask(r)
		}
	}
}

// rumour considers a leaf named by ref. It returns true if its handle must be
// fetched first.
func (n *Node) rumour(f Ref) (fetch bool) {
	if f.Prefix == prefix(n.me) {
		if f.Epoch > n.self.Epoch {
			n.trace("pastry.epoch", n.me, id.GUID{}, int64(f.Epoch), "others remember a later boot of this node")
		}
		return false
	}
	if n.leaf.Beyond(f.Prefix) || n.isLeaf(f) {
		return false // nothing below would come of it, and most are such
	}
	r, known := n.resolve(f)
	if !known {
		var g id.GUID
		for i := range 8 {
			g[i] = byte(f.Prefix >> (56 - 8*i))
		}
		return n.leaf.Wants(g)
	}
	p := n.peer(r)
	if f.Epoch < p.h.Epoch {
		return false
	}
	if p.flags&fFailed != 0 && f.Epoch == p.h.Epoch && n.now.Sub(p.failedAt) < askAgain ||
		p.flags&(fLeaf|fVerified) == 0 && p.asked != 0 && n.now.Sub(p.asked) < askAgain/2 {
		if p.flags&fLeft == 0 && n.leaf.Wants(p.h.GUID) {
			n.exchangeSoon(askAgain) // we are at odds: come back to it
		}
		return false
	}
	if f.Epoch > p.h.Epoch {
		if c := p.work().claimed; c == nil || c.Epoch < f.Epoch {
			return n.leaf.Wants(p.h.GUID)
		}
	}
	n.candidate(r)
	return false
}

// isLeaf reports whether f is in the leaf set, in this boot. It may not see so
// before refs has been called.
func (n *Node) isLeaf(f Ref) bool {
	i, ok := n.leaf.ByPrefix(f.Prefix)
	switch {
	case !ok || n.lsLeft == nil:
		return false
	case i < len(n.lsRight):
		return n.lsRight[i] == f
	}
	return n.lsLeft[n.leaf.Len()-1-i] == f
}

// onLSProbe takes another's leaf set and its list of the dead.
func (n *Node) onLSProbe(r uint32, m *LSProbe) {
	p := n.peer(r)
	n.setReady(r, m.Ready)
	if !m.Ready {
		p.asked = n.now // no need to ask
	}
	told := false
	if a := p.work().ask; a != nil {
		if a.tries == 0 {
			p.rtt.Sample(n.now.Sub(a.sent))
		}
		told = a.ready
		n.askDone(r)
	}
	if p.flags&fReady != 0 {
		n.insertLeaf(r, 0)
		n.table.offer(r, n)
	}
	if !told && !m.Reply && n.state == Ready && p.flags&fLeaf != 0 && !m.names(refOf(n.self)) {
		n.ask(r) // it answers what we said as a joiner, perhaps long ago, and does not keep those
	}
	for _, f := range m.Failed {
		if q, ok := n.resolve(f); ok && n.peer(q).flags&(fLeaf|fTable) != 0 && n.peer(q).h.Epoch == f.Epoch {
			n.doubt(q)
		}
	}
	if m.Ready {
		n.missed(r, m)
	}
	before := n.leaf.Len()
	n.rumours(r, m.Left, m.Right)
	if m.Reply {
		n.sendLSProbe(r, false)
	}
	if n.state == Settling && n.parted(m) {
		n.join.big = true
	}
	n.close(r, m)
	if n.leaf.Len() != before && n.state == Ready && !n.leaf.Complete() {
		n.repairLeaves()
	}
	n.settleSoon()
}

// names reports whether f is among the leaves told.
func (m *LSProbe) names(f Ref) bool { return slices.Contains(m.Left, f) || slices.Contains(m.Right, f) }

// missed looks for leaves of ours that r, which should have them too, does not
// name: either r has not heard of their birth, and learns of it from us, or we
// have not heard of their death. They are probed. (Deaths of the last minute
// are in its list of the dead.)
func (n *Node) missed(r uint32, m *LSProbe) {
	var lo, span uint64
	whole := !n.parted(m)
	if !whole {
		lo = m.Left[len(m.Left)-1].Prefix
		span = m.Right[len(m.Right)-1].Prefix - lo
	}
	for _, l := range n.leaf.All() {
		pre := prefix(l.GUID)
		if l.Ref == r || !whole && pre-lo >= span || n.now.Sub(n.peer(l.Ref).heard) < recentDeath {
			continue
		}
		is := func(f Ref) bool { return f.Prefix == pre }
		if !slices.ContainsFunc(m.Left, is) && !slices.ContainsFunc(m.Right, is) {
			n.doubt(l.Ref)
		}
	}
}

// rumours considers the leaves that r names.
func (n *Node) rumours(r uint32, lists ...[]Ref) {
	var fetch []Ref
	for _, list := range lists {
		for _, f := range list {
			if n.rumour(f) && len(fetch) < maxHandles && !slices.Contains(fetch, f) {
				fetch = append(fetch, f)
			}
		}
	}
	if len(fetch) > 0 {
		n.send(r, &HandlesReq{Refs: fetch})
		if p := n.peer(r); p.fetches < maxRounds {
			p.fetches++
			n.set(tFetch, r, n.probeTimeout(p))
		}
		if n.state == Settling {
			n.fetching = n.now.Add(n.probeTimeout(n.peer(r)))
		}
	}
}

// close looks whether the far ends of the leaf set have met: the node at one
// end counts this node, or one of the other side, among those beyond it, and
// names nobody we do not know. Then the leaf set is the whole ring.
func (n *Node) close(r uint32, m *LSProbe) {
	if n.leaf.Wrapped() || n.leaf.Len() > 2*n.leaf.H() || n.peer(r).flags&fLeaf == 0 {
		return
	}
	far, ok := n.leaf.Farthest(ring.Right)
	list, other := m.Right, ring.Left
	if !ok || far.Ref != r {
		if far, ok = n.leaf.Farthest(ring.Left); !ok || far.Ref != r {
			return
		}
		list, other = m.Left, ring.Right
	}
	// Nobody beyond either end: that is where the ring closes.
	meets := len(list) == 0 && n.leaf.Count(other) == 0
	for _, l := range [2][]Ref{m.Left, m.Right} {
		for _, f := range l {
			if f.Prefix == prefix(n.me) {
				continue
			}
			q, known := n.resolve(f)
			if !known || n.peer(q).flags&(fLeaf|fFailed|fForgotten|fLeft) == 0 {
				return
			}
		}
	}
	for _, f := range list {
		if f.Prefix == prefix(n.me) {
			meets = true
		} else if q, known := n.resolve(f); known && n.peer(q).flags&fLeaf != 0 {
			meets = meets || n.leaf.IsLeft(n.peer(q).h.GUID) == (other == ring.Left)
		}
	}
	if meets {
		n.leaf.Wrap()
		n.estimate = n.leaf.Estimate()
		n.lsLeft, n.lsRight = nil, nil
		n.neighboursChanged(0)
	}
}

// parted reports whether a leaf set has two full sides without a common node:
// its ring is larger than the leaf set.
func (n *Node) parted(m *LSProbe) bool {
	if len(m.Left) < n.leaf.H() || len(m.Right) < n.leaf.H() {
		return false
	}
	for _, f := range m.Left {
		if slices.Contains(m.Right, f) {
			return false
		}
	}
	return true
}

func (n *Node) onHandlesReq(r uint32, m *HandlesReq) {
	hs := make([]*id.Handle, 0, len(m.Refs))
	for _, f := range m.Refs {
		if q, ok := n.resolve(f); ok && n.peer(q).flags&(fVerified|fForgotten) == fVerified {
			hs = append(hs, n.peer(q).h)
		}
	}
	if len(hs) > 0 {
		n.send(r, &Handles{Handles: hs})
	}
}

// fetchTimeout: r did not say who it named; it is asked for its leaves anew.
func (n *Node) fetchTimeout(r uint32) {
	if p := n.peer(r); p.h != nil && p.flags&(fVerified|fSuspect|fForgotten|fLeft) == fVerified {
		n.ask(r)
	}
}

func (n *Node) onHandles(r uint32, m *Handles) {
	n.stop(tFetch, r)
	n.peer(r).fetches = 0
	for _, h := range m.Handles {
		n.consider(h)
	}
	n.fetching = 0
	n.settleSoon()
}

// consider takes a handle that another node told of: as a leaf, or for an
// empty place in the table.
func (n *Node) consider(h *id.Handle) {
	if h.GUID == n.me {
		return
	}
	r := n.intern(h)
	if r == 0 {
		return
	}
	p := n.peer(r)
	switch {
	case p.flags&(fForgotten|fLeaf) != 0:
	case n.leaf.Wants(h.GUID):
		n.candidate(r)
	case p.flags&fTable == 0 && n.table.wants(h.GUID) && n.bucket.Take(n.now):
		n.pingPeer(r)
	}
}

// stranger looks at whoever has just sent us a message: if it belongs in the
// leaf set, and is ready, it is a leaf; if we do not know, it is asked. This
// is how two ready nodes become neighbours when a partition heals or a
// falsely evicted node answers again. (Not after a Probe or a Join: joiners
// send those, and are not ready.)
func (n *Node) stranger(r uint32) {
	p := n.peer(r)
	if p.flags&(fLeaf|fForgotten|fLeft) != 0 || p.h == nil {
		return
	}
	if p.flags&fReady != 0 {
		n.insertLeaf(r, 0)
		n.table.offer(r, n)
		return
	}
	if n.state == Ready && p.work().ask == nil && n.leaf.Wants(p.h.GUID) && (p.asked == 0 || n.now.Sub(p.asked) > n.cfg.ExchangeNear) {
		p.asked = n.now
		n.candidate(r)
	}
}

func (n *Node) sortByDist(list []uint32, g id.GUID) {
	slices.SortFunc(list, func(a, b uint32) int { return id.CmpDist(g, n.peer(a).h.GUID, n.peer(b).h.GUID) })
}
