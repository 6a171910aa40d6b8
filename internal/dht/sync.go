package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// span is a stretch of the ring to be compared. Partial: this node is outside
// the set there, and only tells what it holds.
type span struct {
	lo, hi  id.GUID
	partial bool
}

// session is the comparison of this node's records with one peer's: spans one
// after the other, each a walk down the differing branches of the tree.
type session struct {
	gen    uint64 // answers to an earlier session are ignored
	active bool
	queue  []span
	cur    span
	trees  []span // below cur, still to be asked
	keys   []span
	open   int  // questions and stores under way
	fresh  bool // the peer said that it is unsynced on cur
	failed bool
	fails  int
	after  machine.Time // no new session before
	round  machine.Time // when the next periodic comparison is due
}

const (
	syncWindow  = 4 // questions of one session under way
	maxSessions = 8
	sideWants   = 64 // questions for records outside a session
	offerBytes  = 56 << 10
)

// reset ends a session: the peer left, or came back.
func (s *session) reset() {
	s.gen++
	s.active, s.failed, s.open, s.fails = false, false, 0, 0
	s.queue, s.trees, s.keys = nil, nil, nil
	s.after = 0
}

// pulseSync starts the sessions that are due. Arcs not yet entered come first.
func (n *Node) pulseSync() {
	n.settle()
	active := 0
	for _, p := range n.circle.nodes {
		if p.sync.active {
			active++
		}
	}
	unmet := [2]uint64{} // peers not compared with on arcs entered, on others
	for _, a := range n.arcs {
		if a.mine() && !a.synced {
			unmet[0] |= a.near &^ a.seen
		}
		unmet[1] |= a.mask &^ a.seen
	}
	for i, entering := range []bool{true, false} {
		for _, p := range n.circle.nodes {
			if active >= maxSessions {
				return
			}
			if p == n.me || p.sync.active || p.sync.after > n.now {
				continue
			}
			if unmet[i]&p.bit() == 0 && (entering || p.sync.round > n.now) {
				continue
			}
			if spans := n.spansFor(p, entering); len(spans) > 0 {
				n.beginSync(p, spans)
				active++
			}
		}
	}
	n.checkEntered()
}

// spansFor lists what should be compared with p now, joined where adjacent.
func (n *Node) spansFor(p *peer, entering bool) []span {
	bit := p.bit()
	round := !entering && p.sync.round <= n.now
	if round && p.sync.round == 0 {
		round = false // the first comparison is the one that seen asks for
		p.sync.round = n.now.Add(machine.Jitter(n.rnd, n.cfg.Round, 200_000))
	}
	var spans []span
	for _, a := range n.arcs {
		var want, partial bool
		switch {
		case entering:
			want = a.mine() && !a.synced && a.near&bit != 0 && a.seen&bit == 0
		case a.mine():
			// In the rounds one of a pair asks; both learn.
			want = a.mask&bit != 0 && (a.seen&bit == 0 || round && n.me.h.GUID.Less(p.h.GUID))
		case a.mask&bit != 0 && (a.seen&bit == 0 || round):
			want = n.tree.digest(a.lo, a.hi).count > 0
			partial = true
			if !want {
				a.seen |= bit
			}
		}
		if !want {
			continue
		}
		if l := len(spans); l > 0 && spans[l-1].partial == partial && spans[l-1].hi.Add(one) == a.lo {
			spans[l-1].hi = a.hi
			continue
		}
		spans = append(spans, span{a.lo, a.hi, partial})
	}
	if round {
		p.sync.round = n.now.Add(machine.Jitter(n.rnd, n.cfg.Round, 200_000))
	}
	return spans
}

// compareSoon brings the next round with p forward, on both sides: one of them has
// refused what the other stores, and must count it all the same where it leads.
func (n *Node) compareSoon(p *peer) {
	soon := n.now.Add(n.cfg.ClientTimeout)
	if p == n.me || p.sync.round <= soon {
		return
	}
	p.sync.round = soon
	n.later(soon.Sub(n.now), n.pulseSync)
}

func (n *Node) beginSync(p *peer, spans []span) {
	s := &p.sync
	s.gen++
	s.active, s.failed, s.open = true, false, 0
	s.queue = spans
	n.nextSpan(p)
}

// nextSpan goes on to the next span, or ends the session.
func (n *Node) nextSpan(p *peer) {
	s := &p.sync
	s.trees, s.keys, s.fresh = nil, nil, false
	if len(s.queue) == 0 {
		s.active = false
		s.fails = 0
		n.stats.SyncRounds++
		n.checkEntered()
		n.pulseSoon()
		return
	}
	s.cur, s.queue = s.queue[0], s.queue[1:]
	switch {
	case s.cur.partial:
		s.keys = n.pieces(s.cur)
	default:
		s.trees = []span{s.cur}
	}
	n.pumpSync(p)
}

