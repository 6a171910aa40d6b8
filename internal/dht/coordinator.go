package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// settled calls f once the peer's roster and ours agree; if they do not within
// a second, it says busy.
func (n *Node) settled(p *peer, req uint64, digest [32]byte, f func()) {
	if digest == n.m.Digest() || n.cfg.RosterDiffers == nil || p == n.me {
		f()
		return
	}
	tries := 0
	var look func()
	look = func() {
		switch {
		case digest == n.m.Digest():
			f()
		case tries >= 20:
			n.no(p, req, &refuseMsg{code: codeBusy, after: 300, detail: "rosters differ"})
		default:
			if tries%10 == 0 {
				n.stats.RosterWaits++
				n.out = n.cfg.RosterDiffers(n.now, p.h, n.out)
			}
			tries++
			n.later(50*machine.Millisecond, look)
		}
	}
	look()
}

// no refuses a request.
func (n *Node) no(p *peer, req uint64, m *refuseMsg) {
	m.req = req
	m.detail = m.detail[:min(len(m.detail), maxDetail)]
	n.stats.refused(m.code.String())
	n.send(p, m)
}

// pass turns a Refusal into a Refuse for the client.
func pass(r *Refusal, find func(id.GUID) *peer) *refuseMsg {
	m := &refuseMsg{code: codeNoQuorum, after: uint32(r.AfterMS), stamp: r.Stamp, detail: r.Detail}
	for c := codeFull; c < codeEnd; c++ {
		if c.String() == r.Code {
			m.code = c
		}
	}
	for _, g := range r.Nodes {
		if p := find(g); p != nil && len(m.set) < maxSet {
			m.set = append(m.set, p.h)
		}
	}
	return m
}

// coordinates reports whether this node may coordinate for key, and refuses if
// not.
func (n *Node) coordinates(p *peer, req uint64, key id.GUID, k int) bool {
	set, _, ok := n.view(key, k)
	switch {
	case n.stopping && p != n.me:
		n.no(p, req, &refuseMsg{code: codeUnsynced, detail: "shutting down"})
	case !ok:
		n.no(p, req, &refuseMsg{code: codeUnsynced, detail: "not in the ring yet, or far from the key"})
	case !slices.Contains(set, n.me):
		n.no(p, req, &refuseMsg{code: codeNotReplica, set: handles(set)})
	default:
		return true
	}
	return false
}

// onPut coordinates a put.
func (n *Node) onPut(p *peer, m *putMsg) {
	cert := &m.cert
	if !m.sum.ok(cert.GUID, m.block) || len(m.block) > 0 && int(cert.Size) != len(m.block) {
		n.strike(p, "put of bytes that do not match their name")
		n.no(p, m.req, &refuseMsg{code: codeBadName})
		return
	}
	if !n.certOK(p, m.req, cert) {
		return
	}
	if len(n.calls) >= n.cfg.MaxOps || n.pending+int64(len(m.block)) > n.cfg.MaxBytes {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		return
	}
	size := int64(len(m.block))
	n.pending += size
	n.settled(p, m.req, m.roster, func() {
		if !n.coordinates(p, m.req, cert.GUID, int(cert.K)) {
			n.pending -= size
			return
		}
		n.coordinatePut(p, m)
	})
}

// certOK checks a certificate that a client sent.
func (n *Node) certOK(p *peer, req uint64, c *StoreCert) bool {
	switch wall := n.unixMS(); {
	case c.Pool != n.cfg.Pool:
		n.strike(p, "certificate of another pool")
		n.no(p, req, &refuseMsg{code: codeNotMember, detail: "certificate of another pool"})
	case !n.m.OwnerOK(c.Owner):
		n.no(p, req, &refuseMsg{code: codeNotMember, detail: "owner is not of this pool"})
	case c.Stamp > wall+maxFuture:
		n.no(p, req, &refuseMsg{code: codeClock, stamp: wall, detail: "stamp more than 5 minutes ahead"})
	case p != n.me && !n.knows(c) && !c.Verify(n.cfg.Verify):
		n.strike(p, "certificate with a bad signature")
		n.no(p, req, &refuseMsg{code: codeBadSig})
	default:
		return true
	}
	return false
}

// knows reports whether c, or a later one of its claim, was verified before.
// The signature of an equal stamp may still differ: then c is not stored.
func (n *Node) knows(c *StoreCert) bool {
	e := n.tree.get(c.GUID)
	if e == nil {
		return false
	}
	o, ok := n.owners.known(c.Owner)
	if !ok {
		return false
	}
	k := e.find(o, c.Claim, false)
	return k != nil && k.stamp >= c.Stamp
}

