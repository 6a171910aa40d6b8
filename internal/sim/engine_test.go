package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/trace"
	"atoll.example/atoll/internal/wire"
)

// toyMsg is a hop of a token.
type toyMsg struct{ ttl uint32 }

func (toyMsg) Kind() uint8                 { return 200 }
func (m toyMsg) AppendBody(w *wire.Writer) { w.U32(m.ttl) }

func decodeToy(b []byte) (machine.Message, error) {
	r := wire.NewReader(b)
	if r.U8() != 200 || r.U8() != machine.Version {
		return nil, wire.ErrVersion
	}
	m := toyMsg{r.U32()}
	return m, r.Close()
}

// toy passes tokens to random peers and wakes every second.
type toy struct {
	self  *id.Handle
	peers []*id.Handle
	rnd   *rand.Rand
	wake  machine.Time
	got   int
	ticks int
	seen  []machine.Time
	done  []machine.Event
}

func (t *toy) Wake() machine.Time { return t.wake }

func (t *toy) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	t.seen = append(t.seen, now)
	switch ev.Kind {
	case machine.Tick:
		t.ticks++
		t.wake = now.Add(machine.Second)
	case machine.Receive:
		t.got++
		if m := ev.Msg.(toyMsg); m.ttl > 0 {
			out = append(out, machine.Effect{Kind: machine.Send, To: t.peers[t.rnd.IntN(len(t.peers))], Msg: toyMsg{m.ttl - 1}})
		}
		out = append(out, machine.Effect{Kind: machine.Trace, Body: trace.Event{Kind: "toy.got", N: int64(t.got)}})
	case machine.Command:
		return append(out, ev.Body.([]machine.Effect)...)
	case machine.Done:
		t.done = append(t.done, ev)
	}
	return out
}

func toyWorld(t testing.TB, cfg Config, n int) (*Engine, []*toy) {
	t.Helper()
	e := New(cfg)
	r := e.Rand("toys")
	var hs []*id.Handle
	for range n {
		var g id.GUID
		for i := range 4 {
			binary.BigEndian.PutUint64(g[8*i:], r.Uint64())
		}
		hs = append(hs, &id.Handle{GUID: g, Epoch: 1, Addrs: []string{"sim"}})
	}
	var ts []*toy
	for _, h := range hs {
		m := &toy{self: h, peers: hs, rnd: machine.NewRand(cfg.Seed, h.GUID, "toy"), wake: machine.Never}
		ts = append(ts, m)
		e.Start(e.NewNode(h), h, m, nil)
	}
	return e, ts
}

func TestTraceHashIsReproducible(t *testing.T) {
	run := func(seed uint64, decode bool) string {
		cfg := Config{Seed: seed, Topology: Sphere}
		if decode {
			cfg.Decode = decodeToy
		}
		e, ts := toyWorld(t, cfg, 20)
		e.SetLinkFaults(LinkFaults{Loss: 10_000, Duplicate: 20_000, Reorder: 50_000, Spike: 1000})
		for n := range ts {
			e.Do(Ref(n+1), func(now machine.Time, out []machine.Effect) []machine.Effect {
				ts[n].wake = now
				return append(out, machine.Effect{Kind: machine.Send, To: ts[(n+1)%20].self, Msg: toyMsg{200}})
			})
		}
		e.Run(machine.Time(30 * machine.Second))
		if e.Faults[FaultLoss] == 0 || e.Faults[FaultDuplicate] == 0 || e.Faults[FaultReorder] == 0 {
			t.Fatalf("faults not injected: %v", e.Faults.Map())
		}
		return e.Hash()
	}
	a, b, c, d := run(7, false), run(7, false), run(8, false), run(7, true)
	if a != b {
		t.Error("one seed, two hashes")
	}
	if a == c {
		t.Error("two seeds, one hash")
	}
	if a != d {
		t.Error("crossing the codec changes the history")
	}
}

func TestClocksAreMonotonicAndTimersExact(t *testing.T) {
	e, ts := toyWorld(t, Config{Seed: 3}, 3)
	e.SetClock(1, 20_000, 3_600_000)
	e.SetClock(2, -20_000, 0)
	for n := range ts {
		e.Do(Ref(n+1), func(now machine.Time, out []machine.Effect) []machine.Effect {
			ts[n].wake = now.Add(machine.Second)
			return out
		})
	}
	e.Run(machine.Time(1000 * machine.Second))
	for n, want := range []int{1020, 980, 1000} {
		if got := ts[n].ticks; got < want-1 || got > want {
			t.Errorf("node %d: %d ticks of its own seconds in 1000 s, want %d", n, got, want)
		}
		if !slices.IsSorted(ts[n].seen) {
			t.Errorf("node %d: time went back", n)
		}
	}
}

