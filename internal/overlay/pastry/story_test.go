package pastry

import (
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/overlay/ring"
)

// A pool goes from one node to eight within seconds, all joiners at once.
func TestConcurrentJoins(t *testing.T) {
	for _, count := range []int{2, 3, 8, 40} {
		p := newPool(t, LAN())
		p.grow(0, 1)
		seed := p.nodes[p.order[0]].self
		begin := p.net.Now
		for i := 1; i < count; i++ {
			p.start(handle(guidN(i), 1), seed)
		}
		ok := p.net.Until(60*machine.Second, func() bool {
			for _, n := range p.nodes {
				if !n.Ready() {
					return false
				}
			}
			return true
		})
		took := p.net.Now.Sub(begin)
		if !ok {
			t.Fatalf("%d nodes: not ready\n%s", count, p.tail())
		}
		t.Logf("%d nodes ready after %d ms", count, took.Milliseconds())
		if count <= 8 && took > 5*machine.Second {
			t.Errorf("%d nodes took %d ms", count, took.Milliseconds())
		}
		p.net.Run(60 * machine.Second)
		if d := p.diverged(); d != "" {
			t.Fatalf("%d nodes: %s\n%s", count, d, p.tail())
		}
	}
}

func TestCrash(t *testing.T) {
	for _, size := range []int{2, 3, 8, 40, 60} {
		p := newPool(t, LAN())
		p.grow(0, size)
		p.net.Run(20 * machine.Second)
		for kill := 1; kill < size && kill <= 4; kill++ {
			victim := p.order[kill]
			p.net.Kill(victim)
			at := p.net.Now
			if !p.net.Until(60*machine.Second, p.converged) {
				t.Fatalf("size %d: %s\n%s", size, p.diverged(), p.tail())
			}
			t.Logf("size %d: converged %d ms after a crash", size, p.net.Now.Sub(at).Milliseconds())
			// The victim's own key: owned again once all leases have ended.
			root := p.nodes[p.root(victim)]
			if !p.net.Until(60*machine.Second, func() bool { return root.Owns(p.net.Now, victim).OK }) {
				t.Fatalf("size %d: %s never owns the victim's key\n%s", size, root.me.Short(), p.tail())
			}
			t.Logf("size %d: owned %d ms after the crash", size, p.net.Now.Sub(at).Milliseconds())
		}
	}
}

func TestLossyJoins(t *testing.T) {
	p := newPool(t, LAN())
	rnd := machine.NewRand(7, id.GUID{}, "loss")
	p.net.Delay = 40 * machine.Millisecond
	p.net.Drop = func(machinetest.Flight) bool { return rnd.IntN(100) < 5 }
	var took []int64
	for i := range 60 {
		h := handle(guidN(i), 1)
		var seed *id.Handle
		if i > 0 {
			seed = p.nodes[p.order[0]].self
		}
		at := p.net.Now
		n := p.start(h, seed)
		if !p.net.Until(60*machine.Second, n.Ready) {
			t.Fatalf("node %d is %s\n%s", i, n.State(), p.tail())
		}
		took = append(took, p.net.Now.Sub(at).Milliseconds())
	}
	t.Logf("joins took %v ms", took)
	if !p.net.Until(60*machine.Second, p.converged) {
		t.Fatalf("%s\n%s", p.diverged(), p.tail())
	}
	sent := 0
	for i := range 300 {
		k := guidN(100000 + i)
		from := p.order[i%len(p.order)]
		p.net.Perform(from, p.nodes[from].Route(p.net.Now, kbr.Message{Key: k, App: kbr.AppDHT, Class: kbr.Owned}, nil, nil))
		sent++
		p.net.Run(100 * machine.Millisecond)
	}
	p.net.Run(15 * machine.Second)
	got := 0
	for g, a := range p.apps {
		for _, m := range a.delivered {
			if p.root(m.Key) != g {
				t.Errorf("wrong root for %s", m.Key.Short())
			}
			got++
		}
	}
	if got != sent {
		t.Errorf("%d of %d delivered", got, sent)
	}
}