func (n *Node) coordinatePut(p *peer, m *putMsg) {
	cert, block, size := &m.cert, m.block, int64(len(m.block))
	e := n.tree.get(cert.GUID)
	known := e != nil && e.have()
	if o, ok := n.owners.known(cert.Owner); ok && e.claimed(o, cert.Claim, &change{}) {
		// The others know as many: to ask them would leave the claim with one that
		// does not yet.
		n.pending -= size
		n.no(p, m.req, &refuseMsg{code: codeClaims})
		return
	}
	k := n.kEff(int(cert.K))
	need := quorum(k)
	if m.w > 0 {
		need = int(m.w)
	}
	if n.cfg.Bugs.AckAtWMinusOne {
		need = max(1, need-1)
	}
	if n.cfg.Bugs.HaveIsAck && known {
		need = 1
	}
	s := &spread{
		n: n, key: cert.GUID, k: int(cert.K), need: need, standIns: true,
		client: p, req: m.req, deadline: n.until(m.left),
	}
	if m.w == 0 {
		s.anchor = n.anchor(cert.GUID)
		s.quorum = func() int { return quorum(n.kEff(int(cert.K))) }
	}
	free := func() { // the bytes are on disk, or given up
		block = nil
		n.pending -= size
		size = 0
	}
	s.atW = func() {
		n.send(p, &putAckMsg{req: m.req, known: known, receipts: s.receipts})
		free()
	}
	s.failed = func(r *Refusal) {
		free()
		if r.Code == CodeClaims { // this node was behind
			r.Nodes = s.maybe()
		}
		n.no(p, m.req, pass(r, n.lookup))
	}
	s.send = func(t *target, fresh bool) {
		c := &copyMsg{role: t.role, guid: cert.GUID, certs: []StoreCert{*cert}}
		if fresh || !s.answered {
			c.block = block
		}
		n.sendCopy(s, t, c, func() {
			// t wants the bytes.
			switch {
			case len(block) > 0:
				c := *c
				c.block = block
				n.sendCopy(s, t, &c, nil)
			case n.holds(cert.GUID):
				n.loadBlock(cert.GUID, func(b []byte) {
					if len(b) == 0 || s.ended {
						return
					}
					c := *c
					c.block = b
					n.sendCopy(s, t, &c, nil)
				})
			case !s.answered && t.p == n.me:
				n.send(p, &putAckMsg{req: m.req, want: true})
				s.answered = true
				s.finish()
			}
		})
	}
	s.start()
}

// loadBlock reads a content block from this disk; nil if it is not there or bad,
// or if g names a signed block, which is none the worse for that.
func (n *Node) loadBlock(g id.GUID, f func(b []byte)) {
	if e := n.tree.get(g); e != nil && e.signed() {
		f(nil)
		return
	}
	n.load([]store.Key{{Family: store.Block, GUID: g}}, func(vs [][]byte, err error) {
		if err != nil || len(vs) == 0 || len(vs[0]) == 0 {
			n.badBlock(g, err)
			f(nil)
			return
		}
		f(vs[0])
	})
}

// sendCopy asks t to store; want is called when t lacks the bytes.
func (n *Node) sendCopy(s *spread, t *target, c *copyMsg, want func()) {
	if t.p == n.me {
		c.sum = matches
	}
	s.sent(t, len(c.block))
	if t.req != 0 {
		if _, open := n.calls[t.req]; open {
			c.req = t.req
			n.send(t.p, c)
			return
		}
	}
	t.req = n.ask(t.p, max(s.deadline.Sub(n.now), 1), func(req uint64) machine.Message {
		c.req = req
		return c
	}, func(p *peer, m machine.Message) {
		switch m := m.(type) {
		case nil:
			s.lost(t)
		case *copyAckMsg:
			n.says(p, m.free)
			if m.want {
				if want != nil && !t.done {
					want()
				}
				return
			}
			n.measure(p, t.size, t.first)
			n.holdsBy(c.guid, p, m.receipts)
			s.acked(t, m.receipts)
			if len(c.block) > 0 {
				n.tellClaims(p, c.guid)
			}
		case *refuseMsg:
			if m.code == codeFull {
				p.full(n.now.Add(machine.Minute))
				n.compareSoon(p)
			}
			s.refused(t, refusal(m))
		default:
			n.strike(p, "wrong answer to Copy")
			s.lost(t)
		}
	})
}

// tellClaims sends p, which was sent the bytes of g with one claim, the others
// there are: it may have had nothing of g, and would drop a copy that counts for
// them when the one ends.
func (n *Node) tellClaims(p *peer, g id.GUID) {
	if e := n.tree.get(g); p != n.me && e != nil && e.have() {
		if live, _ := e.count(); live > 1 {
			n.push(p, g, RoleReplica, func(bool) {})
		}
	}
}

// measure feeds the estimates of a peer's answers and of the link. start is
// when it was asked first: an answer after a repetition counts in full, so
// that the estimate follows a peer that got slow.
func (n *Node) measure(p *peer, size int, start machine.Time) {
	d := max(n.now.Sub(start), 1)
	p.copies(size).sample(d)
	if size >= largeCopy && p != n.me {
		n.rate = max(n.rate-n.rate/64, int64(size)*int64(machine.Second)/int64(d))
	}
}
