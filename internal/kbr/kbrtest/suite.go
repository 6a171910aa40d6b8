// Package kbrtest is the conformance suite of key-based routing: what any
// overlay behind kbr.Router must do (10-overlay §2). It grows rings of 1, 2,
// 3, 17 and 200 nodes on the test network and holds each to the contract.
package kbrtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

// Node is an overlay node under test.
type Node interface {
	machine.Machine
	kbr.Router
}

// Engine makes nodes.
type Engine struct {
	// New returns a node that has not started, with one application.
	New func(self *id.Handle, app uint16, up kbr.Upcalls) Node
	// Start starts it: through seed, or as the creator of the pool if nil.
	Start func(n Node, now machine.Time, seed *id.Handle, out []machine.Effect) []machine.Effect
	// Decode reads the engine's messages: every message crosses the codec.
	Decode func([]byte) (machine.Message, error)
	// Settle is how long the ring may take to agree after a change.
	Settle machine.Duration
}

// Sizes are the rings the suite grows.
var Sizes = []int{1, 2, 3, 17, 200}

const app uint16 = 0x7e57

// Run runs the suite.
func Run(t *testing.T, e Engine) {
	for _, size := range Sizes {
		t.Run(fmt.Sprintf("N=%d", size), func(t *testing.T) {
			r := grow(t, e, size)
			t.Run("root", r.uniqueRoot)
			t.Run("forward", r.forwardInOrder)
			t.Run("rewrite", r.rewrite)
			t.Run("end", r.end)
			t.Run("refusals", r.refusals)
			t.Run("replicas", r.replicas)
			t.Run("range", r.ranges)
			t.Run("owns", r.owns)
			t.Run("update", r.updates)
			if size > 2 {
				t.Run("death", r.death)
			}
		})
	}
}

// ring is a grown ring.
type ring struct {
	e     Engine
	net   machinetest.Net
	nodes map[id.GUID]Node
	apps  map[id.GUID]*upcalls
	live  []id.GUID // sorted
	keys  int
	trail []step
	// hooks of the test under way
	rewriteAt func(m *kbr.Message) bool
	endAt     func(at id.GUID, m *kbr.Message) bool
}

// step is one Forward upcall.
type step struct {
	at   id.GUID
	next *id.Handle
	key  id.GUID
}

type delivery struct {
	at  id.GUID
	m   kbr.Message
	own kbr.Ownership
}

// upcalls is the application of one node.
type upcalls struct {
	r         *ring
	at        id.GUID
	delivered []delivery
	drops     []error
	leaves    map[id.GUID]bool
	ready     int
}

func (u *upcalls) Forward(_ machine.Time, m *kbr.Message, next *id.Handle, out []machine.Effect) ([]machine.Effect, bool) {
	u.r.trail = append(u.r.trail, step{u.at, next, m.Key})
	if u.r.rewriteAt != nil && u.r.rewriteAt(m) {
		m.Body = append(slices.Clone(m.Body), '+')
	}
	return out, u.r.endAt == nil || !u.r.endAt(u.at, m)
}

func (u *upcalls) Deliver(_ machine.Time, m *kbr.Message, own kbr.Ownership, out []machine.Effect) []machine.Effect {
	u.delivered = append(u.delivered, delivery{u.at, *m, own})
	return out
}

func (u *upcalls) Update(_ machine.Time, n *id.Handle, joined bool, out []machine.Effect) []machine.Effect {
	switch {
	case n.GUID == u.at:
		u.ready++
	case joined:
		u.leaves[n.GUID] = true
	default:
		delete(u.leaves, n.GUID)
	}
	return out
}

func (u *upcalls) Drop(_ machine.Time, _ *kbr.Message, err error, out []machine.Effect) []machine.Effect {
	u.drops = append(u.drops, err)
	return out
}

func guid(kind byte, i int) id.GUID {
	return sha256.Sum256([]byte{kind, byte(i >> 16), byte(i >> 8), byte(i)})
}

func grow(t *testing.T, e Engine, size int) *ring {
	r := &ring{e: e, nodes: map[id.GUID]Node{}, apps: map[id.GUID]*upcalls{}}
	r.net.Delay = 2 * machine.Millisecond
	r.net.Decode = e.Decode
	var seed *id.Handle
	for i := range size {
		h := &id.Handle{GUID: guid('n', i), Epoch: 1, Addrs: []string{"test"}}
		u := &upcalls{r: r, at: h.GUID, leaves: map[id.GUID]bool{}}
		n := e.New(h, app, u)
		r.nodes[h.GUID], r.apps[h.GUID] = n, u
		r.live = append(r.live, h.GUID)
		r.net.Add(h, n)
		r.net.Perform(h.GUID, e.Start(n, r.net.Now, seed, nil))
		if !r.net.Until(e.Settle, n.Ready) {
			t.Fatalf("node %d of %d is not ready", i, size)
		}
		if seed == nil {
			seed = h
		}
	}
	slices.SortFunc(r.live, id.GUID.Cmp)
	r.net.Run(e.Settle)
	return r
}

