package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// errand is a client's request to a coordinator that is tried along the set
// until the deadline: what remove and signed put have in common.
type errand struct {
	n        *Node
	cmd      uint64
	key      id.GUID
	k        int
	deadline machine.Time
	set      []*peer
	next     int
	follows  int
	silents  int // coordinators that were silent or declined, in a row
	last     *Refusal

	ask    func(p *peer, fallback bool) machine.Message // req is filled in by with
	with   func(m machine.Message, req uint64, left uint32)
	answer func(p *peer, m machine.Message) (ok bool) // of its own kind; false: not acceptable
}

func (op *errand) place() {
	op.n.place(op.key, op.k, false, func(set, _ []*peer) {
		if len(set) == 0 {
			op.again(500*machine.Millisecond, nil)
			return
		}
		op.set, op.next, op.silents = set, 0, 0
		op.send()
	})
}

func (op *errand) send() {
	n := op.n
	switch {
	case n.now >= op.deadline:
		op.fail(nil)
		return
	case op.next >= len(op.set):
		op.again(300*machine.Millisecond, nil)
		return
	}
	p := op.set[op.next]
	op.next++
	m := op.ask(p, op.silents > 0)
	wait := min(p.ack.rto(0, n.cfg.ClientTimeout, 10*machine.Second), op.deadline.Sub(n.now))
	if p == n.me {
		wait = op.deadline.Sub(n.now) // it will answer
	}
	n.askUntil(p, wait, n.patient(op.deadline, op.next < len(op.set)), func(req uint64) machine.Message {
		op.with(m, req, uint32(op.deadline.Sub(n.now).Milliseconds()))
		return m
	}, op.take)
}

// patient is how long a coordinator that says that it is at work is waited for:
// it may be cut off from the rest of the set, and leaves time for the others.
func (n *Node) patient(deadline machine.Time, others bool) machine.Time {
	if others {
		return n.now.Add(deadline.Sub(n.now) / 2)
	}
	return deadline
}

func (op *errand) take(p *peer, m machine.Message) {
	n := op.n
	switch m := m.(type) {
	case nil:
		n.silent(p)
		op.silents++
		if op.last == nil {
			op.last = &Refusal{Code: CodeNoQuorum, Nodes: []id.GUID{p.h.GUID}, Detail: "coordinator silent"}
		}
		op.send()
	case *refuseMsg:
		r := refusal(m)
		switch m.code {
		case codeBusy:
			op.last = r
			op.next--
			op.again(machine.Duration(max(m.after, 20))*machine.Millisecond, r)
		case codeUnsynced:
			op.last = r
			op.silents++
			if op.next >= len(op.set) && len(op.set) == 1 {
				op.next = 0 // the only one there is coordinates without lease
				if op.silents > 1 {
					op.again(300*machine.Millisecond, nil)
					return
				}
			}
			op.send()
		case codeNotReplica:
			op.last = r
			if op.follows++; op.follows > 3 {
				op.again(300*machine.Millisecond, nil)
				return
			}
			op.set, op.next = nil, 0
			for _, h := range m.set {
				op.set = append(op.set, n.peer(h))
			}
			op.send()
		case codeClock:
			op.last = r
			if op.next = n.passOver(op.set, op.next); op.next == len(op.set) {
				op.fail(r)
				return
			}
			op.send()
		default:
			if r.Code == CodeClaims && len(r.Nodes) == 0 && op.silents > 0 {
				for _, q := range op.set[:op.next] { // one of them was silent, and may have taken it
					r.Nodes = append(r.Nodes, q.h.GUID)
				}
			}
			op.fail(r)
		}
	default:
		if !op.answer(p, m) {
			n.strike(p, "wrong answer from a coordinator")
			op.last = &Refusal{Code: CodeNoQuorum, Detail: "too few valid receipts"}
			op.silents++
			op.send()
		}
	}
}

// passOver is the next coordinator to ask, from i on, when one has refused a
// stamp as too far in the future. The wrong clock may be that one's, so the
// others are asked; but not this node, whose clock may be as wrong.
func (n *Node) passOver(set []*peer, i int) int {
	for i < len(set) && set[i] == n.me {
		i++
	}
	return i
}

