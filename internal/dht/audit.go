package dht

import (
	"encoding/binary"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// audit is one AuditCmd under way.
type audit struct {
	n    *Node
	cmd  uint64
	c    AuditCmd
	out  []Audit
	next int
	open int
	done int
}

const (
	maxAudit     = maxHead
	auditWindow  = 8
	proofTimeout = 10 * machine.Second
	mendTimeout  = 30 * machine.Second
)

func (n *Node) cmdAudit(cmd uint64, c AuditCmd) {
	if len(c.GUIDs) > maxAudit {
		n.refuse(cmd, &Refusal{Code: CodeBadRequest, Detail: "at most 256 GUIDs in one audit"})
		return
	}
	op := &audit{n: n, cmd: cmd, c: c, out: make([]Audit, len(c.GUIDs))}
	n.heads(c.GUIDs, func(h *clientHead) {
		for i, g := range c.GUIDs {
			op.out[i] = Audit{GUID: g, Target: h.out[i].Target, Valid: h.out[i].Copies}
		}
		if !c.Deep && !c.Repair || len(c.GUIDs) == 0 {
			op.finish()
			return
		}
		for op.open < auditWindow && op.next < len(c.GUIDs) {
			op.one(h)
		}
	})
}

func (op *audit) finish() {
	for i := range op.out {
		o := &op.out[i]
		o.Missing = max(0, o.Target-o.Valid)
	}
	op.n.reply(op.cmd, op.out)
}

// one examines, and if asked for repairs, the next block.
func (op *audit) one(h *clientHead) {
	i := op.next
	op.next++
	op.open++
	end := func() {
		op.open--
		op.done++
		if op.next < len(op.c.GUIDs) {
			op.one(h)
		} else if op.open == 0 {
			op.finish()
		}
	}
	var holders []*peer
	for _, hf := range h.heads[i] {
		if hf.h.state == have {
			holders = append(holders, hf.p)
		}
	}
	if !op.c.Deep {
		op.repair(i, holders, end)
		return
	}
	op.prove(i, holders, end)
}

// prove fetches one copy and makes every holder answer for its own.
func (op *audit) prove(i int, holders []*peer, end func()) {
	n := op.n
	g := op.c.GUIDs[i]
	n.fetchFor(g, func(block []byte) {
		if len(block) == 0 {
			op.out[i].Valid = 0
			op.repair(i, nil, end)
			return
		}
		var nonce [16]byte
		binary.BigEndian.PutUint64(nonce[:8], n.rnd.Uint64())
		binary.BigEndian.PutUint64(nonce[8:], n.rnd.Uint64())
		want := proofOf(nonce, block)
		valid, corrupt, open := 0, 0, 1
		sum := func() {
			if open--; open > 0 {
				return
			}
			op.out[i].Valid, op.out[i].Corrupt = valid, corrupt
			op.repair(i, holders, end)
		}
		for _, p := range holders {
			open++
			n.ask(p, proofTimeout, func(req uint64) machine.Message {
				return &challengeMsg{req: req, guid: g, nonce: nonce}
			}, func(p *peer, m machine.Message) {
				switch a, ok := m.(*challengeAckMsg); {
				case ok && a.state == have && a.proof == want:
					valid++
				case ok:
					corrupt++
					op.out[i].Bad = append(op.out[i].Bad, p.h.GUID)
					n.sendGood(p, g, block)
				}
				sum()
			})
		}
		sum()
	})
}

// repair asks a member of the set to bring the block to k, and counts again.
func (op *audit) repair(i int, holders []*peer, end func()) {
	n := op.n
	o := &op.out[i]
	if !op.c.Repair || o.Valid >= o.Target || o.Valid == 0 {
		end()
		return
	}
	g := op.c.GUIDs[i]
	n.place(g, 0, false, func(set, _ []*peer) {
		ask := append(set, holders...)
		var next func()
		next = func() {
			if len(ask) == 0 {
				end()
				return
			}
			p := ask[0]
			ask = ask[1:]
			n.ask(p, mendTimeout, func(req uint64) machine.Message {
				return &mendMsg{req: req, guid: g}
			}, func(_ *peer, m machine.Message) {
				a, ok := m.(*mendAckMsg)
				if !ok || int(a.copies) < o.Target && len(ask) > 0 {
					next()
					return
				}
				if int(a.copies) > o.Valid {
					o.Repaired = int(a.copies) - o.Valid
					o.Valid = int(a.copies)
				}
				end()
			})
		}
		next()
	})
}

// fetchFor gets a block for this node's own use; nil if it cannot.
func (n *Node) fetchFor(g id.GUID, f func(block []byte)) {
	op := &clientGet{n: n, g: g, asked: make(map[*peer]*ask, 4), deadline: n.now.Add(n.cfg.OpDeadline), got: f}
	op.begin()
}

// sendGood sends a good copy to a node whose own is bad. It compares.
func (n *Node) sendGood(p *peer, g id.GUID, block []byte) {
	n.ask(p, proofTimeout, func(req uint64) machine.Message {
		return &copyMsg{req: req, role: RoleReplica, guid: g, block: block}
	}, func(*peer, machine.Message) {})
}

// onMend brings a block to its set at once, whatever the grace.
func (n *Node) onMend(p *peer, m *mendMsg) {
	e, a := n.tree.get(m.guid), n.arcOf(m.guid)
	if e == nil || a == nil || !e.have() || e.signed() || len(n.calls) >= n.cfg.MaxOps {
		n.no(p, m.req, &refuseMsg{code: codeNotReplica})
		return
	}
	n.heads([]id.GUID{m.guid}, func(op *clientHead) {
		copies := 0
		holds := make(map[*peer]bool)
		for _, hf := range op.heads[0] {
			if hf.h.state == have {
				holds[hf.p] = true
				copies++
			}
		}
		open := 1
		end := func() {
			if open--; open == 0 {
				n.send(p, &mendAckMsg{req: m.req, copies: uint8(min(copies, 255))})
			}
		}
		k := n.kOf(e)
		for _, q := range n.setOf(a, e) {
			if holds[q] || q == n.me || copies >= k {
				continue
			}
			open++
			n.push(q, m.guid, RoleReplica, func(ok bool) {
				if ok {
					copies++
				}
				end()
			})
		}
		end()
	})
}
