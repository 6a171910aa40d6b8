package dht

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
)

func randomGUID(r *rand.Rand) id.GUID {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], r.Uint64())
	return blake3.Sum256(b[:])
}

// Arcs cover the ring once, and name for 10^5 keys the set that the definition
// gives: with every node a failure domain of its own, with a few domains, and
// near the borders, where sets change.
func TestArcsAgreeWithReplicas(t *testing.T) {
	for _, size := range []int{1, 2, 3, 4, 7, 20, 33} {
		for _, domains := range []int{0, 2, 5} {
			r := rand.New(rand.NewPCG(uint64(size), uint64(domains)))
			w := newWorld(t, LAN())
			w.fixed = true
			for i := range size {
				x := w.at(fmt.Sprintf("%x", i))
				x.h.GUID = randomGUID(r)
				delete(w.by, id.FromPrefix(fmt.Sprintf("%x", i)))
				w.by[x.h.GUID] = x
				if domains > 0 {
					w.domains[x.h.GUID] = fmt.Sprint(r.IntN(domains))
				}
			}
			for _, x := range w.nodes {
				w.members = append(w.members, x.h.GUID)
			}
			x := w.nodes[0]
			for _, y := range w.nodes[1:] {
				x.seen[y.h.GUID] = true
			}
			w.boot(x)
			for _, y := range w.nodes[1:] {
				x.seen[y.h.GUID] = true
			}
			x.n.unsettle()
			x.n.settle()
			checkArcs(t, x, r, 100_000/21)
		}
	}
}

func checkArcs(t *testing.T, x *tnodeT, r *rand.Rand, keys int) {
	t.Helper()
	n := x.n
	next := id.GUID{}
	for i, a := range n.arcs {
		if a.lo != next || a.hi.Less(a.lo) {
			t.Fatalf("arc %d begins at %s, want %s", i, a.lo.Short(), next.Short())
		}
		next = a.hi.Add(one)
	}
	if !next.IsZero() {
		t.Fatal("the arcs end before the ring does")
	}
	check := func(k id.GUID) {
		t.Helper()
		a := n.arcOf(k)
		hs, _ := x.ReplicaSet(k, 4*n.cfg.K)
		want := pick(hs, n.cfg.K, func(h *id.Handle) string { return x.Domain(h.GUID) })
		if !slices.EqualFunc(a.set, want, func(p *peer, h *id.Handle) bool { return p.h.GUID == h.GUID }) {
			t.Fatalf("key %s: arc says %v, definition %v", k.Short(), short(handles(a.set)), short(want))
		}
	}
	for range keys {
		check(randomGUID(r))
	}
	for _, a := range n.arcs {
		check(a.lo)
		check(a.hi)
	}
}

func short(hs []*id.Handle) (s []string) {
	for _, h := range hs {
		s = append(s, h.GUID.Short())
	}
	return s
}

// The set takes the first of each domain, and fills up with those skipped.
func TestPickPrefersUnusedDomains(t *testing.T) {
	dom := func(s string) string { return s[:1] }
	for _, c := range []struct {
		cands string
		k     int
		want  string
	}{
		{"a1 a2 b1 c1", 3, "a1 b1 c1"},
		{"a1 a2 a3 b1", 3, "a1 a2 b1"},
		{"a1 a2 a3", 2, "a1 a2"},
		{"a1", 3, "a1"},
	} {
		var cands []string
		for i := 0; i+2 <= len(c.cands); i += 3 {
			cands = append(cands, c.cands[i:i+2])
		}
		if got := fmt.Sprint(pick(cands, c.k, dom)); got != "["+c.want+"]" {
			t.Errorf("%s: %s, want %s", c.cands, got, c.want)
		}
	}
}

func TestQuorum(t *testing.T) {
	for k, w := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 8: 5} {
		if quorum(k) != w {
			t.Errorf("W of %d is %d, want %d", k, quorum(k), w)
		}
	}
}

