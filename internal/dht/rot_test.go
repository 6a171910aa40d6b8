package dht

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

func signedKey(g id.GUID) store.Key { return store.Key{Family: store.Signed, GUID: g} }

// spoil has the record of g rot on the disks of xs, unseen.
func (w *world) spoil(g id.GUID, xs ...*tnodeT) {
	for _, x := range xs {
		x.disk[signedKey(g)] = []byte("rotten")
	}
}

// goodAt is how many disks of the set have the record of g at seq or above.
func (w *world) goodAt(g id.GUID, seq uint64) (good int) {
	for _, x := range w.setOf(g) {
		if s, err := DecodeSigned(x.disk[signedKey(g)]); err == nil && s.Seq >= seq {
			good++
		}
	}
	return good
}

func (w *world) write(x *tnodeT, s Signed) {
	w.t.Helper()
	if _, err := w.do(x, PutSignedCmd{Rec: s}); err != nil {
		w.t.Fatal(err)
	}
}

// Copies of a signed block that rot unseen, one or all but one: whoever reads
// them, the block reads, is at k again, is counted so, and no seq falls.
func TestSignedBlockRots(t *testing.T) {
	for _, rotten := range []int{1, 2} {
		for _, by := range []string{"get", "put again", "scrub", "comparison"} {
			if by == "comparison" && rotten == 2 {
				continue // a third disk is lost there
			}
			t.Run(fmt.Sprintf("%d of 3, %s", rotten, by), func(t *testing.T) {
				c := LAN()
				switch by {
				case "scrub":
					c.ScrubPeriod = 10 * machine.Second
				case "comparison":
					c.Round = 20 * machine.Second
				}
				w := newWorld(t, c)
				w.grow(6)
				s := w.signed("rot", 7, "value")
				g := s.GUID()
				set := w.setOf(g)
				client := w.nodes[slices.IndexFunc(w.nodes, func(x *tnodeT) bool { return !slices.Contains(set, x) })]
				w.write(client, s)
				w.run(2 * machine.Second)
				w.spoil(g, set[:rotten]...)
				switch by {
				case "get":
					if v, seq, err := w.read(client, g); v != "value" || seq != 7 || err != nil {
						t.Errorf("read: %q %d %v", v, seq, err)
					}
				case "put again":
					w.write(client, s)
					if good := w.goodAt(g, 7); good < 2 {
						t.Errorf("acknowledged on %d good copies", good)
					}
				case "comparison": // with one that has lost its disk
					w.kill(set[2])
					clear(set[2].disk)
					w.boot(set[2])
				}
				w.run(machine.Minute)
				if good := w.goodAt(g, 7); good != 3 {
					t.Errorf("%d good copies", good)
				}
				for _, x := range set {
					if e := x.n.tree.get(g); e.seq() != 7 || !e.have() || e.flags&flagBad != 0 || e.tag != x.n.owners.tagOf(e) {
						t.Errorf("%s: %+v", x.h.GUID.Short(), e)
					}
				}
				if n := w.stats().Corrupt; n != int64(rotten) {
					t.Errorf("%d found bad", n)
				}
				if v, seq, err := w.read(client, g); v != "value" || seq != 7 || err != nil {
					t.Errorf("read at last: %q %d %v", v, seq, err)
				}
				if s := w.survey(client); s.Total.Full != 1 {
					t.Errorf("counted: %+v", s.Total)
				}
				if n := w.stats().Strikes; n != 0 {
					t.Errorf("%d strikes among honest nodes", n)
				}
			})
		}
	}
}

