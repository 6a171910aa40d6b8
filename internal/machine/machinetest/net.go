// Package machinetest drives a few machines by hand in tests: a tiny network
// with a queue one can look into, drop from and step through. The simulator
// (package sim) is for many machines and for faults; this is for stories of a
// page.
package machinetest

import (
	"fmt"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// Flight is a message under way.
type Flight struct {
	From, To *id.Handle
	Msg      machine.Message
	Due      machine.Time
	seq      int
}

// Net joins machines. Delay applies to every message; Drop, if set, decides
// what is lost; Other, if set, gets all effects that are not a Send (with the
// machine's GUID) and may return the Done event to feed back at once.
type Net struct {
	Now    machine.Time
	Delay  machine.Duration
	Drop   func(Flight) bool
	Other  func(at id.GUID, e machine.Effect) (machine.Event, bool)
	Decode func([]byte) (machine.Message, error) // set: every message crosses the codec

	Sent int // messages sent between different machines

	nodes map[id.GUID]*member
	order []id.GUID
	queue []Flight
	seq   int
}

type member struct {
	h    *id.Handle
	m    machine.Machine
	dead bool
}

// Add puts a machine on the network.
func (n *Net) Add(h *id.Handle, m machine.Machine) {
	if n.nodes == nil {
		n.nodes = make(map[id.GUID]*member)
	}
	if _, ok := n.nodes[h.GUID]; !ok {
		n.order = append(n.order, h.GUID)
	}
	n.nodes[h.GUID] = &member{h: h, m: m}
}

// Kill removes a machine without a word; messages to it vanish.
func (n *Net) Kill(g id.GUID) { n.nodes[g].dead = true }

// Alive reports whether g is on the network and not killed.
func (n *Net) Alive(g id.GUID) bool { m := n.nodes[g]; return m != nil && !m.dead }

// Feed gives an event to a machine now and performs its effects.
func (n *Net) Feed(g id.GUID, ev machine.Event) {
	m := n.nodes[g]
	if m == nil || m.dead {
		return
	}
	ev.Wall = int64(n.Now) / 1000
	n.Perform(g, m.m.Step(n.Now, ev, nil))
}

// Perform carries out effects on behalf of the machine g: for effects that a
// test obtained by calling a method of the machine directly.
func (n *Net) Perform(g id.GUID, effects []machine.Effect) {
	m := n.nodes[g]
	for _, e := range effects {
		if e.Kind != machine.Send {
			if n.Other != nil {
				if ev, ok := n.Other(g, e); ok {
					n.Feed(g, ev)
				}
			}
			continue
		}
		n.seq++
		f := Flight{From: m.h, To: e.To, Msg: n.cross(e.Msg), Due: n.Now, seq: n.seq}
		if e.To.GUID != g {
			f.Due = n.Now.Add(n.Delay)
			n.Sent++
			if n.Drop != nil && n.Drop(f) {
				continue
			}
		}
		n.queue = append(n.queue, f)
	}
}

func (n *Net) cross(m machine.Message) machine.Message {
	if n.Decode == nil {
		return m
	}
	var w wire.Writer
	machine.AppendMessage(&w, m)
	d, err := n.Decode(w.B)
	if err != nil {
		panic(fmt.Sprintf("machinetest: own message %T does not decode: %v", m, err))
	}
	return d
}

// next returns the index of the next message, or the machine whose Tick comes
// first, or false if nothing is due by until.
func (n *Net) step(until machine.Time) bool {
	due, fi := machine.Never, -1
	for i, f := range n.queue {
		if f.Due < due || f.Due == due && f.seq < n.queue[fi].seq {
			due, fi = f.Due, i
		}
	}
	var ticker id.GUID
	tick := false
	for _, g := range n.order {
		if m := n.nodes[g]; !m.dead && m.m.Wake() < due {
			due, ticker, tick = m.m.Wake(), g, true
		}
	}
	if due > until || due == machine.Never {
		return false
	}
	n.Now = max(n.Now, due)
	if tick {
		n.Feed(ticker, machine.Event{Kind: machine.Tick})
		return true
	}
	f := n.queue[fi]
	n.queue = slices.Delete(n.queue, fi, fi+1)
	n.Feed(f.To.GUID, machine.Event{Kind: machine.Receive, From: f.From, Msg: f.Msg})
	return true
}

// Run lets d of virtual time pass.
func (n *Net) Run(d machine.Duration) {
	until := n.Now.Add(d)
	for n.step(until) {
	}
	n.Now = until
}

// Until runs until cond holds, for at most d; it reports whether it did.
func (n *Net) Until(d machine.Duration, cond func() bool) bool {
	until := n.Now.Add(d)
	for !cond() {
		if !n.step(until) {
			n.Now = until
			return cond()
		}
	}
	return true
}
