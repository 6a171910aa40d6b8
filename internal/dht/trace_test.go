package dht

import (
	"errors"
	"slices"
	"testing"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/store"
)

// The stories of 20-dht §10 as golden traces in testdata. What must not differ
// is asserted beside them, whatever -rewrite makes of the files.

// A silent replica gets a stand-in, which is counted, and found when the set
// is gone; the replica returns and is brought up to date.
func TestStandInAndReturn(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.grow(7)
	b := block(21, 700)
	set := w.set(b)
	s := tell(w, GUIDOf(b), "the block")
	s.chapter("B and C are dead, and nobody has noticed. F puts the block.")
	w.crash(set[1])
	w.crash(set[2])
	d := w.put(s.node("F"), b)
	if len(d.Receipts) != 2 || w.stats().StandIns == 0 {
		t.Fatalf("%d receipts, %d stand-ins", len(d.Receipts), w.stats().StandIns)
	}
	if !slices.ContainsFunc(d.Receipts, func(r Receipt) bool { return r.Role == RoleStandIn }) {
		t.Error("no receipt of a stand-in")
	}
	s.chapter("The others notice. There are three copies: nothing to do but to ask B and C again.")
	w.reseat()
	w.run(40 * machine.Second)
	if w.stats().Repairs != 0 {
		t.Error("a stand-in is not counted")
	}
	s.chapter("B and C return with empty disks, compare keys, and learn who has the block.")
	s.lists = true
	w.boot(set[1])
	w.boot(set[2])
	w.run(machine.Second)
	s.lists = false
	s.chapter("The grace is over: the set gets its copies, the stand-ins keep theirs.")
	w.run(2 * machine.Minute)
	for _, x := range set {
		if !slices.Contains(w.holders(b), x) {
			t.Error("a member of the set still lacks the block")
		}
	}
	s.chapter("The whole set dies. G finds a stand-in.")
	for _, x := range set {
		w.kill(x)
	}
	w.get(s.node("G"), b)
	s.end("stand-in", "A dead replica, its stand-in, its return")
}

// Three nodes join in quick succession around the only holder: what was
// acknowledged is never "not found" (20-dht §4, Entry).
func TestGoldenThreeJoins(t *testing.T) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.boot(w.at("80"))
	w.run(machine.Second)
	b := block(1, 300)
	s := tell(w, GUIDOf(b), "the block")
	s.chapter("A is alone, and puts the block.")
	first := s.node("A")
	w.put(first, b)
	for _, p := range []string{"7f", "81", "7e"} {
		x := w.at(p)
		s.join(x)
		s.chapter("%s joins, and reads the block at once.", s.nodes[x.h.GUID])
		s.lists = true
		w.boot(x)
		w.get(x, b)
		s.lists = false
	}
	s.chapter("Time passes.")
	w.run(10 * machine.Minute)
	if c := w.liveCopies(b); c < 3 {
		t.Errorf("%d copies long after the joins", c)
	}
	s.chapter("A dies.")
	w.kill(first)
	for _, l := range []string{"B", "C", "D"} {
		w.get(s.node(l), b)
	}
	s.end("three-joins", "Three nodes join around one holder")
}

// Two files share a chunk, and one of them is removed: its claim ends, the
// bytes go with the last.
func TestRemoveOneOfTwoClaims(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	b := block(7, 3000)
	s := tell(w, GUIDOf(b), "the chunk")
	d, e := s.node("D"), s.node("E")
	s.chapter("File 1 is put: D puts the chunk under claim 1.")
	w.putClaim(d, b, 1)
	w.run(machine.Second)
	s.chapter("File 2 is put: E puts the same chunk under claim 2, first without its bytes.")
	c := w.putCmd(b, 2)
	c.Try = true
	if r, err := w.do(e, c); err != nil || !r.(PutDone).Known {
		t.Fatalf("the second put: %+v, %v", r, err)
	}
	w.run(machine.Second)
	s.chapter("File 1 is removed.")
	r, err := w.do(d, w.removeCmd(b, 1))
	if err != nil || !r.(RemoveDone).KeptByOthers || len(r.(RemoveDone).Receipts) != 2 {
		t.Fatalf("remove of one claim: %+v, %v", r, err)
	}
	w.run(machine.Second)
	s.chapter("File 2 still reads.")
	w.get(e, b)
	s.chapter("File 2 is removed too.")
	if r, err = w.do(e, w.removeCmd(b, 2)); err != nil || r.(RemoveDone).KeptByOthers {
		t.Fatalf("remove of the last claim: %+v, %v", r, err)
	}
	w.run(machine.Second)
	w.getErr(d, b, ErrRemoved)
	if h := w.holders(b); len(h) != 0 {
		t.Errorf("%d copies outlive the last claim", len(h))
	}
	// The old certificate does not bring it back; a later one does.
	s.chapter("An old certificate does not bring it back; a later one does.")
	old := w.putCmd(b, 1)
	old.Cert.Stamp -= 10 * 60 * 1000
	old.Cert.SignWith(signer(w.owner))
	if _, err = w.do(d, old); err == nil || err.(*Refusal).Code != CodeRemoved {
		t.Errorf("put under a tombstone: %v", err)
	}
	w.run(machine.Second)
	w.putClaim(d, b, 1)
	w.get(e, b)
	s.end("two-claims", "Two files share a chunk, and one of them is removed")
}

