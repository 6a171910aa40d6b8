package dht

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/store"
)

func tombKey(m *Remove) store.Key {
	return store.Key{Family: store.Tombstone, GUID: m.GUID, Sub: subKey(m.Owner, m.Claim)}
}

func blockKey(b []byte) store.Key { return store.Key{Family: store.Block, GUID: GUIDOf(b)} }

// Nobody has room: full, naming nodes; nothing is left behind.
func TestFull(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	for _, x := range w.nodes {
		x.limit = 100_000
	}
	b := block(32, 60_000)
	_, err := w.do(w.nodes[0], w.putCmd(b, 1))
	if r, ok := err.(*Refusal); !ok || r.Code != CodeFull {
		t.Fatalf("put on full disks: %v", err)
	}
	if len(w.holders(b)) != 0 {
		t.Error("a refused put left copies")
	}
	// The disk itself says full (ENOSPC): the same.
	for _, x := range w.nodes {
		x.limit, x.full = 1<<40, true
	}
	if _, err = w.do(w.nodes[0], w.putCmd(b, 1)); err == nil || err.(*Refusal).Code != CodeFull {
		t.Fatalf("put on disks without space: %v", err)
	}
	for _, x := range w.nodes {
		x.full = false
	}
	w.put(w.nodes[0], b)
}

// Who removes what is not there is told so, and leaves nothing behind. Where a
// member of the set is silent it may have the block: then the claim is ended.
func TestRemoveOfNothing(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	tombs := func() (c int) {
		for _, x := range w.nodes {
			for k := range x.disk {
				if k.Family == store.Tombstone {
					c++
				}
			}
		}
		return c
	}
	for i := range 30 {
		b := block(uint64(5000+i), 100)
		for _, x := range []*tnodeT{w.outsider(b), w.set(b)[0], w.set(b)[2]} {
			if _, err := w.do(x, w.removeCmd(b, 1)); !errors.Is(err, ErrNotFound) {
				t.Fatalf("remove of what never was: %v", err)
			}
		}
	}
	if c := tombs(); c != 0 {
		t.Errorf("%d tombstones of what never was", c)
	}
	b := block(5000, 100)
	silent := w.set(b)[2].h.GUID
	w.net.Drop = func(f machinetest.Flight) bool { return f.To.GUID == silent }
	if _, err := w.do(w.set(b)[0], w.removeCmd(b, 1)); err != nil || tombs() < 2 {
		t.Errorf("remove while a member is silent: %v, %d tombstones", err, tombs())
	}
	w.net.Drop = nil
	if _, err := w.do(w.set(b)[0], w.removeCmd(b, 1)); err != nil {
		t.Errorf("once more: %v", err)
	}
	if n := w.stats().Strikes; n != 0 {
		t.Errorf("%d strikes among honest nodes", n)
	}
}

// A put that was given up is still being written when its claim is ended: that is
// not taken for a removal of what never was, and nothing stays.
func TestRemoveDuringPut(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	w.lag = func(_ id.GUID, e machine.Effect) machine.Duration {
		if e.Kind == machine.Store {
			return 100 * machine.Millisecond
		}
		return machine.Millisecond
	}
	b := block(7, 4000)
	x := w.outsider(b)
	put := w.start(x, w.putCmd(b, 1))
	w.run(20 * machine.Millisecond)
	if len(w.holders(b)) != 0 {
		t.Fatal("the put is over already")
	}
	if _, err := w.do(x, w.removeCmd(b, 1)); err != nil {
		t.Errorf("remove during the put: %v", err)
	}
	_, _ = w.wait(put) // acknowledged, or removed
	w.run(machine.Second)
	if n := len(w.holders(b)); n != 0 {
		t.Errorf("%d copies are left", n)
	}
}

// A copy rots: the scrub finds it, it is neither served nor counted, and
// fetched again.
func TestScrubRefetches(t *testing.T) {
	cfg := LAN()
	cfg.ScrubPeriod = machine.Hour
	w := newWorld(t, cfg)
	w.grow(5)
	bs := w.fill(20)
	x := w.holders(bs[3])[0]
	x.disk[blockKey(bs[3])] = []byte("rotten")
	w.run(90 * machine.Minute)
	if !bytes.Equal(x.disk[blockKey(bs[3])], bs[3]) {
		t.Error("the bad copy has not been replaced")
	}
	if s := w.stats(); s.Corrupt != 1 {
		t.Errorf("%d corrupt", s.Corrupt)
	}
	if s := w.survey(w.nodes[0]); s.Total.Full != 20 {
		t.Errorf("%+v", s.Total)
	}
}