// A leaf that a joiner asks just before it is ready hears at once, too, that it
// is: the answer to that question does not settle it.
func TestJoinerToldAsItGetsReady(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 20)
	p.net.Run(20 * machine.Second)
	n := p.start(handle(guidN(20), 1), p.nodes[p.order[0]].self)
	if !p.net.Until(5*machine.Second, func() bool { return n.armed(tJoined, 0) }) {
		t.Fatalf("never settled\n%s", p.tail())
	}
	outer := n.enter(p.net.Now, nil)
	for _, m := range n.leaf.All() {
		n.ask(m.Ref)
	}
	p.net.Perform(n.me, n.leave(outer))
	if p.net.Run(machine.Second); p.diverged() != "" {
		t.Fatalf("%s\n%s", p.diverged(), p.tail())
	}
}

// A leaf that slept while a joiner asked it, until the joiner gave up and became
// ready, answers as it wakes what the joiner said as such: it is told anew.
func TestJoinerToldToWhoSlept(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 20)
	p.net.Run(20 * machine.Second)
	x, slept := guidN(20), p.order[7]
	var late []machinetest.Flight
	p.net.Drop = func(f machinetest.Flight) bool {
		if f.To.GUID == slept && f.From.GUID == x {
			late = append(late, f)
		}
		return f.To.GUID == slept
	}
	n := p.start(handle(x, 1), p.nodes[p.order[0]].self)
	if !p.net.Until(10*machine.Second, n.Ready) {
		t.Fatalf("never ready\n%s", p.tail())
	}
	for _, f := range late { // before those who think it dead find it again
		if m, ok := f.Msg.(*LSProbe); ok && !m.Ready {
			p.net.Feed(slept, machine.Event{Kind: machine.Receive, From: f.From, Msg: m})
		}
	}
	p.net.Drop = nil
	if p.net.Run(machine.Second); !p.nodes[slept].leaf.Has(x) {
		t.Fatalf("%s lacks the joiner\n%s", slept.Short(), p.tail())
	}
}

// Who has rebooted and not joined again answers no question for a row, and is
// in nobody's leaf set or table.
func TestJoinerTellsNoRow(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 6)
	p.net.Run(20 * machine.Second)
	g, asker := p.order[2], p.nodes[p.order[0]]
	p.net.Drop = func(f machinetest.Flight) bool { _, join := f.Msg.(*Join); return join }
	n := p.add(handle(g, 2))
	p.net.Perform(g, n.Start(p.net.Now, []*id.Handle{asker.self}, nil, false, nil))
	outer := asker.enter(p.net.Now, nil)
	asker.send(asker.peers.find(g), &RowReq{P: 0})
	p.net.Perform(asker.me, asker.leave(outer))
	p.net.Run(machine.Second)
	if r := asker.peer(asker.peers.find(g)); n.Ready() || r.h.Epoch != 2 || r.flags&(fReady|fLeaf|fTable) != 0 {
		t.Fatalf("%s counts: %+v\n%s", n.State(), r, p.tail())
	}
}

// A joiner takes its leases from the acks of its neighbours: the ring owns
// every key again at once.
func TestJoinerOwnsAtOnce(t *testing.T) {
	for size := 1; size <= 4; size++ {
		p := newPool(t, LAN())
		p.grow(0, size)
		p.net.Run(10 * machine.Second)
		if s := p.unowned(); s != "" {
			t.Errorf("size %d: %s\n%s", size, s, p.tail())
		}
		n := p.start(handle(guidN(size), 1), p.nodes[p.order[0]].self)
		if !p.net.Until(machine.Second, func() bool { return n.Ready() && n.Ownership(p.net.Now).OK }) {
			t.Errorf("size %d: joiner owns nothing\n%s", size, p.tail())
		}
		p.net.Run(20 * machine.Millisecond)
		if s := p.unowned(); s != "" {
			t.Errorf("size %d after a join: %s\n%s", size, s, p.tail())
		}
	}
}

