package dht

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// A node that is to stop ends the put it coordinates, and declines the next,
// which another member of the set coordinates at once.
func TestStop(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	first := block(1, 500)
	x := w.set(first)[0]
	next := block(2, 500)
	for i := uint64(3); w.set(next)[0] != x; i++ {
		next = block(i, 500)
	}
	client := w.nodes[0]
	for i := 1; client == x; i++ {
		client = w.nodes[i]
	}
	w.lag = func(id.GUID, machine.Effect) machine.Duration { return 100 * machine.Millisecond }
	put := w.start(client, w.putCmd(first, 1))
	w.run(20 * machine.Millisecond)
	stop := w.start(x, StopCmd{})
	second := w.start(client, w.putCmd(next, 1))
	w.run(20 * machine.Millisecond)
	if w.replies[stop] != nil {
		t.Error("ready to stop while a put waits for it")
	}
	w.run(200 * machine.Millisecond)
	for what, cmd := range map[string]uint64{"put under way": put, "put that came after": second, "stop": stop} {
		if r := w.replies[cmd]; r == nil || r.Err != nil {
			t.Errorf("%s: %v", what, r)
		}
	}
	if n := x.n.stats.Refused.Other; n != 1 {
		t.Errorf("declined %d puts, want 1", n)
	}
	if n := w.stats().Strikes; n != 0 {
		t.Errorf("%d strikes among honest nodes", n)
	}
	idle := w.start(x, StopCmd{})
	w.run(machine.Millisecond)
	if r := w.replies[idle]; r == nil || r.Err != nil {
		t.Errorf("nothing under way: %v", r)
	}
}

// A node too busy for commands can be stopped still.
func TestStopUnderLoad(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	x := w.nodes[0]
	x.n.cfg.MaxOps = 0
	if _, err := w.do(x, StopCmd{}); err != nil {
		t.Fatal(err)
	}
	if !x.n.stopping {
		t.Error("not stopping")
	}
}