func (r *ring) key() id.GUID {
	r.keys++
	return guid('k', r.keys)
}

func (r *ring) root(k id.GUID) id.GUID {
	return slices.MinFunc(r.live, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
}

// route sends one message and returns who delivered it.
func (r *ring) route(from id.GUID, m kbr.Message) []delivery {
	for _, u := range r.apps {
		u.delivered, u.drops = nil, nil
	}
	r.trail = nil
	m.App = app
	r.net.Perform(from, r.nodes[from].Route(r.net.Now, m, nil, nil))
	r.net.Run(2 * machine.Second)
	var all []delivery
	for _, g := range r.live {
		all = append(all, r.apps[g].delivered...)
	}
	return all
}

// One root for every key, whoever asks, for both classes.
func (r *ring) uniqueRoot(t *testing.T) {
	for i := range 20 {
		k, from := r.key(), r.live[i*7%len(r.live)]
		class := kbr.Class(i % 2)
		got := r.route(from, kbr.Message{Key: k, Class: class, Body: []byte("b")})
		if len(got) != 1 || got[0].at != r.root(k) || string(got[0].m.Body) != "b" {
			t.Fatalf("key %s class %d delivered %d times, root %s: %v", k.Short(), class, len(got), r.root(k).Short(), got)
		}
		own := got[0].own
		if class == kbr.Owned && (!own.OK || !own.Arc.Contains(k) || own.Until <= r.net.Now.Add(-2*machine.Second)) {
			t.Fatalf("owned delivery without a lease: %+v", own)
		}
	}
}

// Forward runs once per hop in order, origin and root included.
func (r *ring) forwardInOrder(t *testing.T) {
	for i := range 10 {
		k, from := r.key(), r.live[i*11%len(r.live)]
		r.route(from, kbr.Message{Key: k})
		at := from
		for j, s := range r.trail {
			if s.at != at || s.key != k {
				t.Fatalf("Forward %d ran at %s, want %s", j, s.at.Short(), at.Short())
			}
			if s.next == nil {
				if j != len(r.trail)-1 || at != r.root(k) {
					t.Fatalf("no next hop at %s, which is not the root", at.Short())
				}
				break
			}
			at = s.next.GUID
		}
		if len(r.trail) == 0 || r.trail[len(r.trail)-1].next != nil {
			t.Fatal("Forward did not run at the root")
		}
	}
}

// What Forward writes arrives.
func (r *ring) rewrite(t *testing.T) {
	defer func() { r.rewriteAt = nil }()
	r.rewriteAt = func(*kbr.Message) bool { return true }
	k, from := r.key(), r.live[0]
	got := r.route(from, kbr.Message{Key: k, Body: []byte("b")})
	if want := "b" + string(slices.Repeat([]byte("+"), len(r.trail))); len(got) != 1 || string(got[0].m.Body) != want {
		t.Fatalf("delivered %v, want body %q", got, want)
	}
}

// Forward may end a message.
func (r *ring) end(t *testing.T) {
	defer func() { r.endAt = nil }()
	k := r.key()
	root := r.root(k)
	r.endAt = func(at id.GUID, _ *kbr.Message) bool { return at == root }
	if got := r.route(r.live[0], kbr.Message{Key: k}); len(got) != 0 {
		t.Fatalf("delivered although ended: %v", got)
	}
	if len(r.trail) == 0 || r.trail[len(r.trail)-1].at != root {
		t.Fatal("never reached where it was to end")
	}
}

func (r *ring) refusals(t *testing.T) {
	g := r.live[0]
	refused := func(m kbr.Message, want error) {
		t.Helper()
		if got := r.route(g, m); len(got) != 0 {
			t.Fatalf("delivered in spite of %v", want)
		}
		if d := r.apps[g].drops; len(d) != 1 || !errors.Is(d[0], want) {
			t.Fatalf("dropped with %v, want %v", d, want)
		}
	}
	refused(kbr.Message{Key: r.key(), Body: make([]byte, kbr.MaxBody+1)}, kbr.ErrTooLarge)
	refused(kbr.Message{Key: r.key(), Hops: 255}, kbr.ErrHops)
	if got := r.route(g, kbr.Message{Key: r.key(), Body: make([]byte, kbr.MaxBody)}); len(got) != 1 {
		t.Fatalf("the largest body was delivered %d times", len(got))
	}
	if len(r.live) > 1 {
		// Too little time for even one hop.
		k := r.key()
		for r.root(k) == g {
			k = r.key()
		}
		if got := r.route(g, kbr.Message{Key: k, Deadline: machine.Microsecond}); len(got) != 0 {
			t.Fatal("delivered after its deadline")
		}
		dropped := 0
		for _, u := range r.apps {
			for _, err := range u.drops {
				if errors.Is(err, kbr.ErrDeadline) {
					dropped++
				}
			}
		}
		if dropped == 0 {
			t.Fatal("nobody was told of the deadline")
		}
	}
}

// ReplicaSet starts with the root and is the true one wherever it is known;
// the root of a key knows it.
func (r *ring) replicas(t *testing.T) {
	for range 30 {
		k := r.key()
		for rank := 1; rank <= 8; rank++ {
			want := slices.Clone(r.live)
			slices.SortFunc(want, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
			want = want[:min(rank, len(want))]
			for _, g := range []id.GUID{r.root(k), r.live[r.keys%len(r.live)]} {
				set, ok := r.nodes[g].ReplicaSet(k, rank)
				if !ok {
					if g == want[0] {
						t.Fatalf("the root of %s does not know its replica set of %d", k.Short(), rank)
					}
					continue
				}
				got := make([]id.GUID, len(set))
				for i, h := range set {
					got[i] = h.GUID
				}
				if !slices.Equal(got, want) {
					t.Fatalf("replica set of %s at %s is wrong", k.Short(), g.Short())
				}
			}
		}
	}
}

// A key is on Range(n, rank) exactly if n is in its replica set.
func (r *ring) ranges(t *testing.T) {
	for i := range 30 {
		k, g := r.key(), r.live[i%len(r.live)]
		for rank := 1; rank <= 4; rank++ {
			arc, ok := r.nodes[g].Range(g, rank)
			if !ok {
				t.Fatalf("%s does not know its own range", g.Short())
			}
			order := slices.Clone(r.live)
			slices.SortFunc(order, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
			if want := slices.Index(order, g) < rank; arc.Contains(k) != want {
				t.Fatalf("%s on the range of %s at rank %d: %v", k.Short(), g.Short(), rank, !want)
			}
		}
	}
}

// Exactly one node owns a key once the ring has settled.
func (r *ring) owns(t *testing.T) {
	for range 20 {
		k := r.key()
		for _, g := range r.live {
			if own := r.nodes[g].Owns(r.net.Now, k); own.OK != (g == r.root(k)) {
				t.Fatalf("%s owns %s: %v; root %s", g.Short(), k.Short(), own.OK, r.root(k).Short())
			}
		}
	}
}

// Update has told of every change: what it told adds up to the leaf set.
func (r *ring) updates(t *testing.T) {
	for _, g := range r.live {
		u, set := r.apps[g], r.nodes[g].NeighborSet(1000)
		if u.ready != 1 {
			t.Fatalf("%s was told %d times that it is ready", g.Short(), u.ready)
		}
		if len(set) != len(u.leaves) {
			t.Fatalf("%s has %d leaves, was told of %d", g.Short(), len(set), len(u.leaves))
		}
		for _, h := range set {
			if !u.leaves[h.GUID] {
				t.Fatalf("%s was not told of leaf %s", g.Short(), h.GUID.Short())
			}
		}
	}
}

// 60 s after a death no replica set names the dead, and all still holds.
func (r *ring) death(t *testing.T) {
	dead := r.live[len(r.live)/2]
	r.net.Kill(dead)
	r.live = slices.DeleteFunc(r.live, func(g id.GUID) bool { return g == dead })
	r.net.Run(60 * machine.Second)
	for _, g := range r.live {
		if set, ok := r.nodes[g].ReplicaSet(dead, 8); ok {
			for _, h := range set {
				if h.GUID == dead {
					t.Fatalf("%s still names the dead node", g.Short())
				}
			}
		}
	}
	r.replicas(t)
	r.owns(t)
	r.updates(t)
	if got := r.route(r.live[0], kbr.Message{Key: dead, Class: kbr.Owned}); len(got) != 1 || got[0].at != r.root(dead) {
		t.Fatalf("the dead node's key: %v", got)
	}
}
