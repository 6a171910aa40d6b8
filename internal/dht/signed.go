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
	same := held.seq == v.seq && held.hash == v.hash && held.seq != 0
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
			if !ok {
				n.no(p, m.req, &refuseMsg{code: codeFull})
				return
			}
			n.send(p, &putSignedAckMsg{req: m.req, seq: n.tree.get(g).ver().seq})
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
			n.spreadSigned(p, m, g, v)
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
	if !n.exclusive(g, func() {
		e := n.tree.get(g)
		held := e.ver()
		ack := func() {
			n.send(p, &putSignedAckMsg{req: m.req, seq: v.seq, receipts: []Receipt{n.voteReceipt(g, &m.rec, v)}})
		}
		if held.seq == v.seq && held.hash == v.hash {
			n.release(g)
			ack()
			return
		}
		if !n.cfg.Bugs.CASAtCoordinator {
			no := code(0)
			switch {
			case m.hasCAS && held.seq != m.cas:
				no = codeCAS
			case held.seq >= v.seq:
				no = codeStaleSeq
			}
			if no != 0 {
				n.release(g)
				n.no(p, m.req, &refuseMsg{code: no, stamp: held.seq})
				return
			}
		}
		n.writeSigned(g, &m.rec, v, nil, func(err error) {
			n.release(g)
			if err != nil {
				n.no(p, m.req, &refuseMsg{code: codeFull})
				return
			}
			ack()
		})
	}) {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
	}
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
			e := n.entry(g)
			if v.seq < e.ver().seq && !n.cfg.Bugs.CASAtCoordinator {
				panic("dht: seq of " + g.String() + " would fall")
			}
			v.fork = fork != nil
			e.flags |= flagHave | flagSigned
			e.extra().ver = v
			e.size, e.role = uint32(rec.size()), RoleReplica
			e.holders = 0
			n.retag(e)
			if a := n.arcOf(g); a != nil {
				a.stale = true
			}
		}
		f(err)
	})
}

// takeSigned stores what a peer offered in a comparison.
func (n *Node) takeSigned(p *peer, ss []Signed, f func(ok bool)) {
	for i := range ss {
		held := n.tree.get(ss[i].GUID()).ver()
		v := versionOf(&ss[i])
		if held.seq == v.seq && held.hash == v.hash {
			continue
		}
		if ss[i].Pool != n.cfg.Pool || !ss[i].Verify(n.cfg.Verify) {
			n.strike(p, "signed block with a bad signature")
			f(false)
			return
		}
	}
	g := ss[0].GUID()
	before := n.tree.get(g).ver()
	n.keepSigned(g, ss, func(ok bool) {
		held := n.tree.get(g).ver()
		for i := range ss {
			if v := versionOf(&ss[i]); v.seq == held.seq && v.hash == held.hash {
				n.nowHolds(g, p)
			}
		}
		f(ok)
		if ok && (held.seq != before.seq || held.hash != before.hash) && len(n.calls) < n.cfg.MaxOps/2 {
			// The rest of the set counts this copy from now on, not from the
			// next round.
			set, _, _ := n.view(g, 0)
			for _, q := range set {
				if q != n.me {
					n.tellStray(q, g)
				}
			}
		}
	})
}

// keepSigned merges verified records with the one held: the highest (seq,
// value hash) wins. Of two with one seq, which only an owner that signs twice
// can make, both are kept and reported.
func (n *Node) keepSigned(g id.GUID, ss []Signed, f func(ok bool)) {
	if !n.exclusive(g, func() {
		e := n.tree.get(g)
		held := e.ver()
		merge := func(all []Signed) {
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
			for i := range all {
				if w := versionOf(&all[i]); w.seq == v.seq && w.hash != v.hash && (fork == nil || w.newer(ptr(versionOf(fork)))) {
					fork = &all[i]
				}
			}
			if v.seq == held.seq && v.hash == held.hash && (fork == nil || held.fork) || held.newer(&v) {
				n.release(g)
				f(true)
				return
			}
			if fork != nil {
				n.stats.Forks++
				n.trace("dht.equivocation", id.GUID{}, g, int64(v.seq), "")
			}
			n.writeSigned(g, &best, v, fork, func(err error) {
				n.release(g)
				f(err == nil)
			})
		}
		highest := uint64(0)
		for i := range ss {
			highest = max(highest, ss[i].Seq)
		}
		switch {
		case highest < held.seq || len(ss) == 1 && highest == held.seq && ss[0].ValueHash() == held.hash:
			n.release(g)
			f(true)
		case highest == held.seq:
			n.load(n.recordKeys(e), func(vs [][]byte, err error) {
				all := slices.Clone(ss)
				for _, b := range vs {
					if s, bad := DecodeSigned(b); bad == nil {
						all = append(all, s)
					}
				}
				if err != nil {
					n.release(g)
					f(false)
					return
				}
				merge(all)
			})
		default:
			merge(ss)
		}
	}) {
		f(false)
	}
}

func ptr[T any](v T) *T { return &v }

// pushSigned sends p the record held here, to be kept without a vote.
func (n *Node) pushSigned(p *peer, g id.GUID, f func(ok bool)) {
	n.load([]store.Key{{Family: store.Signed, GUID: g}}, func(vs [][]byte, err error) {
		if err != nil || len(vs[0]) == 0 {
			f(false)
			return
		}
		s, bad := DecodeSigned(vs[0])
		if bad != nil {
			f(false)
			return
		}
		n.ask(p, n.cfg.ClientTimeout, func(req uint64) machine.Message {
			return &putSignedMsg{req: req, stage: stageKeep, rec: s, guid: g}
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
// so that nothing is shown that a crash could take back.
func (n *Node) onGetSigned(p *peer, m *getSignedMsg) {
	n.settled(p, m.req, m.roster, func() {
		if !n.exclusive(m.guid, func() {
			ans := &signedIsMsg{req: m.req, guid: m.guid, quorum: n.votes(m.guid)}
			e := n.tree.get(m.guid)
			if e == nil || !e.signed() || !e.have() {
				n.release(m.guid)
				ans.state, _ = n.stateOf(m.guid)
				if ans.state == have || ans.state == pointer {
					ans.state = unsynced
				}
				if n.cfg.Bugs.UnsyncedInQuorum && ans.quorum {
					ans.state = absent
				}
				n.send(p, ans)
				return
			}
			n.load(n.recordKeys(e), func(vs [][]byte, err error) {
				n.release(m.guid)
				for _, b := range vs {
					if s, bad := DecodeSigned(b); bad == nil && err == nil {
						ans.recs = append(ans.recs, s)
					}
				}
				ans.state = have
				if len(ans.recs) == 0 {
					ans.state, ans.quorum = unsynced, false
				}
				n.send(p, ans)
			})
		}) {
			n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		}
	})
}

func (n *Node) restoreSigned(k store.Key, v []byte) error {
	s, err := DecodeSigned(v)
	if err != nil {
		return err
	}
	e := n.entry(k.GUID)
	e.flags |= flagHave | flagSigned
	if k.Sub == forkSub {
		e.extra().ver.fork = true
	} else {
		fork := e.ver().fork
		e.extra().ver = versionOf(&s)
		e.x.ver.fork = fork
		e.size, e.role = uint32(s.size()), RoleReplica
	}
	n.retag(e)
	return nil
}
