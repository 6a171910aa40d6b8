package pastry

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
)

// ringGUIDs is the ring of Figures 10.6 to 10.8: the nodes they name, and
// enough others to fill it.
func ringGUIDs(count int, named ...string) []id.GUID {
	list := make([]id.GUID, 0, count)
	for _, s := range named {
		list = append(list, id.FromPrefix(s))
	}
	for i := 0; len(list) < count; i++ {
		g := guidN(i)
		// The figures leave the arcs next to the named nodes free.
		if g[0] != 0xd4 && g[0] != 0xd1 && g[0] != 0x65 && g[0] != 0xd3 {
			list = append(list, g)
		}
	}
	return list
}

func oracle(t testing.TB, cfg Config, list []id.GUID) map[id.GUID]*Node {
	hs := make([]*id.Handle, len(list))
	for i, g := range list {
		hs[i] = handle(g, 1)
	}
	nodes := make(map[id.GUID]*Node, len(list))
	for _, h := range hs {
		n := New(&cfg, h, 1)
		n.Adopt(0, hs, true, nil, nil)
		nodes[h.GUID] = n
	}
	return nodes
}

// path follows a message by NextHop alone, and checks at every hop that the
// order of 10-overlay §3.2 strictly improves.
func path(t interface{ Fatalf(string, ...any) }, nodes map[id.GUID]*Node, from, key id.GUID, cfg Config) (hops []id.GUID, rules []kbr.Rule) {
	m := kbr.Message{Key: key, App: kbr.AppProbe}
	at := from
	for {
		hops = append(hops, at)
		next, rule, ok := nodes[at].NextHop(&m)
		if !ok {
			t.Fatalf("no next hop at %s", at.Short())
		}
		if next == nil {
			return hops, rules
		}
		bits, was := id.CommonBits(next.GUID, key), id.CommonBits(at, key)
		nearer := id.CmpDist(key, next.GUID, at) < 0
		switch {
		case rule == kbr.RuleTable && bits <= was,
			rule == kbr.RuleRare && (bits < was || !nearer),
			rule == kbr.RuleLeaf && !nearer:
			t.Fatalf("%s to %s by %s improves nothing", at.Short(), next.GUID.Short(), rule)
		}
		if m.Flags&kbr.FlagLeaf != 0 && rule != kbr.RuleLeaf {
			t.Fatalf("%s in the leaf phase", rule)
		}
		if rule == kbr.RuleLeaf && !cfg.LeafSetOnly {
			m.Flags |= kbr.FlagLeaf
			m.BestDist = id.Dist(next.GUID, key)
		}
		rules = append(rules, rule)
		at = next.GUID
		if len(hops) > len(nodes) {
			t.Fatalf("loop: %v", shorts(hops))
		}
	}
}

// Figure 10.8: from 65A1FC to D46A1C in four hops.
func TestFigure108(t *testing.T) {
	cfg := Sim()
	cfg.LeafSet = 1
	list := ringGUIDs(300, "65a1fc", "d13da3", "d4213f", "d462ba", "d46a1c", "d467c4", "d471f1")
	nodes := oracle(t, cfg, list)
	hops, rules := path(t, nodes, list[0], list[4], cfg)
	want := []string{"65a1fc00", "d13da300", "d4213f00", "d462ba00", "d46a1c00"}
	// Rows are filled by whoever came first: d13da3 is the only node with d1,
	// d4213f or another d4 follows.
	if got := shorts(hops); !slices.Equal(got, want) {
		t.Errorf("path %v by %v, want %v", got, rules, want)
	}
	// With D46A1C absent, its key ends at the numerically closest, D467C4.
	nodes = oracle(t, cfg, slices.Delete(slices.Clone(list), 4, 5))
	hops, _ = path(t, nodes, list[0], list[4], cfg)
	if last := hops[len(hops)-1]; last != list[5] {
		t.Errorf("without D46A1C its key ends at %s", last.Short())
	}
}

