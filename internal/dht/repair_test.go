package dht

import (
	"errors"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

func (w *world) fill(count int) (bs [][]byte) {
	w.t.Helper()
	for i := range count {
		b := block(uint64(i)+1000, 500)
		w.put(w.nodes[i%len(w.nodes)], b)
		bs = append(bs, b)
	}
	w.run(machine.Second)
	return bs
}

func (w *world) liveCopies(b []byte) (c int) {
	for _, x := range w.holders(b) {
		if x.up {
			c++
		}
	}
	return c
}

func (w *world) survey(x *tnodeT) Survey {
	w.t.Helper()
	r, err := w.do(x, SurveyCmd{})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.(Survey)
}

// TestSurveyWithoutOneOfTwo: one that is left alone holds all copies there can be.
func TestSurveyWithoutOneOfTwo(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(2)
	w.fill(20)
	r, err := w.do(w.nodes[0], SurveyCmd{Without: w.nodes[1].h.GUID})
	if v := r.(Survey).Total; err != nil || v.Blocks != 20 || v.Full != 20 || v.BelowW != 0 {
		t.Errorf("%+v %v", v, err)
	}
}

// Two nodes die at once: blocks below W are copied at once, the others after
// the grace, and the survey tells all along. They come back with their disks:
// counted again, not copied again.
func TestTwoDieAndReturn(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.grow(8)
	bs := w.fill(120)
	s := w.survey(w.nodes[0])
	if s.Total.Full != 120 || s.Total.Blocks != 120 || len(s.Silent) != 0 || s.Total.Unsynced {
		t.Fatalf("survey of a whole pool: %+v, silent %v", s.Total, s.Silent)
	}
	r, err := w.do(w.nodes[0], SurveyCmd{Without: w.nodes[2].h.GUID})
	if v := r.(Survey).Total; err != nil || v.Blocks != 120 || v.Degraded == 0 || v.Full+v.Degraded != 120 {
		t.Errorf("survey without one member: %+v %v", v, err)
	}
	below := 0
	w.kill(w.nodes[2])
	w.kill(w.nodes[3])
	for _, b := range bs {
		if w.liveCopies(b) < 2 {
			below++
		}
	}
	if below == 0 {
		t.Fatal("no block lost two copies: the test shows nothing")
	}
	w.run(5 * machine.Second)
	early := w.stats().Repairs
	if early != int64(below) {
		t.Errorf("%d copies in the grace, want the %d of blocks below W", early, below)
	}
	for _, b := range bs {
		if w.liveCopies(b) < 2 {
			t.Errorf("block below W after 5 s")
		}
	}
	w.run(25 * machine.Second)
	for _, b := range bs {
		if c := w.liveCopies(b); c < 3 {
			t.Errorf("%d copies 30 s after the deaths", c)
		}
	}
	s = w.survey(w.nodes[0])
	if s.Total.Full != 120 || len(s.Silent) != 2 {
		t.Errorf("survey after repair: %+v, silent %d", s.Total, len(s.Silent))
	}
	before := w.stats().RepairBytes
	w.boot(w.nodes[2])
	w.boot(w.nodes[3])
	w.run(2 * machine.Minute)
	if after := w.stats().RepairBytes; after-w.nodes[2].n.Stats().RepairBytes > before {
		t.Errorf("%d bytes copied because holders came back", after-before)
	}
	for i, b := range bs {
		w.get(w.nodes[i%8], b)
	}
	if s = w.survey(w.nodes[0]); s.Total.Full != 120 || s.Total.Unsynced {
		t.Errorf("survey after return: %+v", s.Total)
	}
}

// A holder that returns within the grace costs nothing.
func TestReturnWithinGrace(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	w.fill(100)
	w.kill(w.nodes[4])
	w.run(5 * machine.Minute)
	w.boot(w.nodes[4])
	w.run(40 * machine.Minute)
	if r := w.stats().Repairs; r != 0 {
		t.Errorf("%d copies sent for a node that was away five minutes", r)
	}
}

// A node whose disk was lost is told from one that returns.
func TestReturnWithEmptyDisk(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.grow(6)
	bs := w.fill(60)
	x := w.nodes[1]
	w.kill(x)
	w.run(machine.Second)
	clear(x.disk)
	w.boot(x)
	w.run(2 * machine.Minute)
	for _, b := range bs {
		if c := w.liveCopies(b); c < 3 {
			t.Errorf("%d copies after a disk was lost", c)
		}
	}
}

// Three nodes join in quick succession around the only synced holder: what was
// acknowledged is never "not found" (20-dht §4, Entry).
func TestThreeJoinsAroundOneHolder(t *testing.T) {
	cfg := LAN()
	w := newWorld(t, cfg)
	w.boot(w.at("80"))
	w.run(machine.Second)
	var bs [][]byte
	for i := range 30 {
		b := block(uint64(i), 300)
		w.put(w.nodes[0], b)
		bs = append(bs, b)
	}
	for _, p := range []string{"7f", "81", "7e"} {
		w.boot(w.at(p))
		for i, b := range bs {
			w.get(w.nodes[(i+len(w.nodes)-1)%len(w.nodes)], b)
		}
	}
	for i, b := range bs {
		w.get(w.nodes[i%4], b)
	}
	w.run(40 * machine.Minute)
	for _, b := range bs {
		if c := w.liveCopies(b); c < 3 {
			t.Errorf("%d copies long after the joins", c)
		}
	}
	// A late joiner knows by name what it does not have yet.
	w.kill(w.nodes[0])
	for i, b := range bs {
		w.get(w.nodes[1+i%3], b)
	}
}

// A newcomer takes over its share after the grace, and everything stays
// readable meanwhile.
func TestNewcomerTakesItsShare(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.grow(5)
	bs := w.fill(100)
	x := w.at("88")
	w.boot(x)
	for _, b := range bs {
		w.get(x, b)
	}
	w.run(3 * machine.Minute)
	for _, b := range bs {
		for _, y := range w.set(b) {
			if y == x && !slices.Contains(w.holders(b), x) {
				t.Errorf("newcomer lacks a block of its share")
			}
		}
	}
}

// A block lost one claim and has another: newcomers learn of it all the same.
func TestNewcomerLearnsOfRemovedAndPutAgain(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.grow(4)
	var bs [][]byte
	for i := range 12 {
		b := block(uint64(i), 300)
		w.putClaim(w.nodes[0], b, 1)
		if _, err := w.do(w.nodes[1], w.removeCmd(b, 1)); err != nil {
			t.Fatal(err)
		}
		w.putClaim(w.nodes[2], b, 2)
		bs = append(bs, b)
	}
	for i := range 8 {
		w.boot(w.at(string("0123456789abcdef"[2*i]) + "8"))
		w.run(time20)
		for j, b := range bs {
			w.get(w.nodes[(i+j)%len(w.nodes)], b)
		}
	}
	w.run(5 * machine.Minute)
	for _, b := range bs {
		for _, x := range w.set(b) {
			if !slices.Contains(w.holders(b), x) {
				t.Error("a member of the set lacks the block")
			}
		}
	}
}

func (w *world) removeCmd(b []byte, c byte) RemoveCmd {
	m := Remove{Pool: w.pool, GUID: GUIDOf(b), Owner: pub(w.owner), Claim: [16]byte{c}, Stamp: uint64(w.wall())}
	m.SignWith(signer(w.owner))
	return RemoveCmd{m}
}

// A node is away while a block is removed, and comes back with its copy: the
// tombstone reaches it, and nothing rises from the dead.
func TestRemoveDuringAbsence(t *testing.T) {
	for _, away := range []int{0, 1, 2} {
		w := newWorld(t, LAN())
		w.grow(6)
		b := block(9, 900)
		w.put(w.nodes[0], b)
		w.run(machine.Second)
		x := w.set(b)[away]
		w.kill(x)
		w.run(machine.Second)
		if _, err := w.do(w.outsider(b), w.removeCmd(b, 1)); err != nil {
			t.Fatal(err)
		}
		w.boot(x)
		w.run(time20)
		if h := w.holders(b); len(h) != 0 {
			t.Errorf("member %d away: %d copies after its return", away, len(h))
		}
		w.getErr(w.nodes[5], b, ErrRemoved)
		// And after everybody restarted: tombstones are kept.
		for _, y := range w.nodes {
			w.crash(y)
		}
		for _, y := range w.nodes {
			w.boot(y)
		}
		w.run(time20)
		w.getErr(w.nodes[5], b, ErrRemoved)
	}
}

const time20 = 20 * machine.Second

// What each side took in while the pool was cut in two is found from the other
// after the heal.
func TestPutsDuringPartition(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	side := func(x *tnodeT) bool { return slices.Index(w.nodes, x)%2 == 0 }
	cut := true
	w.net.Drop = func(f machinetest.Flight) bool {
		return cut && side(w.by[f.From.GUID]) != side(w.by[f.To.GUID])
	}
	w.part(side)
	w.run(machine.Second)
	var bs [][]byte
	for i := range 40 {
		b := block(uint64(i), 200)
		w.put(w.nodes[i%8], b)
		bs = append(bs, b)
	}
	cut = false
	w.part(nil)
	for i, b := range bs {
		w.get(w.nodes[(i+1)%8], b)
	}
	w.run(time20)
	for i, b := range bs {
		w.get(w.nodes[(i+3)%8], b)
	}
}

// part lets each side evict the other; nil heals.
func (w *world) part(side func(*tnodeT) bool) {
	for _, x := range w.nodes {
		for _, y := range w.nodes {
			if x == y || !x.up || !y.up {
				continue
			}
			see := side == nil || side(x) == side(y)
			if see == x.seen[y.h.GUID] {
				continue
			}
			if see {
				x.seen[y.h.GUID] = true
			} else {
				delete(x.seen, y.h.GUID)
			}
			w.net.Perform(x.h.GUID, x.n.Update(w.net.Now, y.h, see, nil))
		}
	}
}

// A pool of one grows to four and shrinks to two, and is read and written at
// every size.
func TestOneFourTwo(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 2 * machine.Second
	w := newWorld(t, cfg)
	w.boot(w.at("10"))
	var bs [][]byte
	step := func() {
		for range 5 {
			b := block(uint64(len(bs)), 100)
			bs = append(bs, b)
			for _, x := range w.nodes {
				if x.up {
					w.put(x, b)
				}
			}
		}
		for i, b := range bs {
			for j := range w.nodes {
				if x := w.nodes[(i+j)%len(w.nodes)]; x.up {
					w.get(x, b)
					break
				}
			}
		}
	}
	step()
	for _, p := range []string{"50", "90", "d0"} {
		w.boot(w.at(p))
		step()
	}
	w.run(10 * machine.Second)
	step()
	for range 2 {
		x := w.nodes[len(w.nodes)-1]
		if _, err := w.do(x, DrainCmd{}); err != nil {
			t.Fatalf("drain: %v", err)
		}
		w.leave(x)
		step()
	}
	for _, b := range bs {
		if c := w.liveCopies(b); c != 2 {
			t.Errorf("%d copies in a pool of two", c)
		}
	}
}

// leave takes x out of the roster and the ring.
func (w *world) leave(x *tnodeT) {
	w.members = slices.DeleteFunc(w.members, func(g id.GUID) bool { return g == x.h.GUID })
	w.nodes = slices.DeleteFunc(w.nodes, func(y *tnodeT) bool { return y == x })
	w.crash(x)
	for _, y := range w.nodes {
		if y.up {
			delete(y.seen, x.h.GUID)
			w.net.Perform(y.h.GUID, y.n.Update(w.net.Now, x.h, false, nil))
		}
	}
	w.reseat()
}

// A revoked member is copied around without grace.
func TestRevokedWithoutGrace(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	bs := w.fill(40)
	x := w.nodes[3]
	w.members = slices.DeleteFunc(w.members, func(g id.GUID) bool { return g == x.h.GUID })
	for _, y := range w.nodes {
		if y != x {
			delete(y.seen, x.h.GUID)
			w.net.Perform(y.h.GUID, y.n.Forget(w.net.Now, x.h.GUID, nil))
			w.net.Perform(y.h.GUID, y.n.Update(w.net.Now, x.h, false, nil))
		}
	}
	w.crash(x)
	w.run(time20)
	for _, b := range bs {
		if c := w.liveCopies(b); c < 3 {
			t.Errorf("%d copies 20 s after a member was revoked", c)
		}
	}
}

// Surplus copies go only when space is short, and only after the set has
// confirmed its own.
func TestSurplusGoesWhenSpaceIsShort(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 5 * machine.Second
	w := newWorld(t, cfg)
	w.grow(5)
	bs := w.fill(60)
	for _, p := range []string{"10", "50", "90"} {
		w.boot(w.at(p))
	}
	w.run(10 * machine.Minute)
	extra := 0
	for _, b := range bs {
		extra += w.liveCopies(b) - 3
	}
	if extra == 0 {
		t.Fatal("no surplus to begin with")
	}
	for _, x := range w.nodes {
		x.limit = x.usage().Used * 10 / 9
	}
	w.run(30 * machine.Minute)
	for _, b := range bs {
		if c := w.liveCopies(b); c < 3 {
			t.Errorf("%d copies after surplus went", c)
		}
		extra -= w.liveCopies(b) - 3
	}
	if w.stats().Surplus == 0 {
		t.Error("nothing was given up on full disks")
	}
}

func TestPoolOfTwoOneGone(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(2)
	w.kill(w.nodes[1])
	b := block(5, 50)
	_, err := w.do(w.nodes[0], w.putCmd(b, 1))
	r, ok := err.(*Refusal)
	if !ok || r.Code != CodeNoQuorum || !slices.Contains(r.Nodes, w.nodes[1].h.GUID) {
		t.Fatalf("put without quorum: %v", err)
	}
	c := w.putCmd(b, 1)
	c.W = 1
	if _, err = w.do(w.nodes[0], c); err != nil {
		t.Fatalf("put with w = 1: %v", err)
	}
}

// A comparison may bring a certificate together with the tombstone that ended
// it: the bytes go then too.
func TestEndedClaimWithItsTombstone(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(4)
	b := block(3, 500)
	w.put(w.nodes[0], b)
	w.run(machine.Second)
	x := w.set(b)[0]
	put, rm := w.putCmd(b, 1), w.removeCmd(b, 1)
	rm.Rec.Stamp = put.Cert.Stamp + 1000
	rm.Rec.SignWith(signer(w.owner))
	out := x.n.with(w.net.Now, nil, func() {
		x.n.merge(put.Cert.GUID, []StoreCert{put.Cert}, []Remove{rm.Rec}, nil, RoleReplica, func(r merged) {
			if r.no != codeRemoved {
				t.Errorf("merged: %+v", r)
			}
		})
	})
	w.net.Perform(x.h.GUID, out)
	w.run(10 * machine.Millisecond)
	if _, there := x.disk[blockKey(b)]; there {
		t.Error("bytes are kept that nobody claims")
	}
}

// What is put while a node hands over, and acknowledged by it, is handed over too.
func TestDrainTakesWhatComesMeanwhile(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	w.fill(300)
	w.run(2 * machine.Second)
	b := block(1<<20, 5000)
	for i := uint64(0); len(w.set(b)) > 0 && w.set(b)[0] != w.nodes[0]; i++ {
		b = block(1<<20+i, 5000)
	}
	leaver, late := w.nodes[0], w.set(b)[2]
	w.lag = func(g id.GUID, e machine.Effect) machine.Duration {
		if g == late.h.GUID && e.Kind == machine.Store {
			return 3 * machine.Second
		}
		return 0
	}
	drain := w.start(leaver, DrainCmd{})
	w.net.Until(machine.Second, func() bool { return leaver.n.drain != nil && !leaver.n.drain.upto.Less(GUIDOf(b)) })
	w.put(w.outsider(b), b)
	if _, err := w.wait(drain); err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc(w.holders(b), func(x *tnodeT) bool { return x == leaver })
	if len(others) < 3 {
		t.Errorf("the leaver hands over with %d copies elsewhere", len(others))
	}
}

// A block removed after a newcomer has heard its name, and before it has its
// bytes, is removed for all who ask.
func TestRemovedBeforeNewcomerHasIt(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	bs := w.fill(40)
	w.boot(w.at("47"))
	w.run(4 * machine.Second)
	for _, b := range bs {
		if _, err := w.do(w.nodes[1], w.removeCmd(b, 1)); err != nil {
			t.Fatal(err)
		}
	}
	w.run(20 * machine.Second)
	for i, b := range bs {
		w.getErr(w.nodes[i%4], b, ErrRemoved)
	}
}

// While one member of the set is silent, the others' word that a block was
// removed is no proof, but it is told, and soon.
func TestRemovedWhileOneIsSilent(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	b := block(1, 4000)
	w.put(w.nodes[0], b)
	w.run(machine.Second)
	if _, err := w.do(w.nodes[0], w.removeCmd(b, 1)); err != nil {
		t.Fatal(err)
	}
	w.run(machine.Second)
	w.kill(w.nodes[2])
	start := w.net.Now
	_, err := w.do(w.nodes[1], GetCmd{GUIDOf(b)})
	var r *Refusal
	if !errors.As(err, &r) || r.Code != CodeUnavailable || !r.Removed || !slices.Equal(r.Nodes, []id.GUID{w.nodes[2].h.GUID}) {
		t.Fatalf("%v", err)
	}
	if took := w.net.Now.Sub(start); took > 10*machine.Second {
		t.Errorf("told after %v", took)
	}
}

// Where a member goes, arcs of different sets come to have one set. That some of
// them had it all along takes no grace from the others.
func TestGraceOutlivesMergedArcs(t *testing.T) {
	for _, gone := range []int{0, 1, 2, 3} {
		w := newWorld(t, LAN())
		w.grow(4)
		w.run(machine.Hour)
		for i := range uint64(40) {
			w.put(w.nodes[i%4], block(i, 500))
		}
		w.run(machine.Minute)
		w.kill(w.nodes[gone])
		w.run(w.cfg.Grace / 2)
		if n := w.stats().RepairBytes; n != 0 {
			t.Errorf("member %d: %d bytes copied within the grace", gone, n)
		}
		w.run(w.cfg.Grace + 10*w.cfg.Round)
		for i := range uint64(40) {
			if n := len(w.holders(block(i, 500))); n < 3 {
				t.Errorf("member %d: %d copies after the grace", gone, n)
			}
		}
	}
}