// The tree's digests equal those of a sorted list, over any range, after any
// changes; two trees differ exactly where their sets do.
func TestTreeAgreesWithList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var o owners
		var a tree
		list := make(map[id.GUID]*entry)
		// Few leading bytes, so that branches get deep and are emptied again.
		guid := rapid.Custom(func(rt *rapid.T) (g id.GUID) {
			g[0] = byte(rapid.IntRange(0, 2).Draw(rt, "b0")) << 6
			g[1] = byte(rapid.IntRange(0, 3).Draw(rt, "b1"))
			g[31] = byte(rapid.IntRange(0, 40).Draw(rt, "b31"))
			return g
		})
		for range rapid.IntRange(1, 400).Draw(rt, "ops") {
			g := guid.Draw(rt, "g")
			e := list[g]
			switch {
			case e == nil:
				e = &entry{guid: g}
				e.tag = o.tagOf(e)
				a.insert(e)
				list[g] = e
			case rapid.Bool().Draw(rt, "remove"):
				a.remove(e)
				delete(list, g)
			default:
				e.flags ^= flagHave
				a.retag(e, o.tagOf(e))
			}
		}
		lo, hi := guid.Draw(rt, "lo"), guid.Draw(rt, "hi")
		if hi.Less(lo) {
			lo, hi = hi, lo
		}
		var want digest
		var order []id.GUID
		for g, e := range list {
			if a.get(g) != e {
				rt.Fatalf("%s not found", g.Short())
			}
			if !g.Less(lo) && !hi.Less(g) {
				want.add(digest{e.tag, 1})
				order = append(order, g)
			}
		}
		slices.SortFunc(order, func(a, b id.GUID) int { return a.Cmp(b) })
		if got := a.digest(lo, hi); got != want {
			rt.Fatalf("digest %v, want %v", got, want)
		}
		var walked []id.GUID
		a.walk(lo, hi, func(e *entry) bool {
			walked = append(walked, e.guid)
			return true
		})
		if !slices.Equal(walked, order) {
			rt.Fatalf("walk of %d, want %d", len(walked), len(order))
		}
		var sum digest
		for i, k := range a.kids(lo, hi) {
			if _, _, ok := split(lo, hi, i); ok {
				sum.add(k)
			}
		}
		if sum != want {
			rt.Fatalf("the parts sum up to %v, want %v", sum, want)
		}
	})
}

// Parts of a range cover it once, in order.
func TestSplitCovers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		lo, hi := randomGUID(r), randomGUID(r)
		if r.IntN(2) == 0 {
			hi = lo
			hi[r.IntN(32)] ^= byte(1 << r.IntN(8))
		}
		if hi.Less(lo) {
			lo, hi = hi, lo
		}
		next := lo
		for i := range 16 {
			if a, b, ok := split(lo, hi, i); ok {
				if a != next || b.Less(a) {
					t.Fatalf("part %d of %s–%s begins at %s", i, lo, hi, a)
				}
				next = b.Add(one)
			}
		}
		if next != hi.Add(one) {
			t.Fatalf("parts of %s–%s end at %s", lo, hi, next)
		}
	}
}

// The difference found by comparing trees is the difference of the sets: the
// records of one node reach the other, and only differing leaves are listed.
func TestComparisonFindsTheDifference(t *testing.T) {
	for _, c := range []struct{ both, left, right int }{{0, 30, 0}, {3000, 5, 7}, {6000, 0, 1}, {500, 1500, 1500}} {
		w := newWorld(t, LAN())
		a, b := w.at("40"), w.at("c0")
		stored := func(x *tnodeT, from, to int) {
			for i := from; i < to; i++ {
				m := Remove{Pool: w.pool, GUID: randomGUID(rand.New(rand.NewPCG(uint64(i), 9))), Owner: pub(w.owner), Stamp: 5}
				m.SignWith(signer(w.owner))
				x.disk[tombKey(&m)] = Encode(&m)
			}
		}
		stored(a, 0, c.both+c.left)
		stored(b, 0, c.both)
		stored(b, c.both+c.left, c.both+c.left+c.right)
		w.boot(a)
		w.boot(b)
		w.run(time20 * 3)
		all := uint32(c.both + c.left + c.right)
		da, db := a.n.tree.digest(id.GUID{}, maxGUID), b.n.tree.digest(id.GUID{}, maxGUID)
		if da != db || da.count != all {
			t.Errorf("%+v: digests %v and %v, want %d items", c, da, db, all)
		}
		if items := w.stats().SyncItems; c.both > 1000 && items > int64(40*c.both) {
			t.Errorf("%+v: %d items named", c, items)
		}
	}
}

// One that had evicted a neighbour does not know what that one and others have
// agreed on meanwhile: when it is back, their common arcs are entered anew, also
// if its return is the only news.
func TestReturnIsEntered(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	w.fixed = true
	x, y := w.nodes[0], w.nodes[1]
	for _, in := range []bool{false, true} {
		x.n.settle()
		if in {
			x.seen[y.h.GUID] = true
		} else {
			delete(x.seen, y.h.GUID)
		}
		x.n.Update(w.net.Now, y.h, in, nil)
	}
	x.n.settle()
	p := x.n.peer(y.h)
	for _, a := range x.n.arcs {
		if a.near&p.bit() != 0 && a.synced {
			t.Fatalf("synced from %s on, without having asked the one who returned", a.lo.Short())
		}
	}
	w.run(time20)
	for _, a := range x.n.arcs {
		if a.mine() && !a.synced {
			t.Fatalf("not entered from %s on", a.lo.Short())
		}
	}
}