// Figure 10.6: leaf sets alone, h = 4, need N/(4h) hops in the mean and N/(2h)
// at most.
func TestFigure106(t *testing.T) {
	cfg := Sim()
	cfg.LeafSet, cfg.LeafSetOnly = 4, true
	const count = 200
	list := ringGUIDs(count, "65a1fc", "d46a1c")
	nodes := oracle(t, cfg, list)
	hops, _ := path(t, nodes, list[0], list[1], cfg)
	if hops[len(hops)-1] != list[1] {
		t.Fatal("not delivered at D46A1C")
	}
	total, most := 0, 0
	for i := range 500 {
		h, _ := path(t, nodes, list[i%count], guidN(5000+i), cfg)
		total += len(h) - 1
		most = max(most, len(h)-1)
	}
	t.Logf("65a1fc to d46a1c: %d hops; mean of 500: %d/100, most %d; N/4h = %d, N/2h = %d",
		len(hops)-1, total/5, most, count/16, count/8)
	// GUIDs are random: half the ring may hold a few more than half the nodes.
	if most > count/8*6/5 || total/500 > count/16+2 {
		t.Errorf("mean %d/500, most %d", total, most)
	}
}

// The next hop equals a naive search over all nodes known, and every path is
// strictly improving, ends, and ends at the root, also where tables have holes.
func TestNextHopIsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Sim()
		cfg.LeafSet = rapid.IntRange(1, 4).Draw(t, "h")
		count := rapid.IntRange(1, 60).Draw(t, "count")
		base := rapid.IntRange(0, 1<<20).Draw(t, "base")
		var hs []*id.Handle
		for i := range count {
			hs = append(hs, handle(guidN(base+i), 1))
		}
		slices.SortFunc(hs, func(a, b *id.Handle) int { return a.GUID.Cmp(b.GUID) })
		nodes := map[id.GUID]*Node{}
		for i, h := range hs {
			n := New(&cfg, h, 1)
			// True leaf sets, but only a part of the others.
			var known []*id.Handle
			for k := 1; k <= min(cfg.LeafSet, count-1); k++ {
				known = append(known, hs[(i+k)%count], hs[(i-k+count)%count])
			}
			whole := count-1 <= 2*cfg.LeafSet
			for _, o := range hs {
				if rapid.IntRange(0, 2).Draw(t, "knows") == 0 {
					known = append(known, o)
				}
			}
			n.Adopt(0, known, whole, nil, nil)
			nodes[h.GUID] = n
		}
		key := guidN(rapid.IntRange(-1<<20, -1).Draw(t, "key"))
		from := hs[rapid.IntRange(0, count-1).Draw(t, "from")].GUID

		n := nodes[from]
		m := kbr.Message{Key: key, App: kbr.AppProbe}
		next, rule, _ := n.NextHop(&m)
		naive(t, n, key, next, rule)

		hops, _ := path(t, nodes, from, key, cfg)
		want := slices.MinFunc(hs, func(a, b *id.Handle) int { return id.CmpDist(key, a.GUID, b.GUID) }).GUID
		if got := hops[len(hops)-1]; got != want {
			t.Fatalf("ends at %s, root is %s", got.Short(), want.Short())
		}
	})
}

// naive repeats Figure 10.9 by searching everything.
func naive(t *rapid.T, n *Node, key id.GUID, next *id.Handle, rule kbr.Rule) {
	left, right := n.LeafSet()
	leaves := append(append([]*id.Handle{n.self}, left...), right...)
	inside := n.leaf.Wrapped()
	if !inside {
		lo, hi := n.me, n.me
		if len(left) > 0 {
			lo = left[len(left)-1].GUID
		}
		if len(right) > 0 {
			hi = right[len(right)-1].GUID
		}
		inside = lo != hi && key.Sub(lo).Cmp(hi.Sub(lo)) <= 0
	}
	got := n.me
	if next != nil {
		got = next.GUID
	}
	if inside {
		best := slices.MinFunc(leaves, func(a, b *id.Handle) int { return id.CmpDist(key, a.GUID, b.GUID) })
		if got != best.GUID {
			t.Fatalf("inside the leaf set: %s, want %s", got.Short(), best.GUID.Short())
		}
		return
	}
	p := id.CommonDigits(n.me, key)
	inSlot, rare := false, n.me
	for r := uint32(1); r < n.peers.end(); r++ {
		q := n.peer(r)
		if q.flags&(fLeaf|fTable) == 0 {
			continue
		}
		g := q.h.GUID
		if q.flags&fTable != 0 && id.CommonDigits(n.me, g) == p && g.Digit(p) == key.Digit(p) {
			inSlot = true
		}
		if id.CommonBits(g, key) >= id.CommonBits(n.me, key) && id.CmpDist(key, g, rare) < 0 {
			rare = g
		}
	}
	switch {
	case inSlot:
		if rule != kbr.RuleTable || id.CommonDigits(got, key) <= p {
			t.Fatalf("R[%d] has an entry, chosen by %s: %s", p, rule, got.Short())
		}
	case got != rare:
		t.Fatalf("rare case: %s, want %s", got.Short(), rare.Short())
	}
}

