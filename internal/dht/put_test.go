package dht

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

func TestPutGetAtEverySize(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 8} {
		w := newWorld(t, LAN())
		w.grow(n)
		for i := range 20 {
			b := block(uint64(i), 100+i*500)
			d := w.put(w.nodes[i%n], b)
			if want := quorum(min(3, n)); len(d.Receipts) != want {
				t.Fatalf("%d nodes: %d receipts, want %d", n, len(d.Receipts), want)
			}
			w.run(machine.Second)
			if got := len(w.holders(b)); got != min(3, n) {
				t.Fatalf("%d nodes: %d copies", n, got)
			}
			for _, x := range w.nodes {
				w.get(x, b)
			}
		}
		w.getErr(w.nodes[0], block(1<<40, 10), ErrNotFound)
	}
}

func TestKnownBlockNeedsNoBytes(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	b := block(1, 4000)
	w.put(w.nodes[0], b)
	w.run(machine.Second)
	c := w.putCmd(b, 2)
	c.Block = nil
	r, err := w.do(w.nodes[1], c)
	if err != nil || !r.(PutDone).Known || len(r.(PutDone).Receipts) != 2 {
		t.Fatalf("known block: %v, %v", r, err)
	}
	c = w.putCmd(block(2, 100), 1)
	c.Block = nil
	if _, err = w.do(w.nodes[1], c); !errors.Is(err, ErrNotFound) {
		t.Fatalf("unknown block without bytes: %v", err)
	}
	c = w.putCmd(block(3, 100), 1)
	c.Try = true
	if _, err = w.do(w.nodes[1], c); err != nil {
		t.Fatalf("bytes follow where wanted: %v", err)
	}
	w.get(w.nodes[3], block(3, 100))
}

// A pool of two shrinks to one while a put, a remove and a signed put wait for
// the member that goes: they do with one receipt as soon as it has left.
func TestPoolShrinksWhileWaiting(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(2)
	stays, goes := w.nodes[0], w.nodes[1]
	b := block(1, 500)
	w.put(stays, b)
	w.run(machine.Second)
	w.net.Drop = func(f machinetest.Flight) bool { return f.To == goes.h || f.From == goes.h }
	cmds := map[string]uint64{
		"put":        w.start(stays, w.putCmd(block(2, 500), 1)),
		"remove":     w.start(stays, w.removeCmd(b, 1)),
		"signed put": w.start(stays, PutSignedCmd{Rec: w.signed("s", 1, "value")}),
	}
	w.run(4 * machine.Second)
	for what, cmd := range cmds {
		if w.replies[cmd] != nil {
			t.Errorf("%s answered with one of two members: %v", what, w.replies[cmd])
		}
	}
	w.leave(goes)
	w.run(2 * machine.Second)
	for what, cmd := range cmds {
		if r := w.replies[cmd]; r == nil || r.Err != nil {
			t.Errorf("%s two seconds after the other has left: %v", what, r)
		}
	}
	w.get(stays, block(2, 500))
	if n := w.stats().Strikes; n != 0 {
		t.Errorf("%d strikes among honest nodes", n)
	}
}

// A member that lost its disk gets a block back with a second claim. When that
// claim ends, the copy stays for the first.
func TestCopyMadeForOneClaimKnowsTheOthers(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	b := block(1, 4000)
	w.put(w.nodes[0], b)
	w.run(machine.Second)
	set := w.set(b)
	lost := set[len(set)-1]
	w.kill(lost)
	clear(lost.disk)
	w.boot(lost)
	w.putClaim(set[0], b, 2)
	w.run(10 * machine.Millisecond)
	if _, err := w.do(set[0], w.removeCmd(b, 2)); err != nil {
		t.Fatal(err)
	}
	w.run(10 * machine.Millisecond)
	if got := len(w.holders(b)); got != 3 {
		t.Fatalf("%d copies after one of two claims has ended, want 3", got)
	}
}

