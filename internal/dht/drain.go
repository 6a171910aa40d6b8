package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// drain hands every block on this disk over before the node leaves: until k
// others hold it, or as many as there are. It goes through the disk in order,
// a batch at a time: ask who holds what (Head), send what is missing, and look
// again at the end, because sets change meanwhile.
type drain struct {
	cmd    uint64
	cursor id.GUID
	upto   id.GUID // blocks up to this one have been looked at, or are being
	total  int64
	done   int64
	sent   int64
	late   []id.GUID // came to this disk after that
	again  bool      // something failed in this pass
	tries  int
}

const (
	drainBatch  = 64
	drainPasses = 20
)

func (n *Node) cmdDrain(cmd uint64) {
	if n.drain != nil {
		n.refuse(cmd, &Refusal{Code: CodeBusy, AfterMS: 1000, Detail: "already handing over"})
		return
	}
	n.drain = &drain{cmd: cmd}
	n.tree.walk(id.GUID{}, maxGUID, func(e *entry) bool {
		if e.have() {
			n.drain.total++
		}
		return true
	})
	n.drainOn()
}

// heirs is the set of key without this node.
func (n *Node) heirs(key id.GUID, k int, set, rest []*peer) []*peer {
	cands := append(slices.Clone(set), rest...)
	cands = slices.DeleteFunc(cands, func(p *peer) bool { return p == n.me })
	slices.SortStableFunc(cands, func(a, b *peer) int { return id.CmpDist(key, a.h.GUID, b.h.GUID) })
	return pick(cands, k, n.domainOf)
}

// drainNext takes the next batch: first through the disk, then what came
// meanwhile. Empty: there is no more.
func (n *Node) drainNext() (gs []id.GUID) {
	d := n.drain
	if d.upto != maxGUID {
		n.tree.walk(d.cursor, maxGUID, func(e *entry) bool {
			if e.have() {
				gs = append(gs, e.guid)
			}
			return len(gs) < drainBatch
		})
		if len(gs) == drainBatch {
			d.upto = gs[drainBatch-1]
			d.cursor = d.upto.Add(one)
			return gs
		}
		d.upto = maxGUID
	}
	more := min(len(d.late), drainBatch-len(gs))
	gs = append(gs, d.late[:more]...)
	d.late = d.late[more:]
	d.total += int64(more)
	return gs
}

func (n *Node) drainOn() {
	d := n.drain
	gs := n.drainNext()
	if len(gs) == 0 {
		n.drainEnd()
		return
	}
	n.heads(gs, func(op *clientHead) {
		open := 1
		end := func() {
			if open--; open > 0 {
				return
			}
			d.done += int64(len(gs))
			n.out = append(n.out, machine.Effect{
				Kind: machine.Note, ID: d.cmd,
				Body: DrainProgress{Blocks: d.total, HandedOver: min(d.done, d.total)},
			})
			n.drainOn()
		}
		for i, g := range gs {
			e := n.tree.get(g)
			if e == nil || !e.have() {
				continue
			}
			holds := make(map[*peer]bool)
			for _, hf := range op.heads[i] {
				if hf.p != n.me && hf.h.state == have {
					holds[hf.p] = true
				}
			}
			k := int(e.k)
			if k == 0 {
				k = n.cfg.K
			}
			others := max(1, min(k, n.m.Count()-1))
			open++
			n.place(g, k, false, func(set, rest []*peer) {
				for _, p := range n.heirs(g, others, set, rest) {
					if holds[p] || len(holds) >= others && e.signed() {
						continue
					}
					if len(holds) >= others {
						break
					}
					holds[p] = true
					open++
					d.sent++
					n.handOver(p, e, func(ok bool) {
						d.again = d.again || !ok
						end()
					})
				}
				if len(holds) < min(others, n.m.Count()-1) {
					d.again = true
				}
				end()
			})
		}
		end()
	})
}

// handOver sends p what this node has under e's name.
func (n *Node) handOver(p *peer, e *entry, f func(ok bool)) {
	if e.signed() {
		n.pushSigned(p, e.guid, f)
		return
	}
	n.push(p, e.guid, RoleReplica, f)
}

func (n *Node) drainEnd() {
	d := n.drain
	if d.again && d.tries < drainPasses && n.m.Count() > 1 {
		d.again, d.cursor, d.upto, d.late, d.done = false, id.GUID{}, id.GUID{}, nil, 0
		d.tries++
		n.later(machine.Second, n.drainOn)
		return
	}
	n.drain = nil
	if d.again && n.m.Count() > 1 {
		n.refuse(d.cmd, &Refusal{Code: CodeUnavailable, Detail: "some blocks could not be handed over"})
		return
	}
	n.reply(d.cmd, DrainDone{HandedOver: d.sent})
}