// A suspected entry is as good as empty: the backup link is next.
func TestSuspectedEntryIsPassed(t *testing.T) {
	cfg := Sim()
	cfg.LeafSet = 1
	list := ringGUIDs(200, "65a1fc", "d13da3", "d4213f")
	n := oracle(t, cfg, list)[list[0]]
	key := id.FromPrefix("d46a1c")
	first, rule, _ := n.nextHop(&kbr.Message{Key: key}, nil)
	if rule != kbr.RuleTable {
		t.Fatalf("rule %s", rule)
	}
	n.peer(first).flags |= fSuspect
	second, rule, ok := n.nextHop(&kbr.Message{Key: key}, nil)
	if !ok || second == first || rule != kbr.RuleTable {
		t.Fatalf("backup link: %v by %s", ok, rule)
	}
	n.peer(second).flags |= fSuspect
	third, rule, ok := n.nextHop(&kbr.Message{Key: key}, nil)
	if ok && (third == first || third == second || rule != kbr.RuleRare) {
		t.Fatalf("with both suspected: %d by %s", third, rule)
	}
}

func TestHopCap(t *testing.T) {
	for n, want := range map[int64]int64{0: 10, 1: 10, 16: 10, 17: 12, 256: 12, 1000: 14, 100_000: 18} {
		if got := hopCap(n); got != want {
			t.Errorf("N=%d: %d, want %d", n, got, want)
		}
	}
}

func BenchmarkNextHop(b *testing.B) {
	list := make([]*id.Handle, 10_000)
	for i := range list {
		list[i] = handle(guidN(i), 1)
	}
	cfg := Sim()
	n := New(&cfg, list[0], 1)
	n.Adopt(0, list, true, nil, nil)
	keys := make([]id.GUID, 1024)
	for i := range keys {
		keys[i] = guidN(-i - 1)
	}
	m := kbr.Message{App: kbr.AppProbe}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Key = keys[i%1024]
		n.nextHop(&m, nil)
	}
}

func BenchmarkDecodeHop(b *testing.B) {
	frame := encode(&Hop{ID: 1, M: kbr.Message{Key: guidN(1), Origin: handle(guidN(2), 1), Body: make([]byte, 100)}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}

// One message forwarded: received, acknowledged, sent on, and the next hop's
// acknowledgement taken.
func BenchmarkStepForward(b *testing.B) {
	list := make([]*id.Handle, 1000)
	for i := range list {
		list[i] = handle(guidN(i), 1)
	}
	cfg := Sim()
	n := New(&cfg, list[0], 1)
	n.Adopt(0, list, true, nil, nil)
	var out []machine.Effect
	now := machine.Time(0)
	keys := make([]id.GUID, 1024)
	for i := range keys {
		keys[i] = guidN(-i - 1)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now += 10_000
		m := &Hop{ID: uint32(i), M: kbr.Message{Key: keys[i%1024], App: 7, Deadline: machine.Second}}
		m.M.ReqID[0], m.M.ReqID[1], m.M.ReqID[2] = byte(i), byte(i>>8), byte(i>>16)
		out = n.Step(now, machine.Event{Kind: machine.Receive, From: list[1], Msg: m}, out[:0])
		for _, e := range out {
			if h, ok := e.Msg.(*Hop); ok {
				n.Step(now+1000, machine.Event{Kind: machine.Receive, From: e.To, Msg: &HopAck{IDs: []uint32{h.ID}}}, nil)
				break
			}
		}
		out = n.Step(now+2000, machine.Event{Kind: machine.Tick}, out[:0])
	}
}