// A leave leaves no gap: leases are returned, and neighbours meet at once.
func TestLeave(t *testing.T) {
	for size := 2; size <= 5; size++ {
		p := newPool(t, LAN())
		p.grow(0, size)
		p.net.Run(20 * machine.Second)
		g := p.order[1]
		p.net.Perform(g, p.nodes[g].Leave(p.net.Now, nil))
		if !p.net.Until(10*machine.Second, func() bool { return p.nodes[g].State() == Left }) {
			t.Fatal("never left")
		}
		if d := p.diverged(); d != "" {
			t.Errorf("size %d: %s", size, d)
		}
		if s := p.unowned(); s != "" {
			t.Errorf("size %d: %s\n%s", size, s, p.tail())
		}
	}
}

// A goodbye takes a node out of everybody's leaf set and table within a round
// trip. Its keys, asked for at that moment, reach the nodes that own them then,
// and nobody is suspected on the way. The node comes back as after a crash.
func TestGoodbye(t *testing.T) {
	for _, size := range []int{2, 3, 4, 33, 34, 80} {
		p := newPool(t, WAN()) // a crash is noticed by the beats after 75 s
		p.grow(0, size)
		p.net.Run(3 * machine.Minute) // leases of the idle period
		g := p.order[1]
		gone := p.nodes[g]
		hadIt := func(table bool) (have int) {
			for _, o := range p.live() {
				if r := p.nodes[o].peers.find(g); o != g && r != 0 {
					if f := p.nodes[o].peer(r).flags; !table && f&fLeaf != 0 || table && f&(fTable|fLeaf) == fTable {
						have++
					}
				}
			}
			return have
		}
		if size == 80 && hadIt(true) == 0 {
			t.Fatal("nobody has the node in its table alone: nothing to see")
		}
		p.log = nil
		for i := range 40 {
			k := g
			k[id.Size-1] ^= byte(i)
			from := p.order[(2+i)%size]
			if from == g {
				from = p.order[0]
			}
			if i == 20 {
				p.net.Perform(g, gone.Leave(p.net.Now, nil))
			}
			p.net.Perform(from, p.nodes[from].Route(p.net.Now, kbr.Message{Key: k, App: kbr.AppDHT, Class: kbr.Owned}, nil, nil))
		}
		own := len(p.apps[g].delivered)
		p.net.Run(2 * p.net.Delay)
		if l, tb := hadIt(false), hadIt(true); l+tb > 0 {
			t.Errorf("size %d: a round trip after the goodbye %d have it for a leaf, %d in the table\n%s", size, l, tb, p.tail())
		}
		limit := p.net.Now.Add(10 * machine.Second)
		two := ""
		agree := func() bool { two += p.twoOwners(); return p.converged() && p.unowned() == "" }
		if !p.net.Until(10*machine.Second, func() bool { agree(); return gone.State() == Left }) {
			t.Fatalf("size %d: never left", size)
		}
		p.net.Kill(g)
		if !p.net.Until(limit.Sub(p.net.Now), agree) {
			t.Errorf("size %d: %s, %s\n%s", size, p.diverged(), p.unowned(), p.tail())
		}
		p.net.Run(10 * machine.Second)
		got := 0
		for o, a := range p.apps {
			got += len(a.delivered)
			if o == g && len(a.delivered) > own {
				t.Errorf("size %d: %d delivered to the node after its goodbye", size, len(a.delivered)-own)
			}
		}
		if got != 40 {
			t.Errorf("size %d: %d of 40 delivered\n%s", size, got, p.tail())
		}
		for _, l := range p.log {
			if strings.Contains(l, "pastry.suspect") || strings.Contains(l, "pastry.evict") {
				t.Errorf("size %d: %s", size, l)
			}
		}
		back := p.add(handle(g, 2))
		p.net.Perform(g, back.Start(p.net.Now, []*id.Handle{p.nodes[p.order[0]].self}, p.saved[g], false, nil))
		if !p.net.Until(20*machine.Second, agree) || two != "" {
			t.Errorf("size %d: not back: %s, %s, %s\n%s", size, p.diverged(), p.unowned(), two, p.tail())
		}
	}
}