func TestGlobalInvertsLocal(t *testing.T) {
	e, _ := toyWorld(t, Config{Seed: 3}, 1)
	rapid.Check(t, func(rt *rapid.T) {
		e.nodes[1].drift = rapid.Int64Range(-50_000, 50_000).Draw(rt, "drift")
		l := machine.Time(rapid.Int64Range(0, int64(100*machine.Hour)).Draw(rt, "local")) + e.nodes[1].off
		g := e.Global(1, l)
		if e.Local(1, g) < l || e.Local(1, g-1) >= l {
			rt.Fatalf("Global(%d) = %d, whose Local is %d (before: %d)", l, g, e.Local(1, g), e.Local(1, g-1))
		}
	})
}

func TestFreezeCrashRestart(t *testing.T) {
	e, ts := toyWorld(t, Config{Seed: 1}, 2)
	tell := func() {
		e.Do(1, func(_ machine.Time, out []machine.Effect) []machine.Effect {
			return append(out, machine.Effect{Kind: machine.Send, To: ts[1].self, Msg: toyMsg{0}})
		})
	}
	e.Freeze(2, machine.Time(10*machine.Second))
	tell()
	e.Run(machine.Time(9 * machine.Second))
	if ts[1].got != 0 {
		t.Fatal("a frozen node received")
	}
	e.Run(machine.Time(10 * machine.Second))
	if ts[1].got != 1 {
		t.Fatal("what arrived while frozen is gone")
	}
	e.Crash(2)
	tell()
	e.Run(machine.Time(11 * machine.Second))
	h := *ts[1].self
	h.Epoch++
	again := &toy{self: &h, wake: machine.Never}
	e.Start(2, &h, again, nil)
	tell()
	e.Run(machine.Time(12 * machine.Second))
	if ts[1].got != 1 || again.got != 1 {
		t.Fatalf("old process got %d, new one %d", ts[1].got, again.got)
	}
}

func TestPartition(t *testing.T) {
	e, ts := toyWorld(t, Config{Seed: 1}, 3)
	e.SetGroup(2, 1)
	e.SetGroup(3, 2)
	send := func(from, to int) bool {
		was := ts[to].got
		e.Do(Ref(from+1), func(_ machine.Time, out []machine.Effect) []machine.Effect {
			return append(out, machine.Effect{Kind: machine.Send, To: ts[to].self, Msg: toyMsg{0}})
		})
		e.Run(e.Now().Add(machine.Second))
		return ts[to].got > was
	}
	e.Cut(0, 1)
	if send(0, 1) || !send(1, 0) || !e.net.oneWay() {
		t.Error("a one-way cut is not one-way")
	}
	if l := e.net.components(); l[0] != l[1] {
		t.Error("group 2 connects 0 and 1, yet they count as apart")
	}
	e.Cut(0, 2)
	if l := e.net.components(); l[0] == l[1] || l[1] != l[2] {
		t.Errorf("components %v", l)
	}
	e.Heal()
	if !send(0, 1) {
		t.Error("not healed")
	}
}

func TestDisk(t *testing.T) {
	e, ts := toyWorld(t, Config{Seed: 5}, 1)
	key := func(b byte) store.Key { return store.Key{Family: store.Block, GUID: id.GUID{b}} }
	put := func(op uint64, b byte) machine.Effect {
		return machine.Effect{
			Kind: machine.Store, ID: op, Shard: id.GUID{b},
			Body: store.Batch{Ops: []store.Op{{Key: key(b), Value: []byte{b, b}}}},
		}
	}
	do := func(effects ...machine.Effect) {
		e.Do(1, func(_ machine.Time, out []machine.Effect) []machine.Effect { return append(out, effects...) })
	}
	do(put(1, 1))
	e.Run(e.Now().Add(machine.Second))
	do(machine.Effect{Kind: machine.Load, ID: 2, Body: []store.Key{key(1), key(9)}})
	e.Run(e.Now().Add(machine.Second))
	if d := ts[0].done; len(d) != 2 || d[0].ID != 1 || d[0].Err != nil || len(d[1].Body.([][]byte)) != 2 ||
		string(d[1].Body.([][]byte)[0]) != "\x01\x01" || d[1].Body.([][]byte)[1] != nil {
		t.Fatalf("done: %+v", d)
	}
	// Unsynced batches: each is whole or absent after a crash, of one shard a prefix.
	for i := range 40 {
		do(put(uint64(10+i), byte(10+i)))
	}
	e.Crash(1)
	kept := len(e.nodes[1].disk.data) - 1
	if kept == 0 || kept == 40 || int(e.Faults[FaultUnsyncedKept]) != kept {
		t.Fatalf("%d of 40 unsynced batches kept, counted %d", kept, e.Faults[FaultUnsyncedKept])
	}
	// A failed sync ends the node.
	h := *ts[0].self
	h.Epoch++
	again := &toy{self: &h, wake: machine.Never}
	crashed := ""
	e.cfg.OnCrash = func(_ Ref, why string) { crashed = why }
	e.Start(1, &h, again, nil)
	e.nodes[1].disk.faults.Fsync = million
	do(put(100, 100))
	e.Run(e.Now().Add(machine.Second))
	if len(again.done) != 1 || !errors.Is(again.done[0].Err, store.ErrFailed) || crashed == "" || e.Alive(1) {
		t.Fatalf("after a failed sync: %+v %q", again.done, crashed)
	}
}

