package pastry

import (
	"errors"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

func TestPresetsAreValid(t *testing.T) {
	for name, c := range map[string]Config{"LAN": LAN(), "WAN": WAN(), "Local": Local(), "Sim": Sim()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*Config){
		"no leaf set":      func(c *Config) { c.LeafSet = 0 },
		"wide leaf set":    func(c *Config) { c.LeafSet = 33 },
		"lease too short":  func(c *Config) { c.Lease = c.Beat },
		"no beat":          func(c *Config) { c.Beat = 0 },
		"hasty eviction":   func(c *Config) { c.EvictAfter = c.ProbeMax },
		"probe clamp":      func(c *Config) { c.ProbeMin = 2 * c.ProbeMax },
		"nothing retained": func(c *Config) { c.Remembered = 0 },
	} {
		c := LAN()
		spoil(&c)
		if c.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func (p *pool) route(from id.GUID, m kbr.Message) {
	m.App = kbr.AppDHT
	p.net.Perform(from, p.nodes[from].Route(p.net.Now, m, nil, nil))
}

func (p *pool) keyOf(root id.GUID) id.GUID {
	for i := 1; ; i++ {
		if k := guidN(-i); p.root(k) == root {
			return k
		}
	}
}

// Every ack is lost: the message is sent again and again, and delivered once.
func TestRootDeliversOnce(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 3)
	p.net.Run(10 * machine.Second)
	from, root := p.order[0], p.order[1]
	sent := 0
	p.net.Drop = func(f machinetest.Flight) bool {
		if h, ok := f.Msg.(*Hop); ok && h.M.App == kbr.AppDHT {
			sent++
		}
		_, ack := f.Msg.(*HopAck)
		return ack
	}
	p.route(from, kbr.Message{Key: p.keyOf(root), Deadline: 3 * machine.Second})
	p.net.Run(5 * machine.Second)
	if got := len(p.apps[root].delivered); got != 1 || sent < 3 {
		t.Fatalf("sent %d times, delivered %d times", sent, got)
	}
	if d := p.apps[from].drops; len(d) != 1 || !errors.Is(d[0], kbr.ErrDeadline) {
		t.Fatalf("the holder was told %v", d)
	}
}

// A dead root is not bypassed before it is evicted; then its message goes to
// the next.
func TestRootIsNotBypassed(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 8)
	p.net.Run(20 * machine.Second)
	dead := p.order[3]
	k := p.keyOf(dead)
	p.net.Kill(dead)
	heir := p.root(k)
	from := p.order[0]
	if from == heir {
		from = p.order[1]
	}
	at := p.net.Now
	p.route(from, kbr.Message{Key: k, Deadline: 20 * machine.Second})
	if !p.net.Until(20*machine.Second, func() bool { return len(p.apps[heir].delivered) == 1 }) {
		t.Fatalf("never delivered\n%s", p.tail())
	}
	if took := p.net.Now.Sub(at); took < p.cfg.EvictAfter {
		t.Fatalf("the root was bypassed after %d ms", took.Milliseconds())
	}
}

// A message on its way by the table is rerouted around a dead hop within an
// RTO, with the same request id.
func TestReroute(t *testing.T) {
	cfg := LAN()
	cfg.LeafSet = 2
	p := newPool(t, cfg)
	p.grow(0, 60)
	p.net.Run(20 * machine.Second)
	from := p.order[0]
	n := p.nodes[from]
	for i := 1; ; i++ {
		m := kbr.Message{Key: guidN(-i), ReqID: kbr.ReqID{1}}
		next, rule, _ := n.NextHop(&m)
		if next == nil || rule != kbr.RuleTable || next.GUID == p.root(m.Key) {
			continue
		}
		p.net.Kill(next.GUID)
		p.route(from, m)
		root := p.root(m.Key)
		if !p.net.Until(2*machine.Second, func() bool { return len(p.apps[root].delivered) == 1 }) {
			t.Fatalf("not delivered around a dead hop\n%s", p.tail())
		}
		if p.apps[root].delivered[0].ReqID != m.ReqID {
			t.Fatal("request id changed on the way")
		}
		return
	}
}

// An owned message at a root without lease waits, and is refused by name at
// its deadline; with the lease it is delivered.
func TestOwnedWaitsForLease(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 3)
	p.net.Run(10 * machine.Second)
	root := p.order[1]
	p.net.Drop = func(f machinetest.Flight) bool {
		switch f.Msg.(type) {
		case *Beat, *BeatAck:
			return true
		}
		return false
	}
	p.net.Run(20 * machine.Second)
	k := p.keyOf(root)
	p.route(root, kbr.Message{Key: k, Class: kbr.Owned, Deadline: 2 * machine.Second})
	p.route(root, kbr.Message{Key: k, Class: kbr.BestEffort, Deadline: 2 * machine.Second})
	p.net.Run(3 * machine.Second)
	a := p.apps[root]
	if len(a.delivered) != 1 || a.delivered[0].Class != kbr.BestEffort {
		t.Fatalf("delivered %d messages without a lease", len(a.delivered))
	}
	if len(a.drops) != 1 || !errors.Is(a.drops[0], kbr.ErrNoLease) {
		t.Fatalf("told %v", a.drops)
	}
	p.route(root, kbr.Message{Key: k, Class: kbr.Owned, Deadline: 20 * machine.Second})
	p.net.Drop = nil
	if !p.net.Until(15*machine.Second, func() bool { return len(a.delivered) == 2 }) {
		t.Fatalf("not delivered when the lease came\n%s", p.tail())
	}
	if !a.owned[1].OK || !a.owned[1].Arc.Contains(k) {
		t.Fatal("delivered without ownership")
	}
}