// pieces cuts a span into parts with at most maxKeys of this node's items.
func (n *Node) pieces(sp span) []span {
	if n.tree.digest(sp.lo, sp.hi).count <= maxKeys {
		return []span{sp}
	}
	var out []span
	for i := range 16 {
		if a, b, ok := split(sp.lo, sp.hi, i); ok && n.tree.digest(a, b).count > 0 {
			out = append(out, n.pieces(span{a, b, sp.partial})...)
		}
	}
	return out
}

// pumpSync keeps the window full and notices the end of a span.
func (n *Node) pumpSync(p *peer) {
	s := &p.sync
	for s.active && !s.failed && s.open < syncWindow && len(s.trees)+len(s.keys) > 0 {
		if len(s.keys) > 0 {
			sp := s.keys[len(s.keys)-1]
			s.keys = s.keys[:len(s.keys)-1]
			n.askKeys(p, sp)
			continue
		}
		sp := s.trees[len(s.trees)-1]
		s.trees = s.trees[:len(s.trees)-1]
		n.askTree(p, sp)
	}
	if !s.active || s.open > 0 {
		return
	}
	if s.failed {
		s.active = false
		s.fails++
		s.after = n.now.Add(machine.Jitter(n.rnd, n.cfg.SyncTimeout<<min(s.fails, 5), 200_000))
		n.later(s.after.Sub(n.now)+machine.Millisecond, n.pulseSync)
		n.checkEntered()
		return
	}
	bit := p.bit()
	for _, a := range n.arcs {
		if !a.lo.Less(s.cur.lo) && !s.cur.hi.Less(a.hi) {
			a.seen |= bit
			if s.fresh {
				a.fresh |= bit
			} else {
				a.fresh &^= bit
			}
			a.dirty = true
		}
	}
	if !s.cur.partial {
		p.rejoin = false
	}
	n.nextSpan(p)
}

// syncTries is how often a question is put, waiting longer each time.
const syncTries = 5

// question asks p as part of its session, several times if need be.
func (n *Node) question(p *peer, tries int, q func(req uint64) machine.Message, f func(m machine.Message)) {
	s := &p.sync
	gen := s.gen
	s.open++
	n.ask(p, n.cfg.SyncTimeout<<((syncTries-tries)/2), q, func(p *peer, m machine.Message) {
		if s.gen != gen {
			return
		}
		s.open--
		switch {
		case m == nil && tries > 1 && p.leaf:
			n.question(p, tries-1, q, f)
		case m == nil:
			s.failed = true
		default:
			if _, no := m.(*refuseMsg); no {
				s.failed = true
				break
			}
			f(m)
		}
		n.pumpSync(p)
	})
}

func (n *Node) askTree(p *peer, sp span) {
	n.question(p, syncTries, func(req uint64) machine.Message {
		return &syncTreeMsg{req: req, lo: sp.lo, hi: sp.hi, rejoin: p.rejoin, kids: n.tree.kids(sp.lo, sp.hi)}
	}, func(m machine.Message) {
		ack, ok := m.(*syncTreeAckMsg)
		if !ok {
			n.strike(p, "wrong answer to SyncTree")
			p.sync.failed = true
			return
		}
		n.says(p, ack.free)
		p.sync.fresh = p.sync.fresh || ack.unsynced
		for i := range ack.kids {
			a, b, ok := split(sp.lo, sp.hi, i)
			if !ok {
				continue
			}
			mine, theirs := n.tree.digest(a, b), ack.kids[i]
			switch {
			case mine == theirs:
				n.equal(p, a, b)
			case mine.count <= maxKeys && theirs.count <= maxKeys:
				p.sync.keys = append(p.sync.keys, span{a, b, false})
			default:
				p.sync.trees = append(p.sync.trees, span{a, b, false})
			}
		}
	})
}

func (n *Node) askKeys(p *peer, sp span) {
	n.question(p, syncTries, func(req uint64) machine.Message {
		return &syncKeysMsg{req: req, lo: sp.lo, hi: sp.hi, partial: sp.partial, items: n.items(sp.lo, sp.hi, sp.partial)}
	}, func(m machine.Message) {
		ack, ok := m.(*syncKeysAckMsg)
		if !ok || ack.lo != sp.lo || ack.hi != sp.hi {
			n.strike(p, "wrong answer to SyncKeys")
			p.sync.failed = true
			return
		}
		p.sync.fresh = p.sync.fresh || ack.unsynced
		if ack.more {
			for i := range 16 {
				if a, b, ok := split(sp.lo, sp.hi, i); ok && sp.lo != sp.hi {
					p.sync.keys = append(p.sync.keys, span{a, b, sp.partial})
				}
			}
			return
		}
		n.stats.SyncItems += int64(len(ack.items))
		wants := n.compare(p, sp.lo, sp.hi, ack.items, sp.partial)
		for len(wants) > 0 {
			c := wants[:min(len(wants), maxOffer)]
			wants = wants[len(c):]
			n.fetchInSession(p, c)
		}
	})
}

