package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// Signed blocks are registers with one writer (BEP 44, with quorums). The
// safety of a write rests on the replicas: each accepts a record iff its seq
// is above the one it holds and, with cas, the one it holds is cas. Unsynced
// members and members by another's view only do not count. A read takes the
// highest version of k−W+1 members, and brings it to W before it answers.

// forkSub is the sub-key of the second record of one seq.
const forkSub = "fork"

func versionOf(s *Signed) version {
	return version{seq: s.Seq, hash: s.ValueHash(), removed: s.Removed}
}

// ver is the version held of a signed block; the zero version if none.
func (e *entry) ver() version {
	if e == nil || e.x == nil {
		return version{}
	}
	return e.x.ver
}

func (n *Node) cmdPutSigned(cmd uint64, c PutSignedCmd) {
	rec := c.Rec
	g, v := rec.GUID(), versionOf(&rec)
	need := quorum(n.kEff(0))
	op := &errand{n: n, cmd: cmd, key: g, deadline: n.now.Add(n.cfg.OpDeadline)}
	op.ask = func(_ *peer, fallback bool) machine.Message {
		m := &putSignedMsg{roster: n.m.Digest(), stage: stageRoot, rec: rec, guid: g}
		if fallback {
			m.stage = stageFallback
		}
		if c.CAS != nil {
			m.hasCAS, m.cas = true, *c.CAS
		}
		return m
	}
	op.with = func(m machine.Message, req uint64, left uint32) {
		m.(*putSignedMsg).req, m.(*putSignedMsg).left = req, left
	}
	op.answer = func(_ *peer, m machine.Message) bool {
		ack, ok := m.(*putSignedAckMsg)
		if !ok {
			return false
		}
		need := max(n.enough(need, 0), c.W)
		if n.cfg.Bugs.AckAtWMinusOne {
			need = max(1, need-1)
		}
		rs := n.verified(ack.receipts, need, func(r *Receipt) bool {
			return r.GUID == g && r.Owner == rec.Owner && r.Stamp == rec.Seq &&
				[16]byte(v.hash[:16]) == r.Claim && r.Role == RoleReplica
		})
		if len(rs) < need {
			return false
		}
		n.stats.SignedPuts++
		n.reply(cmd, PutDone{Receipts: rs, Target: n.kEff(0)})
		return true
	}
	op.place()
}

// votes reports whether this node counts in quorums for key.
func (n *Node) votes(key id.GUID) bool {
	a := n.arcOf(key)
	return a != nil && a.mine() && (a.synced || n.cfg.Bugs.UnsyncedInQuorum)
}

// onPutSigned coordinates a signed put, or takes part in one as a replica.
func (n *Node) onPutSigned(p *peer, m *putSignedMsg) {
	rec := &m.rec
	if rec.Pool != n.cfg.Pool || m.stage < stageReplica && !n.m.OwnerOK(rec.Owner) {
		n.no(p, m.req, &refuseMsg{code: codeNotMember, detail: "owner is not of this pool"})
		return
	}
	g := m.guid
	if g.IsZero() {
		g = rec.GUID()
	}
	held := n.tree.get(g).ver()
	v := versionOf(rec)
	same := held.is(v) && n.holds(g)
	if p != n.me && !same && !rec.Verify(n.cfg.Verify) {
		n.strike(p, "signed block with a bad signature")
		n.no(p, m.req, &refuseMsg{code: codeBadSig})
		return
	}
	switch m.stage {
	case stageReplica:
		n.vote(p, m, g, v)
		return
	case stageKeep:
		n.keepSigned(g, []Signed{*rec}, func(ok bool) {
			switch {
			case !ok:
				n.no(p, m.req, &refuseMsg{code: codeFull})
			case !n.holds(g):
				n.no(p, m.req, &refuseMsg{code: codeUnsynced})
			default:
				n.send(p, &putSignedAckMsg{req: m.req, seq: n.tree.get(g).ver().seq})
			}
		})
		return
	}
	if len(n.calls) >= n.cfg.MaxOps {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		return
	}
	n.settled(p, m.req, m.roster, func() {
		switch {
		case !n.coordinates(p, m.req, g, 0):
		case m.stage == stageRoot && !n.r.Owns(n.now, g).OK:
			n.no(p, m.req, &refuseMsg{code: codeUnsynced, detail: "no delivery lease at the moment"})
		default:
			n.coordinateSigned(p, m, g, v)
		}
	})
}