func (op *errand) again(d machine.Duration, r *Refusal) {
	n := op.n
	d = max(min(d, op.deadline.Sub(n.now)), 1)
	n.later(machine.Jitter(n.rnd, d, 200_000), func() {
		switch {
		case n.now >= op.deadline:
			op.fail(nil)
		case r != nil && op.next < len(op.set):
			op.send()
		default:
			op.follows = 0
			op.place()
		}
	})
}

func (op *errand) fail(r *Refusal) {
	if r == nil {
		r = op.last
	}
	if r == nil {
		r = &Refusal{Code: CodeUnavailable, Detail: "this node has no way to the set"}
	}
	if r.Code == CodeBusy || r.Code == CodeUnsynced || r.Code == CodeNotReplica {
		r = &Refusal{Code: CodeUnavailable, Detail: r.Code + " until the deadline", Nodes: r.Nodes}
	}
	op.n.refuse(op.cmd, r)
}

func (n *Node) cmdRemove(cmd uint64, c RemoveCmd) {
	need := quorum(n.kEff(0))
	op := &errand{n: n, cmd: cmd, key: c.Rec.GUID, deadline: n.now.Add(n.cfg.OpDeadline)}
	op.ask = func(*peer, bool) machine.Message {
		return &removeMsg{roster: n.m.Digest(), rec: c.Rec}
	}
	op.with = func(m machine.Message, req uint64, left uint32) {
		m.(*removeMsg).req, m.(*removeMsg).left = req, left
	}
	op.answer = func(p *peer, m machine.Message) bool {
		ack, ok := m.(*removeAckMsg)
		if !ok {
			return false
		}
		if len(ack.receipts) == 0 {
			n.nowhere(c.Rec.GUID, func(yes bool) {
				if yes {
					n.refuse(cmd, &Refusal{Code: CodeNotFound})
					return
				}
				op.silents++
				op.send()
			})
			return true
		}
		need := n.enough(need, 0)
		rs := n.verified(ack.receipts, need, func(r *Receipt) bool {
			return r.GUID == c.Rec.GUID && r.Owner == c.Rec.Owner && r.Claim == c.Rec.Claim &&
				r.Stamp >= c.Rec.Stamp && r.Role == RoleTombstone
		})
		if len(rs) < need {
			return false
		}
		n.stats.Removes++
		n.reply(cmd, RemoveDone{Receipts: rs, KeptByOthers: ack.kept})
		return true
	}
	op.place()
}

// onRemove coordinates a remove, or carries it out as a replica.
func (n *Node) onRemove(p *peer, m *removeMsg) {
	rec := &m.rec
	switch wall := n.unixMS(); {
	case rec.Pool != n.cfg.Pool:
		n.strike(p, "remove of another pool")
		n.no(p, m.req, &refuseMsg{code: codeNotMember})
		return
	case !m.copy && !n.m.OwnerOK(rec.Owner):
		n.no(p, m.req, &refuseMsg{code: codeNotMember, detail: "owner is not of this pool"})
		return
	case !m.copy && rec.Stamp > wall+maxFuture:
		n.no(p, m.req, &refuseMsg{code: codeClock, stamp: wall})
		return
	case p != n.me && !n.knowsTomb(rec) && !rec.Verify(n.cfg.Verify):
		n.strike(p, "remove with a bad signature")
		n.no(p, m.req, &refuseMsg{code: codeBadSig})
		return
	}
	if put := n.putLater(rec); put > 0 {
		n.no(p, m.req, &refuseMsg{code: codeStaleSeq, stamp: put, detail: "put later than it is removed"})
		return
	}
	if m.copy {
		if !n.merge(rec.GUID, nil, []Remove{*rec}, nil, RoleReplica, func(r merged) {
			if r.no != 0 {
				n.no(p, m.req, &refuseMsg{code: r.no, after: 50})
				return
			}
			n.send(p, &removeAckMsg{req: m.req, kept: r.kept, receipts: []Receipt{n.tombReceipt(rec)}})
		}) {
			n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		}
		return
	}
	if len(n.calls) >= n.cfg.MaxOps {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		return
	}
	n.settled(p, m.req, m.roster, func() {
		if !n.coordinates(p, m.req, rec.GUID, 0) {
			return
		}
		// A put that is under way here is not in the tree yet.
		if state, _ := n.stateOf(rec.GUID); state != absent || n.tree.get(rec.GUID) != nil || n.locks[rec.GUID] != nil {
			n.coordinateRemove(p, m)
			return
		}
		n.nowhere(rec.GUID, func(yes bool) {
			if yes { // tombstones would be kept for ever, of what never was
				n.send(p, &removeAckMsg{req: m.req})
				return
			}
			if n.coordinates(p, m.req, rec.GUID, 0) {
				n.coordinateRemove(p, m)
			}
		})
	})
}

