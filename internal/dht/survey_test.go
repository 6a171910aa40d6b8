package dht

import (
	"slices"
	"testing"

	"atoll.example/atoll/internal/machine"
)

// TestSurveyAsksFirst: a leader that has heard of one copy alone, as after a put
// that another member coordinated, asks before it says that a block is below the
// write quorum: no monitor is called by a put.
func TestSurveyAsksFirst(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	b := block(1, 1000)
	w.put(w.nodes[0], b)
	w.run(w.nodes[0].n.cfg.Round)
	n := w.set(b)[0].n
	g := GUIDOf(b)
	e, a := n.tree.get(g), n.arcOf(g)
	e.holders, e.flags = 0, e.flags&^flagAsked
	a.tally = tally{}
	n.assess(a, e)
	if a.tally != (tally{blocks: 1, degraded: 1}) {
		t.Errorf("nobody was asked: %+v", a.tally)
	}
	e.flags |= flagAsked
	a.tally = tally{}
	n.assess(a, e)
	if a.tally != (tally{blocks: 1, belowW: 1}) {
		t.Errorf("all were asked: %+v", a.tally)
	}
}

// TestFullLeaderIsCounted: what a full member leads and does not store is counted
// all the same, within seconds, wherever the survey is asked for.
func TestFullLeaderIsCounted(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	w.run(machine.Minute)
	w.nodes[2].limit = 1
	const blocks = 60
	for i := range blocks {
		w.put(w.nodes[i%2], block(uint64(i), 1000))
	}
	w.run(10 * machine.Second)
	for _, x := range w.nodes {
		if s := w.survey(x); s.Total.Blocks != blocks || s.Total.Degraded != blocks {
			t.Errorf("%d blocks counted, %d of them short, of %d", s.Total.Blocks, s.Total.Degraded, blocks)
		}
	}
}

// TestRoomAgain: a member that was full makes room. What it refused is brought to
// it as soon as it says so, not after the minute for which it is spared. One whose
// disk refuses what its figures have room for is spared.
func TestRoomAgain(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	w.run(machine.Minute)
	x, b := w.nodes[2], block(1, 1000)
	for seed := uint64(2000); w.set(b)[0] == x; seed++ { // another leads
		b = block(seed, 1000)
	}
	x.limit = 1
	w.put(w.nodes[0], b)
	w.run(10 * machine.Second)
	x.limit = 1 << 40
	for i := range 8 { // the leader of b is told so with the copies that it coordinates
		w.put(w.nodes[1], block(uint64(2+i), 1000))
	}
	w.run(10 * machine.Second)
	if !slices.Contains(w.holders(b), x) {
		t.Error("not brought to a member that has room again")
	}
	x.full = true
	before := w.stats().Repairs
	for i := range 20 {
		w.put(w.nodes[1], block(uint64(100+i), 1000))
		w.run(machine.Second)
	}
	if sent := w.stats().Repairs - before; sent > 1 {
		t.Errorf("%d blocks sent to a disk that refused them a moment ago", sent)
	}
}

// TestSurveyAfterLeave: blocks are not counted short of copies that a pool of two
// does not owe.
func TestSurveyAfterLeave(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	w.fill(60)
	w.run(machine.Minute)
	if _, err := w.do(w.nodes[2], DrainCmd{}); err != nil {
		t.Fatal(err)
	}
	w.kill(w.nodes[2]) // the ring hears of it first,
	w.survey(w.nodes[0])
	w.leave(w.nodes[2]) // and then the roster
	if s := w.survey(w.nodes[0]); s.Total.Blocks == 0 || s.Total.Degraded > 0 {
		t.Errorf("%+v", s.Total)
	}
}
