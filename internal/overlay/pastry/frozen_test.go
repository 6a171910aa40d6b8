package pastry

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/overlay/ring"
)

// sleeper is a node whose process can be frozen: what comes meanwhile waits,
// and timers fire late.
type sleeper struct {
	*Node
	until machine.Time // frozen until then, 0: awake
	inbox []machine.Event
}

func (s *sleeper) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if s.until == 0 {
		return s.Node.Step(now, ev, out)
	}
	if ev.Kind != machine.Tick {
		s.inbox = append(s.inbox, ev)
		return out
	}
	s.until = 0
	for _, ev := range s.inbox {
		out = s.Node.Step(now, ev, out)
	}
	s.inbox = nil
	return s.Node.Step(now, ev, out)
}

func (s *sleeper) Wake() machine.Time {
	if s.until != 0 {
		return s.until
	}
	return s.Node.Wake()
}

// Three neighbours in a row wake up, hear each other at once and everybody else
// three seconds late. Meanwhile those on both sides of them have each other's
// leases: the one in the middle must not own its arc on the word of two that
// own nothing.
func TestWokenNeighbours(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 9)
	p.net.Run(machine.Minute)
	woken := map[id.GUID]bool{}
	until := p.net.Now.Add(40 * machine.Second)
	for _, g := range p.live()[3:6] {
		woken[g] = true
		p.net.Add(p.nodes[g].self, &sleeper{Node: p.nodes[g], until: until})
	}
	var late []machinetest.Flight
	p.net.Drop = func(f machinetest.Flight) bool {
		if p.net.Now < until || woken[f.From.GUID] == woken[f.To.GUID] {
			return false
		}
		late = append(late, f)
		return true
	}
	fault := ""
	check := func() bool {
		late = p.feedLate(late)
		fault = p.twoOwners()
		return fault != ""
	}
	if p.net.Until(46*machine.Second, check) {
		t.Fatalf("two owners: %s\n%s", fault, p.tail())
	}
	p.net.Drop = nil
	if p.net.Until(machine.Minute, check) {
		t.Fatalf("two owners: %s\n%s", fault, p.tail())
	}
	if why := p.diverged() + p.unowned(); why != "" {
		t.Fatalf("not converged: %s\n%s", why, p.tail())
	}
}

// A node grants to the one beyond a dead neighbour only when no lease can be
// left that the dead one gave or got while it was last heard.
func TestLeasesOfTheDeadLapse(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 6)
	p.net.Run(machine.Minute)
	live := p.live()
	a, x, r := p.nodes[live[1]], p.nodes[live[2]], p.nodes[live[3]]
	granted := func(to id.GUID) (until machine.Time) {
		for _, g := range a.ledger.Outstanding(p.net.Now, ring.Right) {
			if g.Peer == to {
				until = g.Until
			}
		}
		return until
	}
	old := granted(x.me)
	p.net.Until(10*machine.Second, func() bool { return granted(x.me) > old })
	p.net.Run(2 * machine.Second)
	p.net.Feed(a.me, machine.Event{Kind: machine.Receive, From: x.self, Msg: &Probe{Nonce: 1}})
	heard, promise := p.net.Now, granted(x.me)
	p.net.Kill(x.me)
	if !p.net.Until(machine.Minute, func() bool { return granted(r.me) > 0 }) {
		t.Fatalf("no lease for the next neighbour\n%s", p.tail())
	}
	if end := heard.Add(p.cfg.Lease); p.net.Now < end || promise >= end {
		t.Errorf("granted at %d, leases of the dead may run until %d; our own grant to it ended at %d", p.net.Now, end, promise)
	}
}