func (n *Node) coordinateSigned(p *peer, m *putSignedMsg, g id.GUID, v version) {
	// What would be refused by an up-to-date replica is refused before any
	// other has seen it, so that the answer can be relied on.
	if held := n.tree.get(g).ver(); n.votes(g) && (held.seq != v.seq || held.hash != v.hash) {
		switch {
		case m.hasCAS && held.seq > m.cas:
			n.no(p, m.req, &refuseMsg{code: codeCAS, stamp: held.seq})
			return
		case held.seq >= v.seq:
			n.no(p, m.req, &refuseMsg{code: codeStaleSeq, stamp: held.seq})
			return
		}
	}
	if m.hasCAS && n.tree.get(g).ver().seq < m.cas {
		// This node is behind, or cas is ahead of everybody.
		n.catchUp(g, func() {
			if held := n.tree.get(g).ver(); held.seq != m.cas && (held.seq != v.seq || held.hash != v.hash) {
				n.no(p, m.req, &refuseMsg{code: codeCAS, stamp: held.seq})
				return
			}
			if n.coordinates(p, m.req, g, 0) {
				n.spreadSigned(p, m, g, v)
			}
		})
		return
	}
	n.spreadSigned(p, m, g, v)
}

// catchUp asks the set for the record of g, keeps what is newer than this
// node's, and calls f when all have answered or been silent.
func (n *Node) catchUp(g id.GUID, f func()) {
	set, _, _ := n.view(g, 0)
	open := 1
	end := func(bool) {
		if open--; open == 0 {
			f()
		}
	}
	for _, q := range set {
		if q == n.me {
			continue
		}
		open++
		n.ask(q, n.cfg.SyncTimeout, func(req uint64) machine.Message {
			return &getSignedMsg{req: req, roster: n.m.Digest(), guid: g}
		}, func(q *peer, m machine.Message) {
			if a, ok := m.(*signedIsMsg); ok && a.guid == g && len(a.recs) > 0 {
				n.takeSigned(q, a.recs, end)
				return
			}
			end(false)
		})
	}
	end(false)
}

func (n *Node) spreadSigned(p *peer, m *putSignedMsg, g id.GUID, v version) {
	s := &spread{
		n: n, key: g, need: quorum(n.kEff(0)), holds: true,
		client: p, req: m.req, deadline: n.until(m.left),
		anchor: n.voters(g),
		quorum: func() int { return quorum(n.kEff(0)) },
	}
	if n.cfg.Bugs.AckAtWMinusOne {
		s.need = max(1, s.need-1)
	}
	s.atW = func() { n.send(p, &putSignedAckMsg{req: m.req, seq: v.seq, receipts: s.receipts}) }
	s.failed = func(r *Refusal) {
		if s.acks > 0 && r.Code != CodeNoQuorum && r.Code != CodeBusy {
			// Some have accepted it and may pass it on: the outcome is maybe.
			r = &Refusal{Code: CodeNoQuorum, Stamp: r.Stamp, Detail: "others refused: " + r.Code}
		}
		n.no(p, m.req, pass(r, n.lookup))
	}
	s.send = func(t *target, _ bool) {
		n.sendSigned(s, t, &putSignedMsg{stage: stageReplica, hasCAS: m.hasCAS, cas: m.cas, rec: m.rec, guid: g})
	}
	s.start()
}