// nowhere tells f whether there is nothing under g, by the rule of not_found: the
// whole set and the deniers say so.
func (n *Node) nowhere(g id.GUID, f func(yes bool)) {
	n.place(g, 0, false, func(set, _ []*peer) {
		ask := slices.Clone(set)
		for _, d := range n.deniers(g) {
			p := n.lookup(d)
			if p == nil {
				f(false)
				return
			}
			if !slices.Contains(ask, p) {
				ask = append(ask, p)
			}
		}
		yes, open := len(set) > 0, 1
		end := func() {
			if open--; open == 0 {
				f(yes)
			}
		}
		for _, p := range ask {
			open++
			n.ask(p, headTimeout, func(req uint64) machine.Message {
				return &headMsg{req: req, guids: []id.GUID{g}}
			}, func(p *peer, m machine.Message) {
				a, ok := m.(*headAckMsg)
				yes = yes && ok && len(a.heads) == 1 &&
					(a.heads[0].state == absent || a.heads[0].state == outside && !slices.Contains(set, p))
				end()
			})
		}
		end()
	})
}

// putLater is the stamp of the claim here that rec is about but too old to end,
// 0 if there is none: acknowledged, such a remove would have no effect. It comes
// from an owner whose clock has been set back.
func (n *Node) putLater(rec *Remove) uint64 {
	e := n.tree.get(rec.GUID)
	if e == nil {
		return 0
	}
	o, ok := n.owners.known(rec.Owner)
	if !ok {
		return 0
	}
	if c := e.find(o, rec.Claim, false); c != nil && c.stamp > rec.Stamp {
		return c.stamp
	}
	return 0
}

func (n *Node) tombReceipt(rec *Remove) Receipt {
	r := Receipt{
		Pool: n.cfg.Pool, GUID: rec.GUID, Owner: rec.Owner, Claim: rec.Claim, Stamp: rec.Stamp,
		Node: n.me.h.GUID, Role: RoleTombstone, Synced: n.unixMS(),
	}
	r.SignWith(n.cfg.Sign)
	return r
}

func (n *Node) coordinateRemove(p *peer, m *removeMsg) {
	rec := m.rec
	kept := false
	s := &spread{n: n, key: rec.GUID, standIns: true, client: p, req: m.req, deadline: n.until(m.left)}
	e := n.tree.get(rec.GUID)
	if e != nil {
		s.k = int(e.k)
	}
	s.quorum = func() int { return quorum(n.kEff(max(s.k, n.cfg.K))) }
	s.need = s.quorum()
	s.atW = func() {
		n.send(p, &removeAckMsg{req: m.req, kept: kept, receipts: s.receipts})
	}
	s.failed = func(r *Refusal) { n.no(p, m.req, pass(r, n.lookup)) }
	s.send = func(t *target, _ bool) {
		c := &removeMsg{copy: true, rec: rec}
		s.sent(t, 0)
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
			case *removeAckMsg:
				kept = kept || a.kept
				s.acked(t, a.receipts)
			case *refuseMsg:
				s.refused(t, refusal(a))
			default:
				n.strike(q, "wrong answer to Remove")
				s.lost(t)
			}
		})
	}
	// Copies outside the set are told too; others learn by comparison.
	if e != nil {
		set, _, _ := n.view(rec.GUID, s.k)
		n.each(e.holders&n.live, func(q *peer) {
			for _, x := range set {
				if x == q {
					return
				}
			}
			n.ask(q, n.cfg.ClientTimeout, func(req uint64) machine.Message {
				return &removeMsg{req: req, copy: true, rec: rec}
			}, func(*peer, machine.Message) {})
		})
	}
	s.start()
}