// A node that is to crash where it writes does so at its next write, not before;
// one that does not write for a while crashes anywhere.
func TestCrashPoints(t *testing.T) {
	const step = machine.Millisecond
	note := machine.Effect{Kind: machine.Trace, Body: trace.Event{Kind: "toy.note"}}
	write := machine.Effect{Kind: machine.Store, ID: 1, Body: store.Batch{
		Ops: []store.Op{{Key: store.Key{Family: store.Block}, Value: []byte{1}}},
	}}
	for _, c := range []struct {
		at    crashPoint
		wait  machine.Duration
		do    machine.Effect
		alive bool
	}{
		{crashAtAny, step, note, false},
		{crashAtStore, step, note, true},
		{crashAtStore, step, write, false},
		{crashAtStored, step, write, true},
		{crashAtStore, 2 * crashPatience, note, false},
	} {
		e, _ := toyWorld(t, Config{Seed: 5}, 1)
		e.CrashInStep(1, c.at)
		e.Run(e.Now().Add(c.wait))
		e.Command(1, 7, []machine.Effect{c.do})
		e.Run(e.Now().Add(step / 10))
		if e.Alive(1) != c.alive {
			t.Errorf("crash at %d, %v after %v: alive %v", c.at, c.do.Kind, c.wait, e.Alive(1))
		}
	}
}

// TestQueueOrder: the wheels give the order that sorting gives.
func TestQueueOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var q queue
		var model []item
		now := int64(0)
		ops := rapid.SliceOfN(rapid.Int64Range(-3, 20_000_000), 1, 300).Draw(rt, "ops")
		for i, d := range ops {
			switch {
			case d >= 0 && d%3 > 0:
				d %= 3000 // most are near
			case d%5 == 0:
				d *= 1000 // some are hours away
			}
			if d < 0 && len(model) > 0 {
				slices.SortFunc(model, func(a, b item) int {
					if a.less(&b) {
						return -1
					}
					return 1
				})
				it, ev := q.pop()
				if it.seq != model[0].seq || ev.id != it.seq {
					rt.Fatalf("popped %+v, want %+v", it, model[0])
				}
				now = it.at
				model = model[1:]
				continue
			}
			it := item{at: now + max(d, 0), dst: Ref(i % 5), src: Ref(i % 3), seq: uint64(i)}
			q.push(it, event{id: it.seq})
			model = append(model, it)
			if q.Len() != len(model) {
				rt.Fatal("length")
			}
		}
	})
}

func TestSphereDelays(t *testing.T) {
	a := place{1 << 19, 0, 0}
	for _, c := range []struct {
		b    place
		want machine.Duration
	}{
		{place{1 << 19, 0, 0}, 0},
		{place{0, 1 << 18, 0}, antipodal / 2},
		{place{0, 0, -(1 << 18)}, antipodal / 2},
		{place{1 << 18, 1 << 18, 0}, antipodal / 4},
		{place{-(1 << 18), 1 << 18, 0}, antipodal * 3 / 4},
		{place{-(1 << 19), 0, 0}, antipodal},
	} {
		got := Sphere.base(a, c.b) - machine.Millisecond
		if got < c.want-50 || got > c.want+50 {
			t.Errorf("delay to %v: %d µs, want %d", c.b, got, c.want)
		}
	}
}

// BenchmarkQueue takes the time of a pop and a push with so many events pending:
// heartbeats of 5 s, messages on their way, and a few timers of an hour.
func BenchmarkQueue(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var q queue
			r := machine.NewRand(1, id.GUID{}, "queue")
			push := func(now int64, i uint64) {
				var d int64
				switch {
				case i%64 == 0:
					d = int64(machine.Hour)
				case i%2 == 0:
					d = r.Int64N(int64(150 * machine.Millisecond))
				default:
					d = int64(5 * machine.Second)
				}
				q.push(item{at: now + d, dst: Ref(r.Uint32N(uint32(n))), seq: i}, event{})
			}
			for i := range n {
				q.push(item{at: r.Int64N(int64(5 * machine.Second)), dst: Ref(i), seq: uint64(i)}, event{})
			}
			b.ReportAllocs()
			i := uint64(n)
			for b.Loop() {
				it, _ := q.pop()
				push(it.at, i)
				i++
			}
		})
	}
}

func BenchmarkEngine(b *testing.B) {
	e, ts := toyWorld(b, Config{Seed: 1, Topology: Sphere}, 1000)
	for _, m := range ts {
		m.seen = make([]machine.Time, 0, 1<<20)
	}
	for n := range ts {
		e.Do(Ref(n+1), func(now machine.Time, out []machine.Effect) []machine.Effect {
			ts[n].wake = now
			return append(out, machine.Effect{Kind: machine.Send, To: ts[0].self, Msg: toyMsg{1 << 30}})
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for e.Events = 0; e.Events < uint64(b.N); {
		e.Next(machine.Never - 1)
	}
	b.ReportMetric(float64(e.Events)/b.Elapsed().Seconds(), "events/s")
}
