package pastry

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
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