// sendSigned asks t for its vote. A member behind cas is sent the record of
// cas first, if this node has it.
func (n *Node) sendSigned(s *spread, t *target, c *putSignedMsg) {
	s.sent(t, len(c.rec.Value))
	if _, open := n.calls[t.req]; open && t.req != 0 {
		c.req = t.req
		n.send(t.p, c)
		return
	}
	t.req = n.ask(t.p, max(s.deadline.Sub(n.now), 1), func(req uint64) machine.Message {
		c.req = req
		return c
	}, func(q *peer, a machine.Message) {
		switch a := a.(type) {
		case nil:
			s.lost(t)
		case *putSignedAckMsg:
			s.acked(t, a.receipts)
		case *refuseMsg:
			r := refusal(a)
			switch {
			case a.code == codeUnsynced || a.code == codeNotReplica:
				r.Code, r.AfterMS = CodeBusy, 300 // asked again: it may be synced then
				s.refused(t, r)
			case a.code == codeCAS && c.hasCAS && a.stamp < c.cas && n.mayLead(c) && t.tries < 6:
				n.pushSigned(q, c.guid, func(bool) {
					if !s.ended && !t.done {
						again := *c
						n.sendSigned(s, t, &again)
					}
				})
			default:
				s.refused(t, r)
			}
		default:
			n.strike(q, "wrong answer to PutSigned")
			s.lost(t)
		}
	})
}

// mayLead: what this node holds brings a member that is behind cas to where it
// can accept c: the record of cas, or c itself, which was accepted here.
func (n *Node) mayLead(c *putSignedMsg) bool {
	held := n.tree.get(c.guid).ver()
	return held.seq == c.cas || held.seq == c.rec.Seq && held.hash == c.rec.ValueHash()
}

// vote accepts a record or not, atomically, and answers after the fsync.
func (n *Node) vote(p *peer, m *putSignedMsg, g id.GUID, v version) {
	if !n.votes(g) {
		n.no(p, m.req, &refuseMsg{code: codeUnsynced})
		return
	}
	end := func(no code) {
		stamp := n.tree.get(g).ver().seq
		n.release(g)
		if no != 0 {
			n.no(p, m.req, &refuseMsg{code: no, stamp: stamp})
			return
		}
		n.send(p, &putSignedAckMsg{req: m.req, seq: v.seq, receipts: []Receipt{n.voteReceipt(g, &m.rec, v)}})
	}
	if !n.exclusive(g, func() {
		if !n.tree.get(g).ver().is(v) {
			n.accept(p, m, g, v, end)
			return
		}
		// What is acknowledged again must be there to read still.
		n.readSigned(g, func(recs []Signed) {
			if len(recs) > 0 {
				end(0)
				return
			}
			n.accept(p, m, g, v, end)
		})
	}) {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
	}
}

// accept writes the record of m if the rules allow it, and says why not. The
// version that this node has acknowledged before is written again where it went bad.
func (n *Node) accept(p *peer, m *putSignedMsg, g id.GUID, v version, f func(no code)) {
	held := n.tree.get(g).ver()
	switch {
	case held.is(v):
		if !m.rec.Verify(n.cfg.Verify) { // it was taken for the one that is here
			if p != n.me {
				n.strike(p, "signed block with a bad signature")
			}
			f(codeBadSig)
			return
		}
	case n.cfg.Bugs.CASAtCoordinator:
	case m.hasCAS && held.seq != m.cas:
		f(codeCAS)
		return
	case held.seq >= v.seq:
		f(codeStaleSeq)
		return
	}
	n.writeSigned(g, &m.rec, v, nil, func(err error) {
		if err != nil {
			f(codeFull)
			return
		}
		f(0)
	})
}

func (n *Node) voteReceipt(g id.GUID, rec *Signed, v version) Receipt {
	r := Receipt{
		Pool: n.cfg.Pool, GUID: g, Owner: rec.Owner, Claim: [16]byte(v.hash[:16]), Stamp: v.seq,
		Node: n.me.h.GUID, Role: RoleReplica, Synced: n.unixMS(),
	}
	r.SignWith(n.cfg.Sign)
	return r
}