// items lists this node's items on [lo, hi], up to maxKeys; outside its arcs
// those it really has something of.
func (n *Node) items(lo, hi id.GUID, partial bool) []item {
	var out []item
	n.tree.walk(lo, hi, func(e *entry) bool {
		it := e.item()
		if !partial || it.flags&(itemHave|itemTombs) != 0 {
			out = append(out, it)
		}
		return len(out) < maxKeys
	})
	return out
}

// equal notes that p has, on [lo, hi], exactly what this node has.
func (n *Node) equal(p *peer, lo, hi id.GUID) {
	bit := n.slot(p)
	n.tree.walk(lo, hi, func(e *entry) bool {
		n.holder(e, bit, e.have())
		return true
	})
}

// lacks notes that p has nothing on [lo, hi].
func (n *Node) lacks(p *peer, lo, hi id.GUID) {
	bit := p.bit()
	n.tree.walk(lo, hi, func(e *entry) bool {
		n.holder(e, bit, false)
		return true
	})
}

// compare goes through this node's items on [lo, hi] and p's, notes which p
// holds, learns of keys new to it, and returns the GUIDs whose records p
// should send. With partial, p spoke only of items this node named.
func (n *Node) compare(p *peer, lo, hi id.GUID, theirs []item, partial bool) (wants []id.GUID) {
	bit := n.slot(p)
	i := 0
	var unknown []item
	n.tree.walk(lo, hi, func(e *entry) bool {
		for i < len(theirs) && theirs[i].guid.Less(e.guid) {
			unknown = append(unknown, theirs[i])
			i++
		}
		if i == len(theirs) || theirs[i].guid != e.guid {
			n.holder(e, bit, false)
			return true
		}
		it := theirs[i]
		i++
		n.holder(e, bit, it.flags&itemHave != 0 && (!e.signed() || it.tag == n.owners.tagAsHeld(e)))
		if it.tag == e.tag {
			return true
		}
		switch {
		case it.flags&itemSigned != 0:
			if it.flags&itemHave != 0 {
				wants = append(wants, e.guid)
			}
		case it.flags&itemTombs != 0, e.have() && it.flags&itemHave != 0, e.flags&flagDiverted != 0:
			wants = append(wants, e.guid)
		}
		return true
	})
	unknown = append(unknown, theirs[i:]...)
	for _, it := range unknown {
		a := n.arcOf(it.guid)
		if a == nil || !a.mine() && !partial {
			continue
		}
		if it.flags&itemTombs != 0 || it.flags&itemSigned != 0 && it.flags&itemHave != 0 {
			wants = append(wants, it.guid)
		}
		switch {
		case it.flags&itemSigned != 0:
		case it.flags&itemHave != 0:
			n.holder(n.entry(it.guid), bit, true)
			a.dirty = true
		case it.flags == 0 && a.mine():
			n.entry(it.guid)
			n.askHolders(p, it.guid)
		}
	}
	return wants
}

// askHolders asks p, who knows a block by name only, as this node does now, who
// has its bytes. Until then this node knows that the block exists, no more.
func (n *Node) askHolders(p *peer, g id.GUID) {
	if n.sides >= sideWants {
		return
	}
	n.sides++
	n.ask(p, n.cfg.SyncTimeout, func(req uint64) machine.Message {
		return &getMsg{req: req, guid: g}
	}, func(p *peer, m machine.Message) {
		n.sides--
		e := n.tree.get(g)
		b, ok := m.(*blockMsg)
		if !ok || e == nil || b.guid != g {
			return
		}
		if b.state == have {
			n.holder(e, n.slot(p), true)
		}
		for _, h := range b.others {
			if q := n.peer(h); q != n.me && b.state == pointer {
				n.holder(e, n.slot(q), true)
			}
		}
	})
}

// fetchInSession asks p for records; the session waits until they are stored.
func (n *Node) fetchInSession(p *peer, gs []id.GUID) {
	s := &p.sync
	gen := s.gen
	s.open++
	n.fetchRecords(p, gs, func(ok bool) {
		if s.gen != gen {
			return
		}
		s.open--
		if !ok {
			s.failed = true
		}
		n.pumpSync(p)
	})
}

