package dht

import (
	"slices"

	"atoll.example/atoll/internal/machine"
)

// call is a question to a peer that waits for its one answer.
type call struct {
	to    *peer // nil: anybody may answer (Locate)
	alarm uint64
	wait  machine.Duration
	until machine.Time // for Working: not beyond
	f     func(from *peer, m machine.Message)
}

// ask sends p a question and calls f once: with the answer, or with nil when
// timeout has passed or p is evicted. It returns the number of the question,
// for forget.
func (n *Node) ask(p *peer, timeout machine.Duration, q func(req uint64) machine.Message, f func(p *peer, m machine.Message)) uint64 {
	return n.askUntil(p, timeout, 0, q, f)
}

// askUntil is ask with a peer that may, until then, ask for patience.
func (n *Node) askUntil(p *peer, timeout machine.Duration, until machine.Time, q func(req uint64) machine.Message, f func(p *peer, m machine.Message)) uint64 {
	n.seq++
	req := n.seq
	c := &call{to: p, f: f, wait: timeout, until: until}
	c.alarm = n.later(timeout, func() { n.expire(req) })
	n.calls[req] = c
	if p != nil {
		n.send(p, q(req))
	}
	return req
}

// expire ends a question without an answer.
func (n *Node) expire(req uint64) {
	if c, ok := n.calls[req]; ok {
		delete(n.calls, req)
		c.f(c.to, nil)
	}
}

// extend: the peer says that it is at work.
func (n *Node) extend(p *peer, req uint64) {
	c, ok := n.calls[req]
	if !ok || c.to != p || n.now.Add(c.wait) > c.until {
		return
	}
	n.cancel(c.alarm)
	c.alarm = n.later(c.wait, func() { n.expire(req) })
}

func (n *Node) answer(p *peer, req uint64, m machine.Message) {
	c, ok := n.calls[req]
	if !ok {
		return // late: answered, given up, or of an earlier life
	}
	if c.to != nil && c.to != p {
		n.strike(p, "answer to a question put to another")
		return
	}
	n.forget(req)
	p.fails, p.suspect = 0, 0
	c.f(p, m)
}

// forget gives a question up without calling its function.
func (n *Node) forget(req uint64) {
	if c, ok := n.calls[req]; ok {
		n.cancel(c.alarm)
		delete(n.calls, req)
	}
}

// abandon fails the questions to an evicted peer.
func (n *Node) abandon(p *peer) {
	var reqs []uint64
	for req, c := range n.calls {
		if c.to == p {
			reqs = append(reqs, req)
		}
	}
	slices.Sort(reqs)
	for _, req := range reqs {
		if c, ok := n.calls[req]; ok {
			n.forget(req)
			c.f(p, nil)
		}
	}
}

func (n *Node) send(p *peer, m machine.Message) {
	n.out = append(n.out, machine.Effect{Kind: machine.Send, To: p.h, Msg: m, Bulk: bulky(m)})
}

func bulky(m machine.Message) bool {
	switch m := m.(type) {
	case *putMsg:
		return len(m.block) > bulkFrom
	case *copyMsg:
		return len(m.block) > bulkFrom
	case *blockMsg:
		return len(m.block) > bulkFrom
	case *putSignedMsg:
		return m.rec.size() > bulkFrom
	case *signedIsMsg:
		n := 0
		for i := range m.recs {
			n += m.recs[i].size()
		}
		return n > bulkFrom
	case *offerMsg:
		n := 0
		for i := range m.items {
			n += m.items[i].size()
		}
		return n > bulkFrom
	}
	return false
}

// later calls f after d; the number it returns serves cancel.
func (n *Node) later(d machine.Duration, f func()) uint64 {
	n.seq++
	n.alarms[n.seq] = f
	n.timers.Set(n.seq, n.now.Add(max(d, 1)))
	return n.seq
}

func (n *Node) cancel(alarm uint64) {
	if _, ok := n.alarms[alarm]; ok {
		delete(n.alarms, alarm)
		n.timers.Stop(alarm)
	}
}