// A partition in two halves, longer than any lease, heals within a minute.
func TestPartitionHeals(t *testing.T) {
	for _, size := range []int{2, 3, 8, 50} {
		p := newPool(t, LAN())
		p.grow(0, size)
		p.net.Run(20 * machine.Second)
		half := map[id.GUID]bool{}
		for i, g := range p.order {
			half[g] = i%2 == 0
		}
		p.net.Drop = func(f machinetest.Flight) bool { return half[f.From.GUID] != half[f.To.GUID] }
		p.net.Run(120 * machine.Second)
		for g, n := range p.nodes {
			for _, l := range n.leaf.All() {
				if half[l.GUID] != half[g] {
					t.Fatalf("size %d: %s still has %s from the other side", size, g.Short(), l.GUID.Short())
				}
			}
		}
		p.net.Drop = nil
		at := p.net.Now
		if !p.net.Until(60*machine.Second, p.converged) {
			t.Fatalf("size %d: %s\n%s", size, p.diverged(), p.tail())
		}
		t.Logf("size %d: one ring %d ms after the partition", size, p.net.Now.Sub(at).Milliseconds())
		p.net.Run(20 * machine.Second)
		if s := p.twoOwners() + p.unowned(); s != "" {
			t.Errorf("size %d: %s", size, s)
		}
	}
}

// A node evicted by error, because it was frozen, is a neighbour again soon
// after it wakes, without a new join.
func TestFrozenNodeReturns(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 6)
	p.net.Run(20 * machine.Second)
	g := p.order[2]
	p.net.Drop = func(f machinetest.Flight) bool { return f.From.GUID == g || f.To.GUID == g }
	p.net.Run(30 * machine.Second)
	for _, o := range p.order {
		if o != g && p.nodes[o].leaf.Has(g) {
			t.Fatalf("%s did not evict the frozen node", o.Short())
		}
	}
	p.net.Drop = nil
	if !p.net.Until(30*machine.Second, p.converged) {
		t.Fatalf("%s\n%s", p.diverged(), p.tail())
	}
	if p.nodes[g].state != Ready {
		t.Fatal("it became unready")
	}
}

// All eight nodes die at once and start again with their tables: one ring,
// without anybody's help.
func TestColdRestart(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 8)
	p.net.Run(120 * machine.Second)
	for i, g := range p.order {
		n := p.add(handle(g, 2))
		p.net.Perform(g, n.Start(p.net.Now, nil, p.saved[g], i == 0, nil))
	}
	at := p.net.Now
	if !p.net.Until(60*machine.Second, p.converged) {
		t.Fatalf("%s\n%s", p.diverged(), p.tail())
	}
	t.Logf("one ring %d ms after a cold restart", p.net.Now.Sub(at).Milliseconds())
	if !p.net.Until(60*machine.Second, func() bool { return p.unowned() == "" }) {
		t.Fatalf("%s\n%s", p.unowned(), p.tail())
	}
	t.Logf("all owned %d ms after a cold restart", p.net.Now.Sub(at).Milliseconds())
}

// A restarted member alone serves best-effort after AloneAfter, the owned
// class after one lease.
func TestRestartedAlone(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 3)
	p.net.Run(90 * machine.Second)
	g := p.order[1]
	for _, o := range p.order {
		p.net.Kill(o)
	}
	n := p.add(handle(g, 2))
	at := p.net.Now
	p.net.Perform(g, n.Start(at, nil, p.saved[g], false, nil))
	if !p.net.Until(10*machine.Second, n.Ready) {
		t.Fatalf("not ready\n%s", p.tail())
	}
	if took := p.net.Now.Sub(at); took < p.cfg.AloneAfter || took > 3*p.cfg.AloneAfter {
		t.Errorf("ready after %d ms", took.Milliseconds())
	}
	if n.Owns(p.net.Now, g).OK {
		t.Error("owns before its grants have lapsed")
	}
	p.net.Run(p.cfg.Lease)
	if !n.Owns(p.net.Now, g).OK {
		t.Errorf("owns nothing after a lease\n%s", p.tail())
	}
}