func TestHeadCountsCopies(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	a, b, c := block(1, 1000), block(2, 2000), block(3, 10)
	w.put(w.nodes[0], a)
	w.put(w.nodes[1], b)
	w.run(machine.Second)
	r, err := w.do(w.nodes[5], HeadCmd{idsOf(a, b, c)})
	if err != nil {
		t.Fatal(err)
	}
	ps := r.([]Presence)
	if ps[0].Copies != 3 || ps[0].InSet != 3 || ps[0].Size != uint32(len(a)) || ps[0].Target != 3 || !ps[0].Sure {
		t.Errorf("a: %+v", ps[0])
	}
	if ps[1].Copies != 3 || ps[2].Copies != 0 {
		t.Errorf("b: %+v, c: %+v", ps[1], ps[2])
	}
}

func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(4)
	var bs [][]byte
	for i := range 50 {
		bs = append(bs, block(uint64(i), 200))
		w.put(w.nodes[i%4], bs[i])
	}
	for _, x := range w.nodes {
		w.crash(x)
	}
	for _, x := range w.nodes {
		w.boot(x)
	}
	w.run(5 * machine.Second)
	for i, b := range bs {
		w.get(w.nodes[(i+1)%4], b)
	}
}

// A put of a block that is here is acknowledged on bytes that read back: copies
// that have rotted since are written again, with the bytes of the put or another
// copy's.
func TestPutProvesTheCopiesThere(t *testing.T) {
	for name, withBytes := range map[string]bool{"bytes": true, "claim alone": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, LAN())
			w.grow(8)
			b := block(77, 20_000)
			w.put(w.outsider(b), b)
			w.run(2 * machine.Second)
			for _, x := range w.set(b)[1:] {
				x.disk[blockKey(b)] = []byte("rotten")
			}
			cmd := w.putCmd(b, 2)
			if !withBytes {
				cmd.Block = nil
			}
			if _, err := w.do(w.outsider(b), cmd); err != nil {
				t.Fatal(err)
			}
			good := 0
			for _, x := range w.set(b) {
				if bytes.Equal(x.disk[blockKey(b)], b) {
					good++
				}
			}
			if good < 2 {
				t.Errorf("acknowledged on %d good copies", good)
			}
		})
	}
}

// An owner that has all the claims on a block that it may have is told so, by a
// code of its own: no member is taken for full, and no bytes go elsewhere.
func TestClaimsOfOneOwner(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	b := block(1, 4000)
	for c := range MaxPerOwner {
		w.putClaim(w.nodes[c%6], b, byte(c))
	}
	w.run(machine.Second)
	for i, x := range w.nodes {
		cmd := w.putCmd(b, byte(100+i))
		if i%2 == 0 {
			cmd.Block = nil
		}
		_, err := w.do(x, cmd)
		r, ok := err.(*Refusal)
		if !ok || r.Code != CodeClaims || len(r.Nodes) != 0 {
			t.Fatalf("claim %d of an owner: %v", MaxPerOwner+1, err)
		}
		w.putClaim(x, b, byte(i)) // one that is there may be renewed
	}
	w.run(machine.Second)
	w.noneFull()
	if w.stats().Diverted != 0 || len(w.holders(b)) != 3 {
		t.Errorf("%d diverted, %d copies", w.stats().Diverted, len(w.holders(b)))
	}
	cmd := w.putCmd(b, 100)
	cmd.Cert = w.cert(b, ownerKey(201), 100, uint64(w.wall()))
	if _, err := w.do(w.nodes[0], cmd); err != nil {
		t.Errorf("another owner's claim: %v", err)
	}
	if _, err := w.do(w.nodes[1], w.removeCmd(b, 7)); err != nil {
		t.Fatal(err)
	}
	w.run(machine.Second)
	w.putClaim(w.nodes[2], b, 101)
}