// A write reaches one replica and its coordinator dies: the outcome is maybe.
// Retrying the same record finishes it, with cas too; a read that meets one
// brings it to W, so that no later read falls behind.
func TestHalfWrittenSignedPut(t *testing.T) {
	cfg := LAN()
	cfg.OpDeadline = 5 * machine.Second
	w := newWorld(t, cfg)
	w.grow(5)
	one := w.signed("h", 1, "first")
	g := one.GUID()
	s := tell(w, g, "the register")
	set := w.setOf(g)
	// half writes a version through A that reaches A alone.
	half := func(rec Signed) {
		t.Helper()
		s.loses = func(f machinetest.Flight) bool {
			m, ok := f.Msg.(*putSignedMsg)
			return ok && m.stage == stageReplica && f.To.GUID != set[0].h.GUID
		}
		cas := rec.Seq - 1
		if _, err := w.do(set[0], PutSignedCmd{Rec: rec, CAS: &cas}); !errors.Is(err, ErrNoQuorum) {
			t.Fatalf("write to one replica: %v", err)
		}
		s.loses = nil
	}
	reads := func(x *tnodeT, want string) {
		t.Helper()
		if v, _, err := w.read(x, g); v != want || err != nil {
			t.Errorf("read %q, %v, want %q", v, err, want)
		}
	}
	s.chapter("E writes seq 1.")
	if _, err := w.do(s.node("E"), PutSignedCmd{Rec: one}); err != nil {
		t.Fatal(err)
	}
	w.run(machine.Second)
	s.chapter("A writes seq 2, and what it says to B and C is lost: maybe.")
	two := w.signed("h", 2, "second")
	half(two)
	s.chapter("B writes the same record again: this finishes the write.")
	cas := uint64(1)
	if _, err := w.do(set[1], PutSignedCmd{Rec: two, CAS: &cas}); err != nil {
		t.Fatalf("retry: %v", err)
	}
	s.chapter("D reads.")
	reads(s.node("D"), "second")
	s.chapter("A writes seq 3, and again what it says is lost.")
	half(w.signed("h", 3, "third"))
	s.chapter("A reads: a read that meets a half-written version finishes it.")
	reads(set[0], "third")
	s.chapter("D reads.")
	reads(s.node("D"), "third")
	s.end("half-written", "A signed put that reached one replica, and its retry")
	for _, x := range w.nodes {
		reads(x, "third")
	}
}

// The pool is cut in two while a block is removed on one side; after the heal
// the tombstone wins everywhere.
func TestRemoveDuringPartition(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	b := block(11, 900)
	s := tell(w, GUIDOf(b), "the block")
	s.chapter("E puts the block.")
	w.put(s.node("E"), b)
	w.run(machine.Second)
	left := []*tnodeT{s.node("A"), s.node("C"), s.node("E")}
	side := func(x *tnodeT) bool { return slices.Contains(left, x) }
	s.loses = func(f machinetest.Flight) bool { return side(w.by[f.From.GUID]) != side(w.by[f.To.GUID]) }
	s.chapter("A, C and E are cut off from B, D and F. E removes the block.")
	w.part(side)
	w.run(machine.Second)
	if _, err := w.do(s.node("E"), w.removeCmd(b, 1)); err != nil {
		t.Fatalf("remove on one side: %v", err)
	}
	w.run(machine.Second)
	s.chapter("On the other side it still reads.")
	w.get(s.node("F"), b)
	s.loses = nil
	s.chapter("The cut heals: lists of keys differ, records follow, the tombstone wins.")
	s.lists = true
	w.part(nil)
	w.run(30 * machine.Second)
	s.lists = false
	if h := w.holders(b); len(h) != 0 {
		t.Errorf("%d copies after the heal", len(h))
	}
	s.chapter("F reads again.")
	w.getErr(s.node("F"), b, ErrRemoved)
	s.end("remove-in-partition", "A block is removed on one side of a partition")
	for _, x := range w.nodes {
		w.getErr(x, b, ErrRemoved)
	}
}

// The node that holds a diverted copy is lost, or comes back with an empty disk:
// the one that diverted it, whose disk has room again, gets the bytes from the
// others, records and all it has.
func TestDivertedCopyLost(t *testing.T) {
	for _, returns := range []bool{false, true} {
		testDivertedCopyLost(t, returns)
	}
}