// A rotten copy is met by a read: another replica serves it.
func TestReadPastRottenCopy(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	b := w.fill(1)[0]
	for _, x := range w.set(b)[:2] {
		x.disk[blockKey(b)] = []byte("rotten")
	}
	w.get(w.outsider(b), b)
	w.get(w.set(b)[0], b)
	w.get(w.set(b)[1], b)
	w.run(time20)
	for _, x := range w.set(b) {
		if !bytes.Equal(x.disk[blockKey(b)], b) {
			t.Error("a bad copy has not been replaced")
		}
	}
}

// A holder sends wrong bytes: the reader notices, reads elsewhere, counts it
// against the holder, and sends it good ones.
func TestWrongBytes(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	b := w.fill(1)[0]
	liar := w.set(b)[0]
	x := w.outsider(b)
	x.rtt[liar.h.GUID] = 1
	evil := bytes.Clone(b)
	evil[20] ^= 1
	liar.disk[blockKey(b)] = evil
	w.get(x, b)
	if s := x.n.Stats(); s.WrongBytes != 1 || s.Strikes != 1 {
		t.Errorf("wrong bytes %d, strikes %d", s.WrongBytes, s.Strikes)
	}
	w.run(machine.Second)
	if !bytes.Equal(liar.disk[blockKey(b)], b) {
		t.Error("the holder did not get a good copy")
	}
}

// The nearest holder is slow: a second read goes out after 50 ms, within 5 %.
func TestHedge(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	bs := w.fill(40)
	w.lag = func(_ id.GUID, e machine.Effect) machine.Duration { return machine.Millisecond }
	for i := range 400 {
		b := bs[i%40]
		x := w.outsider(b)
		for _, y := range w.set(b) {
			x.rtt[y.h.GUID] = 1000
		}
		w.get(x, b)
	}
	b := bs[0]
	slow := w.set(b)[0]
	x := w.outsider(b)
	x.rtt[slow.h.GUID] = 1
	w.lag = func(g id.GUID, e machine.Effect) machine.Duration {
		if g == slow.h.GUID && e.Kind == machine.Load {
			return 5 * machine.Second
		}
		return machine.Millisecond
	}
	start := w.net.Now
	w.get(x, b)
	if d := w.net.Now.Sub(start); d > 100*machine.Millisecond {
		t.Errorf("a hedged read took %d ms", d.Milliseconds())
	}
	if x.n.Stats().Hedges == 0 {
		t.Error("no hedge")
	}
}

// Two members die just when reads that took long under load had been the rule. Who
// reads on does not wait for each of the dead, over and over, as long as it waited
// for a busy one.
func TestReadsAfterAKillUnderLoad(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(8)
	bs := w.fill(60)
	x := w.nodes[0]
	w.lag = func(_ id.GUID, e machine.Effect) machine.Duration {
		if e.Kind == machine.Load {
			return 2 * machine.Second
		}
		return machine.Millisecond
	}
	for _, b := range bs {
		w.get(x, b)
	}
	w.lag = nil
	dead := []*tnodeT{w.nodes[3], w.nodes[4]}
	for _, y := range dead {
		w.crash(y) // the overlay has yet to notice
		x.rtt[y.h.GUID] = 1
	}
	start, worst := w.net.Now, machine.Duration(0)
	for _, b := range bs {
		at := w.net.Now
		w.get(x, b)
		worst = max(worst, w.net.Now.Sub(at))
	}
	all := w.net.Now.Sub(start)
	if worst > 4*machine.Second || all > 8*machine.Second {
		t.Errorf("%d ms for one read, %d ms for all", worst.Milliseconds(), all.Milliseconds())
	}
}