// A link between two neighbours dies: they stay neighbours, because others
// hear both, and their leases make a detour.
func TestDeadLink(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 6)
	p.net.Run(20 * machine.Second)
	live := p.live()
	a, b := live[0], live[1]
	p.net.Drop = func(f machinetest.Flight) bool {
		return f.From.GUID == a && f.To.GUID == b || f.From.GUID == b && f.To.GUID == a
	}
	p.net.Run(2 * machine.Minute)
	if d := p.diverged(); d != "" {
		t.Fatalf("%s\n%s", d, p.tail())
	}
	owned := 0
	for range 60 {
		p.net.Run(machine.Second)
		if p.nodes[a].Ownership(p.net.Now).OK && p.nodes[b].Ownership(p.net.Now).OK {
			owned++
		}
	}
	if owned < 30 {
		t.Errorf("both owned their ranges in %d of 60 s", owned)
	}
}

// An unknown application is dropped and counted at the root.
func TestUnknownApp(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 1)
	n := p.nodes[p.order[0]]
	n.Route(p.net.Now, kbr.Message{Key: guidN(5), App: 999}, nil, nil)
	if n.drops[dropNoApp] != 1 {
		t.Fatal("not counted")
	}
}

// A hint is the first hop; routing goes on from there.
func TestHint(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 5)
	p.net.Run(10 * machine.Second)
	from, via, root := p.order[0], p.order[1], p.order[2]
	before := p.apps[via].forwards
	m := kbr.Message{Key: p.keyOf(root), App: kbr.AppDHT}
	p.net.Perform(from, p.nodes[from].Route(p.net.Now, m, p.nodes[via].self, nil))
	p.net.Run(machine.Second)
	if p.apps[via].forwards != before+1 || len(p.apps[root].delivered) != 1 {
		t.Fatal("the hint was not taken, or the message was lost")
	}
}

// A pool in the Local preset notices two deaths, and owns everything again,
// within the seconds a demonstration has.
func TestLocalPreset(t *testing.T) {
	p := newPool(t, Local())
	p.grow(0, 8)
	p.net.Run(5 * machine.Second)
	p.net.Kill(p.order[2])
	p.net.Kill(p.order[5])
	at := p.net.Now
	if !p.net.Until(10*machine.Second, p.converged) {
		t.Fatalf("%s\n%s", p.diverged(), p.tail())
	}
	converged := p.net.Now.Sub(at)
	if !p.net.Until(10*machine.Second, func() bool { return p.unowned() == "" }) {
		t.Fatalf("%s\n%s", p.unowned(), p.tail())
	}
	t.Logf("converged after %d ms, all owned after %d ms", converged.Milliseconds(), p.net.Now.Sub(at).Milliseconds())
}
