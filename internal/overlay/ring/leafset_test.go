package ring

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
)

// anyGUID draws from few high digits and few low bits, so that neighbours,
// ties and wraps are common.
func anyGUID(t *rapid.T) id.GUID {
	var g id.GUID
	g[0] = rapid.Byte().Draw(t, "hi")
	g[id.Size-1] = rapid.Byte().Draw(t, "lo") & 3
	return g
}

func nodes(t *rapid.T, low, high int) []id.GUID {
	list := rapid.SliceOfNDistinct(rapid.Custom(anyGUID), low, high, rapid.ID[id.GUID]).Draw(t, "nodes")
	slices.SortFunc(list, id.GUID.Cmp)
	return list
}

// Sort and cut: the h next GUIDs on each side.
func cut(list []id.GUID, self id.GUID, h int) (left, right []id.GUID) {
	i := slices.Index(list, self)
	for k := 1; k <= min(h, len(list)-1); k++ {
		right = append(right, list[(i+k)%len(list)])
		left = append(left, list[(i-k+len(list))%len(list)])
	}
	return left, right
}

func side(l *LeafSet, s Side) (list []id.GUID) {
	for i := range l.Count(s) {
		list = append(list, l.At(s, i).GUID)
	}
	return list
}

func build(t *rapid.T, list []id.GUID, self id.GUID, h int) *LeafSet {
	l := NewLeafSet(self, h, true)
	for _, g := range rapid.Permutation(list).Draw(t, "order") {
		if g != self {
			want, wrapped := l.Wants(g), l.Wrapped()
			if added, _, _ := l.Insert(Member{GUID: g}); want != (added || l.Wrapped() != wrapped) {
				t.Fatalf("Wants says %v, Insert %v", want, added)
			}
		}
	}
	return &l
}

func TestLeafSetIsSortAndCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := nodes(t, 1, 24)
		self := rapid.SampledFrom(list).Draw(t, "self")
		h := rapid.IntRange(1, 5).Draw(t, "h")
		l := build(t, list, self, h)
		left, right := cut(list, self, h)
		if !slices.Equal(side(l, Left), left) || !slices.Equal(side(l, Right), right) {
			t.Fatalf("leaf set %v %v, want %v %v", side(l, Left), side(l, Right), left, right)
		}
		if l.Wrapped() != (len(list)-1 <= 2*h) {
			t.Fatalf("wrapped %v with %d others", l.Wrapped(), len(list)-1)
		}
	})
}

// TestByPrefix: what a prefix tells is what the GUID would.
func TestByPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := nodes(t, 1, 24)
		self := rapid.SampledFrom(list).Draw(t, "self")
		l := build(t, list, self, rapid.IntRange(1, 5).Draw(t, "h"))
		g := anyGUID(t)
		i, ok := l.ByPrefix(prefix(g))
		switch {
		case ok && prefix(l.All()[i].GUID) != prefix(g):
			t.Fatalf("%s found for %s", l.All()[i].GUID, g)
		case !ok && l.Has(g) && prefix(g) != prefix(self):
			t.Fatalf("%s not found", g)
		}
		if l.Beyond(prefix(g)) && (l.Wants(g) || l.Has(g)) {
			t.Fatalf("%s is not beyond", g)
		}
	})
	l := NewLeafSet(id.GUID{}, 2, false)
	for i := range 8 {
		l.Insert(Member{GUID: id.GUID{byte(32*i + 16)}})
	}
	for first, want := range map[byte]bool{0: false, 32: false, 48: false, 49: true, 128: true, 207: true, 208: false, 240: false} {
		if got := l.Beyond(prefix(id.GUID{first})); got != want {
			t.Errorf("%02x is beyond: %v", first, got)
		}
	}
}

// After any removals what is left are the same nodes, in the same order, and a
// wrapped leaf set still cuts both sides from the whole ring.
func TestLeafSetAfterRemovals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := nodes(t, 2, 24)
		self := rapid.SampledFrom(list).Draw(t, "self")
		h := rapid.IntRange(1, 5).Draw(t, "h")
		l := build(t, list, self, h)
		known := slices.Clone(list)
		if !l.Wrapped() {
			left, right := cut(list, self, h)
			known = append(append([]id.GUID{self}, left...), right...)
		}
		gone := rapid.SliceOfDistinct(rapid.SampledFrom(list), rapid.ID[id.GUID]).Draw(t, "gone")
		for _, g := range gone {
			if g == self {
				continue
			}
			l.Remove(g)
			known = slices.DeleteFunc(known, func(k id.GUID) bool { return k == g })
		}
		slices.SortFunc(known, id.GUID.Cmp)
		if l.Wrapped() {
			left, right := cut(known, self, h)
			if !slices.Equal(side(l, Left), left) || !slices.Equal(side(l, Right), right) {
				t.Fatal("wrapped leaf set is not sort and cut after removals")
			}
		} else if l.Len() != len(known)-1 {
			t.Fatalf("%d members, want %d", l.Len(), len(known)-1)
		}
	})
}

func TestClosestIsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := nodes(t, 1, 24)
		self := rapid.SampledFrom(list).Draw(t, "self")
		l := build(t, list, self, rapid.IntRange(1, 5).Draw(t, "h"))
		k := anyGUID(t)
		if !l.Covers(k) {
			if l.Wrapped() {
				t.Fatal("a wrapped leaf set covers every key")
			}
			return
		}
		want := slices.MinFunc(list, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
		got := self
		if m, ok := l.Closest(k, nil); ok {
			got = m.GUID
		}
		if got != want {
			t.Fatalf("closest to %s is %s, want %s", k, got, want)
		}
	})
}

func TestAroundIsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := nodes(t, 1, 24)
		self := rapid.SampledFrom(list).Draw(t, "self")
		l := build(t, list, self, rapid.IntRange(1, 5).Draw(t, "h"))
		k := anyGUID(t)
		rank := rapid.IntRange(1, 8).Draw(t, "rank")
		got, ok := l.Around(k, rank, 0, nil)
		if !ok {
			if l.Wrapped() {
				t.Fatal("a wrapped leaf set knows every replica set")
			}
			return
		}
		slices.SortFunc(list, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
		for i, m := range got {
			if m.GUID != list[i] {
				t.Fatalf("%d nearest to %s: %v, want %v", rank, k, got, list)
			}
		}
		if len(got) != min(rank, len(list)) {
			t.Fatalf("%d nodes, want %d", len(got), min(rank, len(list)))
		}
	})
}

// A key lies on Range(g, rank) if and only if g is among the rank nearest.
func TestRangeIsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := nodes(t, 1, 24)
		self := rapid.SampledFrom(list).Draw(t, "self")
		g := rapid.SampledFrom(list).Draw(t, "g")
		l := build(t, list, self, rapid.IntRange(1, 5).Draw(t, "h"))
		rank := rapid.IntRange(1, 6).Draw(t, "rank")
		arc, ok := l.Range(g, rank)
		if !ok {
			if l.Wrapped() {
				t.Fatal("a wrapped leaf set knows every range")
			}
			return
		}
		k := anyGUID(t)
		slices.SortFunc(list, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
		want := slices.Index(list, g) < rank
		if arc.Contains(k) != want {
			t.Fatalf("%s on the range of %s at rank %d: %v, want %v", k, g, rank, !want, want)
		}
	})
}

func TestBorder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, k := anyGUID(t), anyGUID(t), anyGUID(t)
		if a == b || !(id.Arc{Lo: a, Hi: b}).Contains(k) {
			return
		}
		// Only where both shortest ways run along this arc is a or b the root.
		if b.Sub(a).Half().Less(k.Sub(a)) != (id.Arc{Lo: Border(a, b), Hi: b}).Contains(k) && k.Sub(a) != b.Sub(a).Half() {
			t.Fatalf("border of %s and %s: %s", a, b, Border(a, b))
		}
	})
}

func TestUnwrapPartsByTheShorterWay(t *testing.T) {
	l := NewLeafSet(id.FromPrefix("80"), 2, true)
	for _, p := range []string{"90", "a0", "70", "60"} {
		l.Insert(Member{GUID: id.FromPrefix(p)})
	}
	l.Remove(id.FromPrefix("60"))
	l.Unwrap()
	if l.Wrapped() || l.Count(Right) != 2 || l.Count(Left) != 1 || l.Complete() {
		t.Fatalf("wrapped %v, %d left, %d right", l.Wrapped(), l.Count(Left), l.Count(Right))
	}
	if l.Covers(id.FromPrefix("00")) || !l.Covers(id.FromPrefix("75")) {
		t.Fatal("arc after Unwrap")
	}
	l.Wrap()
	if !l.Complete() || l.Count(Left) != 2 {
		t.Fatal("Wrap does not undo Unwrap")
	}
}