// What no honest node sends is told of, each time.
func TestBadInput(t *testing.T) {
	var told []id.GUID
	cfg := LAN()
	cfg.BadInput = func(g id.GUID, _ string) { told = append(told, g) }
	w := newWorld(t, cfg)
	w.grow(3)
	a, b := w.nodes[0], w.nodes[1]
	good := block(1, 100)
	cert := w.cert(good, w.owner, 1, uint64(w.wall()))
	cert.Sig[0] ^= 1
	for i := range 3 {
		w.net.Feed(a.h.GUID, machine.Event{Kind: machine.Receive, From: b.h, Msg: &putMsg{req: uint64(i), cert: cert, block: good}})
	}
	if s := a.n.Stats(); s.Strikes != 3 || !slices.Equal(told, []id.GUID{b.h.GUID, b.h.GUID, b.h.GUID}) {
		t.Errorf("strikes %d, told of %v", s.Strikes, told)
	}
}

// What an honest client can get wrong is refused with its own code.
func TestRefusals(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(4)
	b := block(1, 100)
	code := func(c PutCmd) string {
		t.Helper()
		_, err := w.do(w.nodes[0], c)
		r, ok := err.(*Refusal)
		if !ok {
			t.Fatalf("not refused: %v", err)
		}
		return r.Code
	}
	c := PutCmd{Cert: w.cert(b, w.owner, 1, uint64(w.wall())+maxFuture+60_000), Block: b}
	if got := code(c); got != CodeClock {
		t.Errorf("clock ahead: %s", got)
	}
	c = PutCmd{Cert: w.cert(b, w.owner, 1, uint64(w.wall())), Block: b}
	c.Cert.Pool[5]++
	if got := code(c); got != CodeNotMember {
		t.Errorf("other pool: %s", got)
	}
}

// Every planted bug that a story can meet is met: the checks that the
// simulator relies on would notice.
func TestPlantedBugsShow(t *testing.T) {
	t.Run("have taken for an acknowledgement", func(t *testing.T) {
		cfg := LAN()
		cfg.Bugs.HaveIsAck = true
		w := newWorld(t, cfg)
		w.grow(5)
		b := block(1, 100)
		w.put(w.nodes[0], b)
		w.run(machine.Second)
		w.net.Drop = func(f machinetest.Flight) bool {
			return f.To.GUID != w.nodes[0].h.GUID && f.From.GUID != w.nodes[0].h.GUID
		}
		root := w.set(b)[0]
		if d := w.putClaim(root, b, 2); len(d.Receipts) >= 2 {
			t.Error("the bug does not show")
		}
	})
	t.Run("ack before fsync", func(t *testing.T) {
		cfg := LAN()
		cfg.Bugs.AckBeforeFsync = true
		w := newWorld(t, cfg)
		w.grow(5)
		w.lag = func(_ id.GUID, e machine.Effect) machine.Duration {
			if e.Kind == machine.Store {
				return 10 * machine.Second
			}
			return machine.Millisecond
		}
		b := block(1, 100)
		w.put(w.nodes[0], b)
		if len(w.holders(b)) != 0 {
			t.Error("the bug does not show")
		}
	})
	t.Run("claim ignored", func(t *testing.T) {
		cfg := LAN()
		cfg.Bugs.IgnoreClaim = true
		w := newWorld(t, cfg)
		w.grow(5)
		b := block(1, 100)
		w.putClaim(w.nodes[0], b, 1)
		w.putClaim(w.nodes[0], b, 2)
		w.run(machine.Second)
		if _, err := w.do(w.nodes[0], w.removeCmd(b, 1)); err != nil {
			t.Fatal(err)
		}
		w.run(machine.Second)
		if len(w.holders(b)) != 0 {
			t.Error("the bug does not show")
		}
	})
	t.Run("stand-in dropped", func(t *testing.T) {
		cfg := LAN()
		cfg.Bugs.DropStandIn = true
		w := newWorld(t, cfg)
		w.grow(6)
		b := block(1, 100)
		w.crash(w.set(b)[1])
		w.crash(w.set(b)[1])
		w.put(w.set(b)[0], b)
		w.reseat()
		w.boot(w.nodes[slices.IndexFunc(w.nodes, func(x *tnodeT) bool { return !x.up })])
		w.boot(w.nodes[slices.IndexFunc(w.nodes, func(x *tnodeT) bool { return !x.up })])
		w.run(3 * machine.Second)
		if w.stats().Surplus == 0 {
			t.Error("the bug does not show")
		}
	})
}