// writeSigned makes rec the version held, with fork beside it if not nil.
func (n *Node) writeSigned(g id.GUID, rec *Signed, v version, fork *Signed, f func(err error)) {
	if !rec.Removed && !n.room(rec.size(), RoleReplica) {
		f(store.ErrFull)
		return
	}
	e := n.tree.get(g)
	b := store.Batch{
		Ops:    []store.Op{{Key: store.Key{Family: store.Signed, GUID: g}, Value: Encode(rec)}},
		Urgent: rec.Removed,
	}
	switch {
	case fork != nil:
		b.Ops = append(b.Ops, store.Op{Key: store.Key{Family: store.Signed, GUID: g, Sub: forkSub}, Value: Encode(fork)})
	case e.ver().fork:
		b.Ops = append(b.Ops, store.Op{Key: store.Key{Family: store.Signed, GUID: g, Sub: forkSub}, Delete: true})
	}
	n.store(g, b, func(err error) {
		if err == nil {
			e := n.signedEntry(g)
			held := e.ver()
			if v.seq < held.seq && !n.cfg.Bugs.CASAtCoordinator {
				panic("dht: seq of " + g.String() + " would fall")
			}
			if !held.is(v) {
				e.holders = 0
			}
			v.fork = fork != nil
			e.flags = e.flags&^flagBad | flagHave
			e.extra().ver = v
			e.size, e.role = uint32(rec.size()), RoleReplica
			n.retag(e)
			if a := n.arcOf(g); a != nil {
				a.stale = true
			}
		}
		f(err)
	})
}

// signedEntry returns the entry of the signed block g, made if need be.
func (n *Node) signedEntry(g id.GUID) *entry {
	e := n.entry(g)
	if !e.signed() {
		e.flags |= flagSigned
		n.signed++
	}
	return e
}

// takeSigned stores what a peer offered in a comparison.
func (n *Node) takeSigned(p *peer, ss []Signed, f func(ok bool)) {
	for i := range ss {
		e, v := n.tree.get(ss[i].GUID()), versionOf(&ss[i])
		if e.ver().is(v) && e.have() {
			continue
		}
		if ss[i].Pool != n.cfg.Pool || !ss[i].Verify(n.cfg.Verify) {
			n.strike(p, "signed block with a bad signature")
			f(false)
			return
		}
	}
	g := ss[0].GUID()
	before, had := n.tree.get(g).ver(), n.holds(g)
	n.keepSigned(g, ss, func(ok bool) {
		held := n.tree.get(g).ver()
		for i := range ss {
			if v := versionOf(&ss[i]); v.seq == held.seq && v.hash == held.hash {
				n.nowHolds(g, p)
			}
		}
		f(ok)
		if ok && (held.seq != before.seq || held.hash != before.hash || !had && n.holds(g)) {
			// The rest of the set counts this copy from now on, not from the
			// next round.
			n.tellSet(g)
		}
	})
}

// tellSet tells the set of g's record here, and takes from it what it knows better.
func (n *Node) tellSet(g id.GUID) {
	if len(n.calls) >= n.cfg.MaxOps/2 {
		return // the next round tells
	}
	set, _, _ := n.view(g, 0)
	for _, q := range set {
		if q != n.me {
			n.tellStray(q, g)
		}
	}
}

// keepSigned merges verified records with the one held: the highest (seq,
// value hash) wins. Of two with one seq, which only an owner that signs twice
// can make, both are kept and reported.
func (n *Node) keepSigned(g id.GUID, ss []Signed, f func(ok bool)) {
	end := func(ok bool) {
		n.release(g)
		f(ok)
	}
	if !n.exclusive(g, func() {
		held, v := n.tree.get(g).ver(), versionOf(&ss[0])
		highest := uint64(0)
		for i := range ss {
			highest = max(highest, ss[i].Seq)
		}
		switch {
		case highest < held.seq || len(ss) == 1 && held.is(v) && n.holds(g):
			end(true)
		case highest == held.seq:
			n.readSigned(g, func(recs []Signed) { n.mergeSigned(g, append(recs, ss...), end) })
		default:
			n.mergeSigned(g, ss, end)
		}
	}) {
		f(false)
	}
}

