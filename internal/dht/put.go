package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// PutCmd stores a content block. Cert is signed by its owner; Block may be nil
// if the pool is known to have it. With Try, Cert goes first and Block follows
// only where it is wanted.
type PutCmd struct {
	Cert  StoreCert
	Block []byte
	W     int // quorum wanted in place of the rule's; 0: the rule's
	Try   bool
}

// PutDone answers PutCmd and PutSignedCmd: W receipts of distinct members,
// verified.
type PutDone struct {
	Receipts []Receipt
	Known    bool // the bytes were there before
	Target   int  // copies the pool will keep
}

// clientPut is one PutCmd under way.
type clientPut struct {
	n        *Node
	cmd      uint64
	c        PutCmd
	bare     bool // send the certificate alone
	need     int
	deadline machine.Time
	set      []*peer
	next     int // of set
	follows  int
	call     uint64
	asked    *peer
	last     *Refusal
	ended    bool
}

func (n *Node) cmdPut(cmd uint64, c PutCmd) {
	k := n.kEff(int(c.Cert.K))
	need := quorum(k)
	if c.W > 0 {
		need = min(c.W, MaxReplicas)
	}
	if n.cfg.Bugs.AckAtWMinusOne {
		need = max(1, need-1)
	}
	op := &clientPut{
		n: n, cmd: cmd, c: c, need: need,
		bare:     c.Try || len(c.Block) == 0,
		deadline: n.now.Add(n.cfg.OpDeadline),
	}
	op.place()
}

// place finds the set anew and begins with its first member.
func (op *clientPut) place() {
	op.n.place(op.c.Cert.GUID, int(op.c.Cert.K), false, func(set, _ []*peer) {
		if len(set) == 0 {
			op.again(500*machine.Millisecond, nil)
			return
		}
		op.set, op.next = set, 0
		op.send()
	})
}

// send asks the next coordinator.
func (op *clientPut) send() {
	n := op.n
	if op.next >= len(op.set) {
		op.again(300*machine.Millisecond, nil)
		return
	}
	if n.now >= op.deadline {
		op.fail(nil)
		return
	}
	p := op.set[op.next]
	op.next++
	op.asked = p
	m := &putMsg{
		roster: n.m.Digest(), w: uint8(op.c.W), cert: op.c.Cert,
		left: uint32(op.deadline.Sub(n.now).Milliseconds()),
	}
	if !op.bare {
		m.block = op.c.Block
		if p == n.me {
			m.sum = matches // named by the host itself
		}
	}
	start := n.now
	wait := min(2*p.put.rto(0, n.cfg.ClientTimeout/2, 5*machine.Second)+transferTime(len(m.block), n.rate), op.deadline.Sub(n.now))
	if p == n.me {
		wait = op.deadline.Sub(n.now) // it will answer
	}
	op.call = n.askUntil(p, wait, n.patient(op.deadline, op.next < len(op.set)), func(req uint64) machine.Message {
		m.req = req
		return m
	}, func(p *peer, m machine.Message) {
		if m != nil && len(op.c.Block) > 0 {
			p.put.sample(n.now.Sub(start))
		}
		op.answer(p, m)
	})
}

func (op *clientPut) answer(p *peer, m machine.Message) {
	n := op.n
	switch m := m.(type) {
	case nil:
		n.silent(p)
		if op.last == nil {
			op.last = &Refusal{Code: CodeNoQuorum, Nodes: []id.GUID{p.h.GUID}, Detail: "coordinator silent"}
		}
		op.send()
	case *putAckMsg:
		if m.want {
			if len(op.c.Block) == 0 {
				op.fail(&Refusal{Code: CodeNotFound, Detail: "block not in the pool: put it with its bytes"})
				return
			}
			op.bare = false
			op.next--
			op.send()
			return
		}
		need := op.need
		if op.c.W == 0 {
			need = n.enough(need, int(op.c.Cert.K))
		}
		rs := n.verified(m.receipts, need, func(r *Receipt) bool {
			return r.GUID == op.c.Cert.GUID && r.Owner == op.c.Cert.Owner &&
				r.Claim == op.c.Cert.Claim && r.Stamp >= op.c.Cert.Stamp && r.Role != RoleTombstone
		})
		if len(rs) < need && !(n.cfg.Bugs.HaveIsAck && m.known) {
			n.strike(p, "put acknowledged without the receipts")
			op.last = &Refusal{Code: CodeNoQuorum, Detail: "too few valid receipts", Receipts: rs}
			op.send()
			return
		}
		n.stats.Puts++
		op.ended = true
		n.reply(op.cmd, PutDone{Receipts: rs, Known: m.known, Target: n.kEff(int(op.c.Cert.K))})
	case *refuseMsg:
		r := refusal(m)
		switch m.code {
		case codeBusy:
			op.next--
			op.again(machine.Duration(max(m.after, 20))*machine.Millisecond, r)
		case codeUnsynced:
			op.last = r
			op.send()
		case codeNotReplica:
			op.last = r
			if op.follows++; op.follows > 3 {
				op.again(300*machine.Millisecond, r)
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
		case codeBadName, codeBadSig: // what this node named and signed: another has garbled it
			op.last = r
			if op.next == len(op.set) {
				op.fail(r)
				return
			}
			op.send()
		default:
			op.fail(r)
		}
	default:
		n.strike(p, "wrong answer to Put")
		op.send()
	}
}

// again tries again after d: the same coordinator after busy, otherwise the
// set as it is then.
func (op *clientPut) again(d machine.Duration, r *Refusal) {
	n := op.n
	if r != nil {
		op.last = r
	}
	if n.now.Add(d) >= op.deadline {
		d = max(op.deadline.Sub(n.now), 1)
	}
	n.later(machine.Jitter(n.rnd, d, 200_000), func() {
		switch {
		case n.now >= op.deadline:
			op.fail(nil)
		case op.next < len(op.set) && r != nil && r.Code == CodeBusy:
			op.send()
		default:
			op.follows = 0
			op.place()
		}
	})
}

func (op *clientPut) fail(r *Refusal) {
	op.ended = true
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

// refusal turns a Refuse into a command's error.
func refusal(m *refuseMsg) *Refusal {
	r := &Refusal{Code: m.code.String(), AfterMS: int64(m.after), Stamp: m.stamp, Detail: m.detail}
	for _, h := range m.set {
		r.Nodes = append(r.Nodes, h.GUID)
	}
	return r
}

// verified returns up to need receipts that match, come from distinct members
// and bear their signatures.
func (n *Node) verified(rs []Receipt, need int, match func(*Receipt) bool) []Receipt {
	var good []Receipt
	for i := range rs {
		r := &rs[i]
		if len(good) >= need {
			break
		}
		if r.Pool != n.cfg.Pool || !match(r) ||
			slices.ContainsFunc(good, func(g Receipt) bool { return g.Node == r.Node }) {
			continue
		}
		p := n.lookup(r.Node)
		if p == nil || p != n.me && !p.leaf && p.heard == 0 && !n.m.Has(r.Node) {
			continue
		}
		if r.Verify(p.h.Key, n.cfg.Verify) {
			good = append(good, *r)
		}
	}
	return good
}

// enough is need, the quorum when a request began, or that of k now if it is
// lower: members have left, and their receipts are not waited for.
func (n *Node) enough(need, k int) int { return min(need, quorum(n.kEff(k))) }

// transferTime is how long size bytes take at rate.
func transferTime(size int, rate int64) machine.Duration {
	return machine.Duration(int64(size) * int64(machine.Second) / max(rate, 1<<20))
}
