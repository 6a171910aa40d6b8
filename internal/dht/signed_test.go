package dht

import (
	"errors"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

func (w *world) signed(salt string, seq uint64, value string) Signed {
	s := Signed{Pool: w.pool, Owner: pub(w.owner), Salt: []byte(salt), Seq: seq, Value: []byte(value)}
	s.SignWith(signer(w.owner))
	return s
}

func (w *world) read(x *tnodeT, g id.GUID) (string, uint64, error) {
	w.t.Helper()
	r, err := w.do(x, GetSignedCmd{GUID: g})
	if s, ok := r.(*Signed); ok {
		return string(s.Value), s.Seq, err
	}
	return "", 0, err
}

func TestSignedRegister(t *testing.T) {
	for _, size := range []int{1, 2, 3, 6} {
		w := newWorld(t, LAN())
		w.grow(size)
		at := func(i int) *tnodeT { return w.nodes[i%size] }
		s := w.signed("a", 1, "one")
		g := s.GUID()
		if _, _, err := w.read(at(0), g); !errors.Is(err, ErrNotFound) {
			t.Fatalf("%d nodes: read before the first write: %v", size, err)
		}
		r, err := w.do(at(1), PutSignedCmd{Rec: s})
		if err != nil || len(r.(PutDone).Receipts) != quorum(min(3, size)) {
			t.Fatalf("%d nodes: write: %v %v", size, r, err)
		}
		if v, seq, err := w.read(at(2), g); v != "one" || seq != 1 || err != nil {
			t.Fatalf("read: %q %d %v", v, seq, err)
		}
		if _, err = w.do(at(3), PutSignedCmd{Rec: s}); err != nil {
			t.Errorf("the same record again: %v", err)
		}
		if _, err = w.do(at(3), PutSignedCmd{Rec: w.signed("a", 1, "other")}); !errors.Is(err, ErrStaleSeq) {
			t.Errorf("another value of one seq: %v", err)
		}
		cas := uint64(7)
		if _, err = w.do(at(0), PutSignedCmd{Rec: w.signed("a", 9, "nine"), CAS: &cas}); !errors.Is(err, ErrCAS) || err.(*Refusal).Stamp != 1 {
			t.Errorf("wrong cas: %v", err)
		}
		cas = 1
		if _, err = w.do(at(0), PutSignedCmd{Rec: w.signed("a", 9, "nine"), CAS: &cas}); err != nil {
			t.Errorf("right cas: %v", err)
		}
		zero := uint64(0)
		if _, err = w.do(at(0), PutSignedCmd{Rec: w.signed("b", 1, "new"), CAS: &zero}); err != nil {
			t.Errorf("cas 0 where nothing is: %v", err)
		}
		if v, _, _ := w.read(at(1), g); v != "nine" {
			t.Errorf("read %q", v)
		}
		for _, x := range w.nodes {
			w.crash(x)
		}
		for _, x := range w.nodes {
			w.boot(x)
		}
		w.run(5 * machine.Second)
		if v, _, err := w.read(at(2), g); v != "nine" || err != nil {
			t.Errorf("read after restart: %q %v", v, err)
		}
		rm := Signed{Pool: w.pool, Owner: pub(w.owner), Salt: []byte("a"), Seq: 10, Removed: true}
		rm.SignWith(signer(w.owner))
		if _, err = w.do(at(0), PutSignedCmd{Rec: rm}); err != nil {
			t.Error(err)
		}
		if _, _, err = w.read(at(2), g); !errors.Is(err, ErrRemoved) {
			t.Errorf("read after removal: %v", err)
		}
		if v, _, err := w.read(at(2), SignedGUID(pub(w.owner), []byte("b"))); v != "new" || err != nil {
			t.Errorf("other salt: %q %v", v, err)
		}
		if n := w.stats().Strikes; n != 0 {
			t.Errorf("%d strikes among honest nodes", n)
		}
	}
}

// The set of a signed block by w's view.
func (w *world) setOf(g id.GUID) []*tnodeT {
	up := slices.DeleteFunc(slices.Clone(w.nodes), func(x *tnodeT) bool { return !x.up })
	slices.SortFunc(up, func(a, b *tnodeT) int { return id.CmpDist(g, a.h.GUID, b.h.GUID) })
	return up[:min(w.cfg.K, len(up))]
}

// A member that was away and is behind cas gets the current record first.
func TestCASWithMemberBehind(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	g := SignedGUID(pub(w.owner), []byte("c"))
	set := w.setOf(g)
	late := set[2].h.GUID
	w.net.Drop = func(f machinetest.Flight) bool { return f.To.GUID == late }
	for i := range uint64(3) {
		cas := i
		if _, err := w.do(set[0], PutSignedCmd{Rec: w.signed("c", i+1, "x"), CAS: &cas}); err != nil {
			t.Fatal(err)
		}
	}
	w.net.Drop = func(f machinetest.Flight) bool {
		return f.To.GUID == set[1].h.GUID || f.From.GUID == set[1].h.GUID
	}
	cas := uint64(3)
	if _, err := w.do(set[0], PutSignedCmd{Rec: w.signed("c", 4, "four"), CAS: &cas}); err != nil {
		t.Fatalf("cas with one member behind and one silent: %v", err)
	}
	w.net.Drop = nil
	if v, _, err := w.read(set[2], g); v != "four" || err != nil {
		t.Errorf("read: %q %v", v, err)
	}
}

// A coordinator cut off from the rest of the set goes on saying that it is at
// work: the client turns to the next one in time.
func TestSignedPutLeavesACoordinatorThatIsCutOff(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	s := w.signed("w", 1, "value")
	set := w.setOf(s.GUID())
	client := w.nodes[slices.IndexFunc(w.nodes, func(x *tnodeT) bool { return !slices.Contains(set, x) })]
	root, c := set[0].h.GUID, client.h.GUID
	w.net.Drop = func(f machinetest.Flight) bool {
		return f.From.GUID == root && f.To.GUID != c || f.To.GUID == root && f.From.GUID != c
	}
	start := w.net.Now
	if _, err := w.do(client, PutSignedCmd{Rec: s}); err != nil {
		t.Fatalf("the others of the set are there: %v", err)
	}
	if d := w.net.Now.Sub(start); d > 20*machine.Second {
		t.Errorf("took %d ms", d.Milliseconds())
	}
}

// Two values of one seq, made on the two sides of a split, are both kept and
// reported.
func TestForkIsReported(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	side := func(x *tnodeT) bool { return slices.Index(w.nodes, x)%2 == 0 }
	cut := true
	w.net.Drop = func(f machinetest.Flight) bool {
		return cut && side(w.by[f.From.GUID]) != side(w.by[f.To.GUID])
	}
	w.part(side)
	w.run(machine.Second)
	a, b := w.signed("f", 1, "left"), w.signed("f", 1, "right")
	if _, err := w.do(w.nodes[0], PutSignedCmd{Rec: a}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.do(w.nodes[1], PutSignedCmd{Rec: b}); err != nil {
		t.Fatal(err)
	}
	cut = false
	w.part(nil)
	w.run(time20)
	if _, _, err := w.read(w.nodes[2], a.GUID()); err == nil || err.(*Refusal).Code != CodeEquivocation {
		t.Errorf("read of a fork: %v", err)
	}
	if w.stats().Forks == 0 {
		t.Error("no fork counted")
	}
	if _, err := w.do(w.nodes[3], PutSignedCmd{Rec: w.signed("f", 2, "joined")}); err != nil {
		t.Fatal(err)
	}
	if v, _, err := w.read(w.nodes[4], a.GUID()); v != "joined" || err != nil {
		t.Errorf("read after the next seq: %q %v", v, err)
	}
}

// Newcomers that know nothing do not outvote the last write.
func TestNewcomersDoNotOutvote(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(4)
	var gs []id.GUID
	for i := range 30 {
		s := w.signed(string(rune('A'+i)), 1, "kept")
		gs = append(gs, s.GUID())
		if _, err := w.do(w.nodes[i%4], PutSignedCmd{Rec: s}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 6 {
		w.boot(w.at(string("0123456789abcdef"[i*2+1]) + "7"))
		for j, g := range gs {
			if v, _, err := w.read(w.nodes[(i+j)%len(w.nodes)], g); v != "kept" || err != nil {
				t.Fatalf("after %d joins: %q %v", i+1, v, err)
			}
		}
	}
}

func TestReadRepairAndAny(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	s := w.signed("r", 1, "v")
	g := s.GUID()
	set := w.setOf(g)
	w.net.Drop = func(f machinetest.Flight) bool { return f.To.GUID == set[2].h.GUID && f.From.GUID != set[2].h.GUID }
	if _, err := w.do(set[0], PutSignedCmd{Rec: s}); err != nil {
		t.Fatal(err)
	}
	w.net.Drop = nil
	if _, _, err := w.read(set[1], g); err != nil {
		t.Fatal(err)
	}
	w.run(machine.Second)
	if set[2].n.tree.get(g).ver().seq != 1 {
		t.Error("the member that was behind has not been repaired")
	}
	r, err := w.do(set[2], GetSignedCmd{GUID: g, Any: true, MinSeq: 1})
	if err != nil || string(r.(*Signed).Value) != "v" {
		t.Errorf("any: %v %v", r, err)
	}
}

// A member comes back with an empty disk: signed blocks are on all members
// again, and counted, within seconds.
func TestSignedAfterDiskLoss(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	for i := range 20 {
		if _, err := w.do(w.nodes[i%3], PutSignedCmd{Rec: w.signed(string(rune('a'+i)), 1, "v")}); err != nil {
			t.Fatal(err)
		}
	}
	w.run(machine.Second)
	if s := w.survey(w.nodes[0]); s.Total.Full != 20 {
		t.Fatalf("before: %+v", s.Total)
	}
	x := w.nodes[1]
	w.kill(x)
	clear(x.disk)
	w.run(5 * machine.Second)
	w.boot(x)
	w.run(time20)
	for _, y := range w.nodes {
		if s := w.survey(y); s.Total.Full != 20 || s.Total.Unsynced {
			t.Errorf("after: %+v", s.Total)
		}
	}
}