// A member whose record went bad has acknowledged it all the same: it takes no
// lower seq, no other value of this one, and nothing that is not signed. The same
// again it takes, and a higher one.
func TestBadSignedBlockKeepsItsSeq(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	s := w.signed("s", 5, "five")
	g := s.GUID()
	w.write(w.nodes[0], s)
	w.run(machine.Second)
	w.spoil(g, w.nodes...)
	if _, _, err := w.read(w.nodes[0], g); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("read of a block that is nowhere: %v", err)
	}
	x := w.nodes[1]
	for what, r := range map[string]Signed{"lower seq": w.signed("s", 4, "four"), "other value": w.signed("s", 5, "other")} {
		if _, err := w.do(x, PutSignedCmd{Rec: r}); !errors.Is(err, ErrStaleSeq) {
			t.Errorf("%s: %v", what, err)
		}
		x.n.with(w.net.Now, nil, func() { x.n.keepSigned(g, []Signed{r}, func(bool) {}) })
		if e := x.n.tree.get(g); e.seq() != 5 || e.have() {
			t.Errorf("%s kept: %+v", what, e)
		}
	}
	forged := s
	forged.Sig[0] ^= 1
	if _, err := w.do(x, PutSignedCmd{Rec: forged}); err == nil || w.goodAt(g, 5) > 0 {
		t.Errorf("forged: %v, written on %d disks", err, w.goodAt(g, 5))
	}
	w.write(x, s)
	if v, seq, err := w.read(w.nodes[2], g); v != "five" || seq != 5 || err != nil {
		t.Errorf("the same again: %q %d %v", v, seq, err)
	}
	w.run(machine.Minute)
	w.spoil(g, w.nodes...)
	cas := uint64(5)
	if _, err := w.do(x, PutSignedCmd{Rec: w.signed("s", 6, "six"), CAS: &cas}); err != nil {
		t.Errorf("a higher seq: %v", err)
	}
	if v, seq, err := w.read(w.nodes[2], g); v != "six" || seq != 6 || err != nil {
		t.Errorf("after the higher seq: %q %d %v", v, seq, err)
	}
}

// Beside a fork a record is taken by its version, which is here. It is not written
// for that: its signature may be anything.
func TestForgedBesideAFork(t *testing.T) {
	for _, rotten := range []bool{false, true} {
		for _, other := range []string{"a", "b"} { // one above in order, one below
			w := newWorld(t, LAN())
			w.grow(3)
			s := w.signed("s", 5, "five")
			g := s.GUID()
			w.write(w.nodes[0], s)
			w.run(machine.Second)
			x := w.nodes[1]
			if rotten {
				w.spoil(g, x)
			}
			forged := s
			forged.Sig[0] ^= 1
			w.net.Perform(x.h.GUID, x.n.with(w.net.Now, nil, func() {
				x.n.takeSigned(x.n.peer(w.nodes[0].h), []Signed{forged, w.signed("s", 5, other)}, func(bool) {})
			}))
			w.run(machine.Second)
			for k, b := range x.disk {
				if r, err := DecodeSigned(b); k.GUID == g && err == nil && !r.Verify(x.n.cfg.Verify) {
					t.Errorf("rotten %t, %q: %v holds a record that nobody signed", rotten, other, k)
				}
			}
		}
	}
}

// One rotten record does not keep the others from a newcomer.
func TestRottenRecordAmongOthers(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(2)
	var gs []id.GUID
	for i := range 20 {
		s := w.signed(string(rune('a'+i)), 1, "v")
		gs = append(gs, s.GUID())
		w.write(w.nodes[0], s)
	}
	w.run(machine.Second)
	w.spoil(gs[3], w.nodes[0])
	w.spoil(gs[4], w.nodes[1])
	w.boot(w.at("55"))
	w.run(time20)
	for _, g := range gs {
		if n := w.goodAt(g, 1); n != 3 {
			t.Errorf("%s: %d good copies", g.Short(), n)
		}
	}
}

// A fork whose first record cannot be read at the start still says which seq this
// node has acknowledged.
func TestForkAloneKeepsTheSeq(t *testing.T) {
	w := newWorld(t, LAN())
	x := w.at("00")
	s := w.signed("f", 9, "left")
	x.disk[store.Key{Family: store.Signed, GUID: s.GUID(), Sub: forkSub}] = Encode(&s)
	w.boot(x)
	w.run(machine.Second)
	if e := x.n.tree.get(s.GUID()); e.seq() != 9 || e.have() {
		t.Errorf("restored as %+v", e)
	}
	if _, err := w.do(x, PutSignedCmd{Rec: w.signed("f", 9, "third")}); !errors.Is(err, ErrStaleSeq) {
		t.Errorf("a third value: %v", err)
	}
}
