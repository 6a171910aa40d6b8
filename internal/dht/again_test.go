package dht

import (
	"testing"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

// TestGetAsksAgain: a read whose questions were all lost, as when the links go and
// come back, is answered in its time.
func TestGetAsksAgain(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	b := block(31, 50_000)
	w.put(w.outsider(b), b)
	w.run(2 * machine.Second)
	start := w.net.Now
	w.net.Drop = func(f machinetest.Flight) bool {
		_, get := f.Msg.(*getMsg)
		return get && w.net.Now.Sub(start) < 8*machine.Second
	}
	w.get(w.outsider(b), b)
	if d := w.net.Now.Sub(start); d > 15*machine.Second {
		t.Errorf("took %d ms", d.Milliseconds())
	}
}

// TestPutAsksAgain: a put to members that were slow, whose first copies are lost,
// is acknowledged before its coordinator is given up.
func TestPutAsksAgain(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	b := block(31, 50_000)
	for _, x := range w.nodes {
		for _, y := range w.nodes {
			p := x.n.peer(y.h)
			for range 20 {
				p.copies(len(b)).sample(25 * machine.Second)
			}
		}
	}
	start := w.net.Now
	w.net.Drop = func(f machinetest.Flight) bool {
		_, is := f.Msg.(*copyMsg)
		return is && w.net.Now.Sub(start) < 2*machine.Second
	}
	w.put(w.nodes[0], b)
	if d := w.net.Now.Sub(start); d > 12*machine.Second {
		t.Errorf("took %d ms", d.Milliseconds())
	}
}