// fetchRecords asks p for the records of up to maxOffer GUIDs and calls f when
// all are stored.
func (n *Node) fetchRecords(p *peer, gs []id.GUID, f func(ok bool)) {
	open, ended, failed := 1, false, false
	done := func(ok bool) {
		failed = failed || !ok
		if open--; open == 0 && !ended {
			ended = true
			f(!failed)
		}
	}
	var more func(p *peer, m machine.Message)
	wait := func(req uint64) {
		c := &call{to: p, f: more}
		c.alarm = n.later(5*n.cfg.SyncTimeout, func() {
			delete(n.calls, req)
			more(p, nil)
		})
		n.calls[req] = c
	}
	var req uint64
	more = func(p *peer, m machine.Message) {
		o, ok := m.(*offerMsg)
		if !ok {
			done(false)
			return
		}
		for i := range o.items {
			if slices.Contains(gs, o.items[i].guid) {
				open++
				n.takeOffer(p, &o.items[i], done)
			}
		}
		if o.more {
			wait(req) // the same question has further answers
			return
		}
		done(true)
	}
	req = n.ask(p, 5*n.cfg.SyncTimeout, func(req uint64) machine.Message {
		return &wantMsg{req: req, guids: gs}
	}, more)
}

// takeOffer verifies and stores the records of one GUID.
func (n *Node) takeOffer(p *peer, o *offered, f func(ok bool)) {
	if len(o.signed) > 0 {
		n.takeSigned(p, o.signed, f)
		return
	}
	if !n.checkRecords(p, o.guid, 0, o.certs, o.tombs) {
		f(false)
		return
	}
	e := n.tree.get(o.guid)
	certs := o.certs
	if e == nil || !e.have() && e.flags&flagDiverted == 0 {
		// Claims without bytes are not kept, but say how many copies to keep.
		certs = nil
		if e != nil {
			for i := range o.certs {
				e.k, e.size = max(e.k, o.certs[i].K), o.certs[i].Size
			}
		}
	}
	if len(certs)+len(o.tombs) == 0 {
		f(true)
		return
	}
	if !n.merge(o.guid, certs, o.tombs, nil, RoleReplica, func(r merged) {
		f(r.no == 0 || r.no == codeRemoved || r.no == codeClaims)
	}) {
		f(false)
	}
}

func (n *Node) onSyncTree(p *peer, m *syncTreeMsg) {
	if m.rejoin {
		n.missedBy(p)
	}
	ack := &syncTreeAckMsg{
		req: m.req, unsynced: n.unsyncedOn(m.lo, m.hi),
		free: uint64(max(0, n.cfg.Usage().Free)), kids: n.tree.kids(m.lo, m.hi),
	}
	n.slot(p)
	for i := range ack.kids {
		a, b, ok := split(m.lo, m.hi, i)
		switch {
		case !ok:
		case ack.kids[i] == m.kids[i]:
			n.equal(p, a, b)
		case m.kids[i].count == 0:
			n.lacks(p, a, b)
		}
	}
	n.send(p, ack)
}

func (n *Node) onSyncKeys(p *peer, m *syncKeysMsg) {
	ack := &syncKeysAckMsg{req: m.req, lo: m.lo, hi: m.hi, unsynced: n.unsyncedOn(m.lo, m.hi)}
	if m.partial {
		for i := range m.items {
			if e := n.tree.get(m.items[i].guid); e != nil {
				ack.items = append(ack.items, e.item())
			}
		}
	} else {
		ack.items = n.items(m.lo, m.hi, false)
		ack.more = len(ack.items) == maxKeys && int(n.tree.digest(m.lo, m.hi).count) > maxKeys
		if ack.more {
			ack.items = nil
		}
	}
	n.send(p, ack)
	n.stats.SyncItems += int64(len(m.items))
	var wants []id.GUID
	if m.partial {
		wants = n.compareNamed(p, m.items)
	} else if !ack.more {
		wants = n.compare(p, m.lo, m.hi, m.items, false)
	}
	for len(wants) > 0 && n.sides < sideWants {
		c := wants[:min(len(wants), maxOffer)]
		wants = wants[len(c):]
		n.sides++
		n.fetchRecords(p, c, func(bool) { n.sides-- })
	}
}

// compareNamed takes note of what a peer outside the set holds.
func (n *Node) compareNamed(p *peer, items []item) (wants []id.GUID) {
	for _, it := range items {
		wants = append(wants, n.compare(p, it.guid, it.guid, []item{it}, false)...)
	}
	return wants
}

// unsyncedOn reports whether this node is new to a part of [lo, hi].
func (n *Node) unsyncedOn(lo, hi id.GUID) bool {
	n.settle()
	for _, a := range n.arcs {
		if a.mine() && !a.synced && !a.hi.Less(lo) && !hi.Less(a.lo) {
			return true
		}
	}
	return len(n.circle.nodes) == 0
}
