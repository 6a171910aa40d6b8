package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// HeadCmd asks how many copies there are of up to 256 blocks. The answer is a
// []Presence in the same order.
type HeadCmd struct{ GUIDs []id.GUID }

// Presence is what is known of one block.
type Presence struct {
	GUID   id.GUID
	Copies int // holders that answered, and those the set knows elsewhere
	InSet  int // of these, members of the set
	Target int // copies the pool keeps
	Size   uint32
	Seq    uint64 // of a signed block
	Sure   bool   // the whole set answered
}

const headTimeout = 2 * machine.Second

// clientHead is one HeadCmd under way.
type clientHead struct {
	n      *Node
	out    []Presence
	others []int
	heads  [][]headFrom
	asked  []int // nodes asked per block
	open   int
	f      func(*clientHead)
}

type headFrom struct {
	p *peer
	h head
}

func (n *Node) cmdHead(cmd uint64, c HeadCmd) {
	if len(c.GUIDs) > maxHead {
		n.refuse(cmd, &Refusal{Code: CodeBadRequest, Detail: "at most 256 GUIDs in one question"})
		return
	}
	n.heads(c.GUIDs, func(op *clientHead) { n.reply(cmd, op.out) })
}

// heads asks the set of each GUID and calls f once when all have answered or
// the time is over.
func (n *Node) heads(gs []id.GUID, f func(*clientHead)) {
	op := &clientHead{
		n: n, f: f,
		out:    make([]Presence, len(gs)),
		others: make([]int, len(gs)),
		heads:  make([][]headFrom, len(gs)),
		asked:  make([]int, len(gs)),
		open:   1,
	}
	per := make(map[*peer][]int)
	var order []*peer
	left := len(gs)
	for i, g := range gs {
		op.out[i] = Presence{GUID: g, Target: n.kEff(0)}
		n.place(g, 0, false, func(set, rest []*peer) {
			e := n.tree.get(g)
			ask := set
			if e != nil {
				n.each(e.holders&n.live, func(p *peer) {
					if !slices.Contains(ask, p) {
						ask = append(slices.Clip(ask), p)
					}
				})
			}
			op.asked[i] = len(ask)
			for _, p := range ask {
				if per[p] == nil {
					order = append(order, p)
				}
				per[p] = append(per[p], i)
			}
			if left--; left == 0 {
				for _, p := range order {
					op.ask(p, gs, per[p])
				}
				op.ended()
			}
		})
	}
	if len(gs) == 0 {
		op.ended()
	}
}

func (op *clientHead) ask(p *peer, gs []id.GUID, which []int) {
	n := op.n
	q := make([]id.GUID, len(which))
	for j, i := range which {
		q[j] = gs[i]
	}
	op.open++
	n.ask(p, headTimeout, func(req uint64) machine.Message {
		return &headMsg{req: req, guids: q}
	}, func(p *peer, m machine.Message) {
		if ack, ok := m.(*headAckMsg); ok && len(ack.heads) == len(which) {
			for j, i := range which {
				op.heads[i] = append(op.heads[i], headFrom{p, ack.heads[j]})
			}
		} else if m == nil {
			n.silent(p)
		}
		op.ended()
	})
}

func (op *clientHead) ended() {
	if op.open--; op.open > 0 {
		return
	}
	for i := range op.out {
		o := &op.out[i]
		others := 0
		for _, hf := range op.heads[i] {
			h := hf.h
			if h.state == have {
				o.Copies++
				if h.inSet {
					o.InSet++
				}
				o.Size, o.Seq = max(o.Size, h.size), max(o.Seq, h.seq)
			}
			others = max(others, int(h.others))
		}
		out := 0
		for _, hf := range op.heads[i] {
			if hf.h.state == have && !hf.h.inSet {
				out++
			}
		}
		o.Copies += max(0, others-out)
		o.Sure = op.asked[i] > 0 && len(op.heads[i]) == op.asked[i]
	}
	op.f(op)
}