// A creator that remembers nobody is ready and owns everything at once.
func TestCreator(t *testing.T) {
	p := newPool(t, LAN())
	n := p.start(handle(guidN(0), 1), nil)
	if !n.Ready() || !n.Owns(0, guidN(9)).OK || n.Estimate() != 1 {
		t.Fatal("a creator is not ready at once")
	}
	if set, ok := n.ReplicaSet(guidN(9), 3); !ok || len(set) != 1 || set[0] != n.self {
		t.Fatal("its replica set is not itself")
	}
	if arc, ok := n.Range(n.me, 3); !ok || !arc.IsFull() {
		t.Fatal("its range is not the whole ring")
	}
}

func TestForget(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 5)
	p.net.Run(10 * machine.Second)
	bad := p.order[2]
	for _, g := range p.order {
		if g != bad {
			p.net.Perform(g, p.nodes[g].Forget(p.net.Now, bad, nil))
		}
	}
	p.net.Run(5 * machine.Minute)
	for _, g := range p.order {
		if g != bad && (p.nodes[g].leaf.Has(bad) || p.nodes[g].Lookup(bad) != nil || p.nodes[g].leaf.Len() != 3) {
			t.Fatalf("%s has the revoked node, or lost another", g.Short())
		}
	}
	// Nor may it come back with a new boot.
	n := p.start(handle(bad, 2), p.nodes[p.order[0]].self)
	p.net.Run(30 * machine.Second)
	if n.Ready() {
		t.Fatal("a revoked node was readmitted")
	}
}

// A beat that arrives three seconds late brings a lease that is three seconds
// shorter, because it is counted from the nonce it echoes; counted from
// receipt it would outlast the granter's promise.
func TestLateBeat(t *testing.T) {
	for _, bug := range []bool{false, true} {
		cfg := LAN()
		cfg.Bugs.LeaseFromReceipt = bug
		p := newPool(t, cfg)
		p.grow(0, 3)
		p.net.Run(20 * machine.Second)
		g, x := p.order[0], p.order[1]
		granter, holder := p.nodes[g], p.nodes[x]
		var late *machinetest.Flight
		p.net.Drop = func(f machinetest.Flight) bool {
			cut := f.To.GUID == x || f.From.GUID == x
			var b BeatBody
			switch m := f.Msg.(type) {
			case *Beat:
				b = m.BeatBody
			case *BeatAck:
				b = m.BeatBody
			}
			if cut && f.From.GUID == g && b.Grant > 0 && late == nil {
				late = &f
				return true
			}
			return cut && late != nil
		}
		p.net.Until(10*machine.Second, func() bool { return late != nil })
		p.net.Run(3 * machine.Second)
		p.net.Feed(x, machine.Event{Kind: machine.Receive, From: late.From, Msg: late.Msg})
		var promise machine.Time
		for _, s := range ring.Sides {
			for _, o := range granter.ledger.Outstanding(0, s) {
				if o.Peer == x {
					promise = max(promise, o.Until)
				}
			}
		}
		outlasts := false
		for _, s := range ring.Sides {
			if h := holder.ledger.Held(s); h.Peer == g && h.Until > promise {
				outlasts = true
			}
		}
		if outlasts != bug {
			t.Errorf("LeaseFromReceipt %v: lease outlasts the promise: %v", bug, outlasts)
		}
	}
}

// Who returns a lease is not given the next at once, as two nodes that are not of
// one mind about their neighbours would never fall silent. It has one again soon.
func TestReturnedLeaseRests(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 3)
	p.net.Run(20 * machine.Second)
	n := p.nodes[p.order[0]]
	for _, s := range ring.Sides {
		r := n.peer(n.nb[s]).h
		ack := &BeatAck{BeatBody{Nonce: 1, Hold: noEcho, Flags: beatReady | backFlag(s.Other()), Back: n.grants}}
		out := n.Step(p.net.Now, machine.Event{Kind: machine.Receive, From: r, Msg: ack}, nil)
		for _, e := range out {
			if b, ok := e.Msg.(*Beat); ok && e.To == r {
				t.Errorf("given lease %d as soon as it returned one", b.Seq)
			}
		}
		p.net.Perform(n.me, out)
	}
	p.net.Run(20 * machine.Second)
	if s := p.unowned(); s != "" {
		t.Error(s)
	}
}