func testDivertedCopyLost(t *testing.T, returns bool) {
	cfg := LAN()
	cfg.Grace = 10 * machine.Second
	w := newWorld(t, cfg)
	w.grow(8)
	b := block(31, 50_000)
	set := w.set(b)
	full := set[1]
	full.limit = 100_000
	w.put(w.outsider(b), b)
	w.run(2 * machine.Second)
	hs := w.holders(b)
	host := hs[slices.IndexFunc(hs, func(x *tnodeT) bool { return !slices.Contains(set, x) })]
	full.limit = 1 << 40
	w.kill(host)
	clear(host.disk)
	if returns {
		w.run(machine.Second)
		w.boot(host)
	}
	if !w.net.Until(30*machine.Minute, func() bool { return len(w.holders(b)) == 3 }) {
		t.Errorf("the copy was not made again in 30 minutes; the host returns: %v", returns)
	}
}

// TestDivertedApart: two members of the set that are full do not divert to one
// node, which would be one copy for two.
func TestDivertedApart(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	b := block(31, 50_000)
	for _, full := range w.set(b)[1:] {
		full.limit = 100_000
	}
	w.put(w.outsider(b), b)
	w.run(2 * machine.Second)
	if n := len(w.holders(b)); n != 3 {
		t.Errorf("%d copies", n)
	}
}

// TestDivertedToTheSet: when the host of a diverted copy comes into the set, it and
// the member that points at it are one copy, and acknowledge as one.
func TestDivertedToTheSet(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	b := block(31, 50_000)
	set := w.set(b)
	set[1].limit = 100_000
	w.put(w.outsider(b), b)
	w.run(2 * machine.Second)
	hs := w.holders(b)
	host := hs[slices.IndexFunc(hs, func(x *tnodeT) bool { return !slices.Contains(set, x) })]
	third := w.nodes[slices.IndexFunc(w.nodes, func(x *tnodeT) bool { return x != host && !slices.Contains(set, x) })]
	third.limit = 100_000
	for _, x := range w.nodes {
		if x != set[1] && x != host && x != third {
			w.kill(x)
		}
	}
	w.run(10 * machine.Second)
	r, err := w.do(host, w.putCmd(b, 2))
	if err == nil {
		t.Errorf("acknowledged by %d members, held by %d", len(r.(PutDone).Receipts), w.liveCopies(b))
	}
}

// One node of the set is too full: it diverts its copy to a neighbour outside,
// keeps a pointer, and candidate k+1 has a second one. The block is read
// through the pointer, survives restarts, and a remove reaches the copy.
func TestDiversionWithBothPointers(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	b := block(31, 50_000)
	set := w.set(b)
	full := set[1]
	full.limit = 100_000
	s := tell(w, GUIDOf(b), "the block")
	s.chapter("B is too full for another 50 kB. H puts the block.")
	d := w.put(s.node("H"), b)
	w.run(2 * machine.Second)
	if w.stats().Diverted != 1 {
		t.Fatalf("%d copies diverted; receipts %v", w.stats().Diverted, d.Receipts)
	}
	hs := w.holders(b)
	if len(hs) != 3 || slices.Contains(hs, full) {
		t.Fatal("not three copies beside the full node")
	}
	host := hs[slices.IndexFunc(hs, func(x *tnodeT) bool { return !slices.Contains(set, x) })]
	pointers := 0
	for _, x := range w.nodes {
		for k := range x.disk {
			if k.Family == store.Holder {
				pointers++
			}
		}
	}
	if pointers != 2 {
		t.Errorf("%d pointers, want 2", pointers)
	}
	s.chapter("G asks how many copies there are.")
	ps, err := w.do(s.node("G"), HeadCmd{idsOf(b)})
	if err != nil || ps.([]Presence)[0].Copies != 3 {
		t.Errorf("head: %+v %v", ps, err)
	}
	s.chapter("All restart. Nothing is copied.")
	for _, x := range w.nodes {
		w.crash(x)
	}
	for _, x := range w.nodes {
		w.boot(x)
	}
	w.run(time20)
	before := w.stats().RepairBytes
	w.run(time20)
	if after := w.stats().RepairBytes; after != before {
		t.Errorf("%d bytes copied for a diverted block", after-before)
	}
	s.chapter("A and C die. B reads through its pointer.")
	w.kill(set[0])
	w.kill(set[2])
	w.get(full, b)
	if !slices.Contains(w.holders(b), host) {
		t.Error("the host lost its copy")
	}
	s.chapter("A and C return. H removes the block: the diverted copy goes too.")
	w.boot(set[0])
	w.boot(set[2])
	w.run(time20)
	if _, err := w.do(s.node("H"), w.removeCmd(b, 1)); err != nil {
		t.Fatal(err)
	}
	w.run(30 * machine.Minute)
	if h := w.holders(b); len(h) != 0 {
		t.Errorf("%d copies outlive the remove", len(h))
	}
	w.getErr(w.nodes[0], b, ErrRemoved)
	for _, x := range w.nodes {
		for k := range x.disk {
			if k.Family == store.Holder {
				t.Errorf("%s still has a pointer to the copy that was removed", x.h.GUID.Short())
			}
		}
	}
	s.end("diversion", "A full replica diverts its copy, and two pointers lead to it")
}