// Audit counts, proves, and repairs.
func TestAudit(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	bs := w.fill(6)
	delete(w.set(bs[0])[1].disk, blockKey(bs[0]))
	evil := bytes.Clone(bs[1])
	evil[30] ^= 1
	w.set(bs[1])[2].disk[blockKey(bs[1])] = evil
	r, err := w.do(w.outsider(bs[1]), AuditCmd{GUIDs: idsOf(bs...), Deep: true, Repair: true})
	if err != nil {
		t.Fatal(err)
	}
	as := r.([]Audit)
	if as[0].Valid != 3 || as[0].Repaired != 1 {
		t.Errorf("lost copy: %+v", as[0])
	}
	if as[1].Corrupt != 1 || as[1].Valid < 2 || !slices.Equal(as[1].Bad, []id.GUID{w.set(bs[1])[2].h.GUID}) {
		t.Errorf("corrupt copy: %+v", as[1])
	}
	if as[2].Valid != 3 || as[2].Corrupt != 0 || as[2].Missing != 0 {
		t.Errorf("good block: %+v", as[2])
	}
	w.run(time20)
	for _, b := range bs[:2] {
		for _, x := range w.set(b) {
			if !bytes.Equal(x.disk[blockKey(b)], b) {
				t.Error("not repaired")
			}
		}
	}
	r, _ = w.do(w.nodes[0], AuditCmd{GUIDs: idsOf(block(999, 10))})
	if a := r.([]Audit)[0]; a.Valid != 0 || a.Missing != 3 {
		t.Errorf("nothing there: %+v", a)
	}
}

// In a ring larger than the leaf sets, lookups are routed and cached by arc.
func TestLargerRing(t *testing.T) {
	cfg := LAN()
	w := newWorld(t, cfg)
	w.span = 8
	w.grow(48)
	var bs [][]byte
	for i := range 60 {
		b := block(uint64(i), 200)
		w.put(w.nodes[(7*i)%48], b)
		bs = append(bs, b)
	}
	w.run(machine.Second)
	for i, b := range bs {
		w.get(w.nodes[(11*i+5)%48], b)
		for _, x := range w.set(b) {
			if !slices.Contains(w.holders(b), x) {
				t.Fatal("a copy is not where it belongs")
			}
		}
	}
	if w.stats().Locates == 0 {
		t.Error("nothing was looked up")
	}
	w.getErr(w.nodes[3], block(1<<33, 10), ErrNotFound)
	for i := range 4 {
		w.kill(w.nodes[i*11])
	}
	w.run(20 * machine.Minute)
	for i, b := range bs {
		if c := w.liveCopies(b); c < 3 {
			t.Errorf("%d copies", c)
		}
		w.get(w.nodes[(11*i+6)%11+1], b)
	}
}

// A node comes back with hundreds of copies that are strays by now, removed while
// it was away: in one round they are gone.
func TestManyStraysInARound(t *testing.T) {
	w := newWorld(t, LAN())
	w.span = 7
	w.grow(6)
	bs := w.fill(800)
	x := w.nodes[2]
	w.kill(x)
	for i := range 20 {
		w.boot(w.at(fmt.Sprintf("%03x", 204*i+7)))
		w.run(2 * machine.Second)
	}
	w.run(16 * machine.Minute)
	for i, b := range bs {
		if _, err := w.do(w.nodes[i%2], w.removeCmd(b, 1)); err != nil {
			t.Fatal(err)
		}
	}
	w.boot(x)
	had := x.usage().Blocks
	w.run(13 * machine.Minute)
	if has := x.usage().Blocks; had < 300 || has > 0 {
		t.Errorf("%d of %d copies outlive the remove", has, had)
	}
}

// Many nodes join around a holder until it is far outside the set, and no
// candidate any more: a remove reaches its copy all the same.
func TestRemoveReachesStrays(t *testing.T) {
	w := newWorld(t, LAN())
	w.span = 7
	w.grow(20)
	b := block(77, 300)
	w.put(w.nodes[0], b)
	w.run(machine.Second)
	old := w.set(b)
	g := GUIDOf(b).String()
	for i := range 24 {
		w.boot(w.at(g[:4] + string("0123456789abcdef"[i%16]) + string("05af"[i/16])))
		w.run(2 * machine.Second)
	}
	w.run(30 * machine.Minute)
	if _, err := w.do(w.nodes[1], w.removeCmd(b, 1)); err != nil {
		t.Fatal(err)
	}
	w.run(40 * machine.Minute)
	if h := w.holders(b); len(h) != 0 {
		t.Errorf("%d copies outlive the remove, %v of the old set", len(h), slices.Contains(old, h[0]))
	}
}
