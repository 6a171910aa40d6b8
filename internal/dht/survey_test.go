package dht

import "testing"

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