// mergeSigned writes the best of all, none of them below the version held, which
// is one of them if it can be read.
func (n *Node) mergeSigned(g id.GUID, all []Signed, f func(ok bool)) {
	held := n.tree.get(g).ver()
	best := slices.MaxFunc(all, func(a, b Signed) int {
		x, y := versionOf(&a), versionOf(&b)
		switch {
		case x.newer(&y):
			return 1
		case y.newer(&x):
			return -1
		}
		return 0
	})
	v := versionOf(&best)
	var fork *Signed
	known := v.seq > held.seq
	for i := range all {
		w := versionOf(&all[i])
		known = known || w.is(held)
		if w.seq == v.seq && w.hash != v.hash && (fork == nil || w.newer(ptr(versionOf(fork)))) {
			fork = &all[i]
		}
	}
	if !known || n.holds(g) && v.is(held) && (fork == nil || held.fork) {
		// Nothing new; or what is held went bad, and these are not what this
		// node has acknowledged under their seq.
		f(true)
		return
	}
	// What is called the version held came unproved; one that is here comes first.
	proved := func(s *Signed) bool {
		v := versionOf(s)
		return n.holds(g) || !v.is(held) || s.Verify(n.cfg.Verify)
	}
	if !proved(&best) || fork != nil && !proved(fork) {
		f(true)
		return
	}
	if fork != nil {
		n.stats.Forks++
		n.trace("dht.equivocation", id.GUID{}, g, int64(v.seq), "")
	}
	n.writeSigned(g, &best, v, fork, func(err error) { f(err == nil) })
}

func ptr[T any](v T) *T { return &v }

// pushSigned sends p the record held here, to be kept without a vote.
func (n *Node) pushSigned(p *peer, g id.GUID, f func(ok bool)) {
	n.proveSigned(g, func(recs []Signed) {
		if len(recs) == 0 {
			f(false)
			return
		}
		n.ask(p, n.cfg.ClientTimeout, func(req uint64) machine.Message {
			return &putSignedMsg{req: req, stage: stageKeep, rec: recs[0], guid: g}
		}, func(p *peer, m machine.Message) {
			a, ok := m.(*putSignedAckMsg)
			if ok && a.seq == n.tree.get(g).ver().seq {
				n.nowHolds(g, p)
			}
			f(ok)
		})
	})
}

// onGetSigned answers with the records held. It waits for a change under way,
// so that nothing is shown that a crash could take back. One whose record went
// bad is no part of the read quorum, but says that it may be given the record.
func (n *Node) onGetSigned(p *peer, m *getSignedMsg) {
	n.settled(p, m.req, m.roster, func() {
		if !n.exclusive(m.guid, func() {
			n.readSigned(m.guid, func(recs []Signed) {
				n.release(m.guid)
				ans := &signedIsMsg{req: m.req, guid: m.guid, quorum: n.votes(m.guid), state: have, recs: recs}
				if len(recs) == 0 {
					if e := n.tree.get(m.guid); e != nil && e.signed() {
						n.tellSet(m.guid) // who was away when it was found bad may have it
					}
					ans.state, _ = n.stateOf(m.guid)
					if ans.state == have || ans.state == pointer {
						ans.state = unsynced
					}
					if n.cfg.Bugs.UnsyncedInQuorum && ans.quorum {
						ans.state = absent
					}
				}
				n.send(p, ans)
			})
		}) {
			n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		}
	})
}

// restoreSigned: without the record whose fork it is, the fork only says what
// this node has acknowledged.
func (n *Node) restoreSigned(k store.Key, v []byte) error {
	s, err := DecodeSigned(v)
	if err != nil {
		return err
	}
	e := n.signedEntry(k.GUID)
	x := e.extra()
	fork := x.ver.fork || k.Sub == forkSub
	switch {
	case k.Sub != forkSub:
		e.flags = e.flags&^flagBad | flagHave
		x.ver = versionOf(&s)
		e.size, e.role = uint32(s.size()), RoleReplica
	case !e.have():
		e.flags |= flagBad
		x.ver = versionOf(&s)
	}
	x.ver.fork = fork
	n.retag(e)
	return nil
}