// A member of the set is behind the others, and has room for a claim that is one
// too many. Through another member nobody takes it; where that one coordinates it
// does, and who is refused learns of it, to end the claim.
func TestClaimsPastAMemberBehind(t *testing.T) {
	for run := range 4 {
		i, slow := run%2, run >= 2 // slow: the others refuse before the claim is on a disk
		w := newWorld(t, LAN())
		w.grow(6)
		b := block(1, 4000)
		w.put(w.nodes[0], b)
		w.run(machine.Second)
		set := w.set(b)
		behind := set[i]
		w.net.Drop = func(f machinetest.Flight) bool { return f.To == behind.h || f.From == behind.h }
		for c := range MaxPerOwner - 1 {
			w.putClaim(set[1-i], b, byte(c+2))
		}
		w.net.Drop = nil
		if slow {
			w.lag = func(_ id.GUID, e machine.Effect) machine.Duration {
				if e.Kind == machine.Store {
					return 100 * machine.Millisecond
				}
				return 0
			}
		}
		cmd := w.putCmd(b, 100)
		_, err := w.do(set[0], cmd)
		w.run(machine.Second)
		r, ok := err.(*Refusal)
		if !ok || r.Code != CodeClaims {
			t.Fatal(err)
		}
		if took := behind.n.knows(&cmd.Cert); took != (i == 0) || took != slices.Contains(r.Nodes, behind.h.GUID) {
			t.Errorf("member %d is behind (slow %t); it took the claim: %t, it is said of %d", i, slow, took, len(r.Nodes))
		}
		w.noneFull()
		if _, err := w.do(set[0], w.removeCmd(b, 100)); err != nil {
			t.Fatal(err)
		}
	}
}

// While a member is away, claims end and others take their places. It learns of
// both: what came may not wait for what it still has.
func TestClaimsReplacedWhileAway(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(6)
	b := block(1, 4000)
	for c := range MaxPerOwner {
		w.putClaim(w.nodes[c%6], b, byte(c))
	}
	w.run(machine.Second)
	away := w.set(b)[1]
	w.kill(away)
	x := w.set(b)[0]
	for c := range 10 {
		if _, err := w.do(x, w.removeCmd(b, byte(c))); err != nil {
			t.Fatal(err)
		}
		w.putClaim(x, b, byte(100+c))
	}
	w.run(machine.Second)
	w.boot(away)
	w.run(machine.Minute)
	for c := range 10 {
		cert := w.cert(b, w.owner, byte(100+c), 0)
		if !away.n.knows(&cert) {
			t.Errorf("claim %d is not known to who was away", 100+c)
		}
	}
	if n := away.n.Stats().Unsynced; n != 0 {
		t.Errorf("%d arcs not entered a minute after its return", n)
	}
}

// A block has been put and removed more often than one Offer can tell. A member
// that was away learns of the last removal all the same, and drops its copy.
func TestMoreTombstonesThanAnOffer(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(3)
	b := block(1, 4000)
	w.put(w.nodes[0], b)
	w.run(machine.Second)
	before := make([]Remove, 3*maxRecords)
	for i := range before {
		m := w.removeCmd(b, 0).Rec
		m.Claim = [16]byte{byte(i), byte(i >> 8), 1}
		m.SignWith(signer(w.owner))
		before[i] = m
	}
	for _, x := range w.nodes {
		w.net.Perform(x.h.GUID, x.n.with(w.net.Now, nil, func() {
			x.n.merge(GUIDOf(b), nil, before, nil, RoleReplica, func(merged) {})
		}))
	}
	w.run(machine.Second)
	away := w.set(b)[1]
	w.kill(away)
	if _, err := w.do(w.set(b)[0], w.removeCmd(b, 1)); err != nil {
		t.Fatal(err)
	}
	w.run(machine.Second)
	w.boot(away)
	w.run(machine.Minute)
	if n := len(w.holders(b)); n != 0 {
		t.Errorf("%d copies after the last claim has ended", n)
	}
	w.getErr(w.nodes[0], b, ErrRemoved)

	clear(away.disk)
	w.kill(away)
	w.boot(away)
	w.run(machine.Minute)
	if _, n := away.n.tree.get(GUIDOf(b)).count(); n != len(before)+1 {
		t.Errorf("who lost its disk knows %d of %d tombstones", n, len(before)+1)
	}
}

// noneFull checks that nobody takes anybody for full.
func (w *world) noneFull() {
	w.t.Helper()
	for _, x := range w.nodes {
		for _, y := range w.nodes {
			if p := x.n.lookup(y.h.GUID); p != nil && p.fullTill > w.net.Now {
				w.t.Errorf("%s takes %s for full", x.h.GUID.Short(), y.h.GUID.Short())
			}
		}
	}
}
