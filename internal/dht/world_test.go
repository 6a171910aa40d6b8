package dht

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/trace"
)

// world is a pool in memory: a perfect ring, a roster all agree on, disks that
// survive their node, and commands that wait for their answers.
type world struct {
	t        testing.TB
	net      machinetest.Net
	cfg      Config
	nodes    []*tnodeT
	by       map[id.GUID]*tnodeT
	span     int // members a node sees around itself; 0: the whole ring
	pool     [32]byte
	owner    ed25519.PrivateKey
	cmds     uint64
	replies  map[uint64]*machine.Effect
	notes    []any
	traces   []trace.Event
	members  []id.GUID // roster, sorted
	revoked  map[id.GUID]bool
	young    map[id.GUID]bool // members that are no elders yet
	domains  map[id.GUID]string
	verify   Verifier
	checks   int
	lag      func(g id.GUID, e machine.Effect) machine.Duration // of disk effects
	usageOff bool                                               // disks are not summed up for each request
	fixed    bool                                               // evictions by hand only
}

type tnodeT struct {
	w     *world
	h     *id.Handle
	key   ed25519.PrivateKey
	n     *Node
	disk  map[store.Key][]byte
	limit int64
	up    bool
	seen  map[id.GUID]bool // members in its leaf set
	rtt   map[id.GUID]machine.Duration
	full  bool
	late  []lateEffect
}

type lateEffect struct {
	at machine.Time
	ev machine.Event
	op func()
}

func ownerKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
}

func signer(k ed25519.PrivateKey) Signer {
	return func(domain string, msg []byte) (s [64]byte) {
		copy(s[:], ed25519.Sign(k, append([]byte(domain), msg...)))
		return s
	}
}

func pub(k ed25519.PrivateKey) (p [32]byte) {
	copy(p[:], k.Public().(ed25519.PublicKey))
	return p
}

func newWorld(t testing.TB, cfg Config) *world {
	w := &world{
		t: t, cfg: cfg, by: make(map[id.GUID]*tnodeT),
		replies: make(map[uint64]*machine.Effect), revoked: make(map[id.GUID]bool),
		domains: make(map[id.GUID]string), owner: ownerKey(200),
	}
	w.pool[0] = 7
	w.verify = func(key [32]byte, domain string, msg []byte, sig [64]byte) bool {
		w.checks++
		return ed25519.Verify(key[:], append([]byte(domain), msg...), sig[:])
	}
	w.net.Delay = 2 * machine.Millisecond
	w.net.Decode = Decode
	w.net.Other = w.other
	w.net.Now = machine.Time(1000 * machine.Hour)
	return w
}

// at makes a node whose GUID begins with the given digits.
func (w *world) at(prefix string) *tnodeT {
	seed := blake3.Sum256([]byte("node" + prefix))
	x := &tnodeT{
		w: w, key: ed25519.NewKeyFromSeed(seed[:]), disk: make(map[store.Key][]byte),
		limit: 1 << 40, seen: make(map[id.GUID]bool), rtt: make(map[id.GUID]machine.Duration),
	}
	x.h = &id.Handle{GUID: id.FromPrefix(prefix), Key: pub(x.key), Addrs: []string{prefix}}
	w.nodes = append(w.nodes, x)
	w.by[x.h.GUID] = x
	return x
}

// pool of n nodes spread evenly, all up.
func (w *world) grow(n int) {
	for i := range n {
		w.boot(w.at(fmt.Sprintf("%02x", (i*256/n)&0xff)))
	}
	w.run(2 * machine.Second)
}

// boot starts (again) a node and lets the others see it.
func (w *world) boot(x *tnodeT) {
	h := *x.h
	h.Epoch++
	x.h = &h
	x.up = true
	x.late = nil
	cfg := w.cfg
	cfg.Self, cfg.Pool, cfg.Seed = x.h, w.pool, 1
	cfg.Sign, cfg.Verify = signer(x.key), w.verify
	cfg.Usage = x.usage
	x.n = New(cfg, x, x)
	var keys []store.Key
	for k := range x.disk {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b store.Key) int {
		if c := int(a.Family) - int(b.Family); c != 0 {
			return c
		}
		if c := a.GUID.Cmp(b.GUID); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.Sub), []byte(b.Sub))
	})
	for _, k := range keys {
		v := x.disk[k]
		if k.Family == store.Block {
			v = nil
		}
		if err := x.n.Restore(k, v); err != nil {
			w.t.Fatal(err)
		}
	}
	if !slices.Contains(w.members, x.h.GUID) {
		w.members = append(w.members, x.h.GUID)
		slices.SortFunc(w.members, func(a, b id.GUID) int { return a.Cmp(b) })
	}
	clear(x.seen)
	w.net.Add(x.h, x)
	w.net.Perform(x.h.GUID, x.n.Start(w.net.Now, w.wall(), nil))
	w.reseat()
}

func (w *world) wall() int64 { return int64(w.net.Now) / 1000 }

// reseat makes everybody's leaf set that of the nodes that are up.
func (w *world) reseat() {
	if w.fixed {
		return
	}
	var up []*tnodeT
	for _, x := range w.nodes {
		if x.up {
			up = append(up, x)
		}
	}
	for _, x := range up {
		want := make(map[id.GUID]bool)
		for _, y := range w.around(x, up) {
			want[y.h.GUID] = true
		}
		for _, y := range w.nodes {
			g := y.h.GUID
			if x.seen[g] && !want[g] {
				delete(x.seen, g)
				w.net.Perform(x.h.GUID, x.n.Update(w.net.Now, y.h, false, nil))
			}
		}
		for _, y := range w.nodes {
			g := y.h.GUID
			if !x.seen[g] && want[g] {
				x.seen[g] = true
				w.net.Perform(x.h.GUID, x.n.Update(w.net.Now, y.h, true, nil))
			}
		}
	}
}

// around are the span nearest neighbours of x on each side.
func (w *world) around(x *tnodeT, up []*tnodeT) []*tnodeT {
	var others []*tnodeT
	for _, y := range up {
		if y != x {
			others = append(others, y)
		}
	}
	if w.span == 0 || len(others) <= 2*w.span {
		return others
	}
	slices.SortFunc(others, func(a, b *tnodeT) int {
		return a.h.GUID.Sub(x.h.GUID).Cmp(b.h.GUID.Sub(x.h.GUID))
	})
	return append(slices.Clone(others[:w.span]), others[len(others)-w.span:]...)
}

// crash kills x at once; the others notice when told by reseat.
func (w *world) crash(x *tnodeT) {
	x.up = false
	w.net.Kill(x.h.GUID)
}

func (w *world) kill(x *tnodeT) {
	w.crash(x)
	w.reseat()
}

func (w *world) run(d machine.Duration) { w.net.Run(d) }

// tnodeT is the host of a Node: Machine, Router and Members.

func (x *tnodeT) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if ev.Kind == machine.Tick {
		out = x.flush(now, out)
		if x.n.Wake() > now {
			return out
		}
	}
	return x.n.Step(now, ev, out)
}

func (x *tnodeT) flush(now machine.Time, out []machine.Effect) []machine.Effect {
	for len(x.late) > 0 && x.late[0].at <= now {
		l := x.late[0]
		x.late = x.late[1:]
		l.op()
		out = append(out, x.n.Step(now, l.ev, nil)...)
	}
	return out
}

func (x *tnodeT) Wake() machine.Time {
	if len(x.late) > 0 {
		return min(x.late[0].at, x.n.Wake())
	}
	return x.n.Wake()
}

func (x *tnodeT) usage() store.Usage {
	u := store.Usage{Limit: x.limit}
	if x.w.usageOff {
		u.Free, u.Blocks = x.limit, 1
		return u
	}
	for k, v := range x.disk {
		u.Used += int64(len(v))
		if k.Family == store.Block {
			u.Blocks++
		}
	}
	u.Free = max(0, u.Limit-u.Used)
	return u
}

func (x *tnodeT) live() (hs []*id.Handle) {
	for g := range x.seen {
		hs = append(hs, x.w.by[g].h)
	}
	return append(hs, x.h)
}

func (x *tnodeT) Self() *id.Handle { return x.h }
func (x *tnodeT) Ready() bool      { return true }

func (x *tnodeT) Route(now machine.Time, m kbr.Message, _ *id.Handle, out []machine.Effect) []machine.Effect {
	var up []*id.Handle
	for _, y := range x.w.nodes {
		if y.up {
			up = append(up, y.h)
		}
	}
	root := slices.MinFunc(up, func(a, b *id.Handle) int { return id.CmpDist(m.Key, a.GUID, b.GUID) })
	out, on := x.n.Forward(now, &m, root, out)
	if !on {
		return out
	}
	y := x.w.by[root.GUID]
	if y == x {
		return x.n.Deliver(now, &m, kbr.Ownership{}, out)
	}
	x.w.net.Perform(root.GUID, y.n.Deliver(now, &m, kbr.Ownership{}, nil))
	return out
}

func (x *tnodeT) LocalLookup(id.GUID, int) []*id.Handle { return nil }

func (x *tnodeT) NeighborSet(num int) []*id.Handle {
	hs := x.live()
	hs = hs[:len(hs)-1]
	slices.SortFunc(hs, func(a, b *id.Handle) int { return id.CmpDist(x.h.GUID, a.GUID, b.GUID) })
	return hs[:min(num, len(hs))]
}

func (x *tnodeT) ReplicaSet(k id.GUID, rank int) ([]*id.Handle, bool) {
	hs := x.live()
	slices.SortFunc(hs, func(a, b *id.Handle) int { return id.CmpDist(k, a.GUID, b.GUID) })
	if x.w.span > 0 && len(hs) >= 2*x.w.span+1 {
		// Known if the key's neighbours lie inside the leaf set.
		ring := slices.Clone(hs)
		slices.SortFunc(ring, func(a, b *id.Handle) int {
			return a.GUID.Sub(x.h.GUID).Cmp(b.GUID.Sub(x.h.GUID))
		})
		edgeR, edgeL := ring[x.w.span].GUID, ring[x.w.span+1].GUID
		if k.Sub(x.h.GUID).Cmp(edgeR.Sub(x.h.GUID)) > 0 && x.h.GUID.Sub(k).Cmp(x.h.GUID.Sub(edgeL)) > 0 {
			return nil, false
		}
		far := id.Dist(k, hs[min(rank, len(hs))-1].GUID)
		if id.Dist(k, edgeR).Less(far) && id.Dist(k, edgeL).Less(far) {
			return nil, false
		}
	}
	return hs[:min(rank, len(hs))], true
}

func (x *tnodeT) Range(id.GUID, int) (id.Arc, bool) { return id.Arc{}, false }
func (x *tnodeT) Owns(now machine.Time, _ id.GUID) kbr.Ownership {
	return kbr.Ownership{OK: true, Until: now.Add(machine.Minute)}
}

func (x *tnodeT) Lookup(g id.GUID) *id.Handle {
	if x.seen[g] {
		return x.w.by[g].h
	}
	return nil
}
func (x *tnodeT) RTT(g id.GUID) machine.Duration { return x.rtt[g] }

func (x *tnodeT) Count() int { return len(x.w.members) }
func (x *tnodeT) Digest() [32]byte {
	b := make([]byte, 0, 32*len(x.w.members))
	for _, g := range x.w.members {
		b = append(b, g[:]...)
	}
	return blake3.Sum256(b)
}
func (x *tnodeT) Has(g id.GUID) bool { return slices.Contains(x.w.members, g) }
func (x *tnodeT) Domain(g id.GUID) string {
	if d, ok := x.w.domains[g]; ok {
		return d
	}
	return g.String()
}

func (x *tnodeT) Nearest(key id.GUID, n int) []id.GUID {
	return nearest(x.w.members, key, n)
}

func (x *tnodeT) Elders(key id.GUID, n int, _ machine.Time, _ int64, _ machine.Duration) []id.GUID {
	return nearest(slices.DeleteFunc(slices.Clone(x.w.members), func(g id.GUID) bool { return x.w.young[g] }), key, n)
}

func nearest(members []id.GUID, key id.GUID, n int) []id.GUID {
	gs := slices.Clone(members)
	slices.SortFunc(gs, func(a, b id.GUID) int { return id.CmpDist(key, a, b) })
	return gs[:min(n, len(gs))]
}

func (x *tnodeT) Handle(g id.GUID) *id.Handle {
	if y := x.w.by[g]; y != nil {
		return y.h
	}
	return nil
}
func (x *tnodeT) OwnerOK(owner [32]byte) bool { return owner != [32]byte{} }

// other performs effects that are not a Send.
func (w *world) other(g id.GUID, e machine.Effect) (machine.Event, bool) {
	x := w.by[g]
	switch e.Kind {
	case machine.Reply:
		if w.replies[e.ID] != nil {
			w.t.Fatalf("command %d answered twice", e.ID)
		}
		w.replies[e.ID] = &e
	case machine.Note:
		w.notes = append(w.notes, e.Body)
	case machine.Trace:
		w.traces = append(w.traces, e.Body.(trace.Event))
	case machine.Halt:
		w.t.Logf("halt of %s: %v", g.Short(), e.Err)
		w.crash(x)
	case machine.Store:
		ev := machine.Event{Kind: machine.Done, ID: e.ID}
		op := func() {
			for _, o := range e.Body.(store.Batch).Ops {
				if o.Delete {
					delete(x.disk, o.Key)
				} else {
					x.disk[o.Key] = slices.Clone(o.Value)
				}
			}
		}
		if b := e.Body.(store.Batch); x.full && !b.Urgent {
			ev.Err = store.ErrFull
			op = func() {}
		}
		return w.perform(x, e, ev, op)
	case machine.Load:
		ev := machine.Event{Kind: machine.Done, ID: e.ID}
		var vs [][]byte
		for _, k := range e.Body.([]store.Key) {
			v := x.disk[k]
			if bytes.Equal(v, []byte("rotten")) {
				ev.Err = store.ErrCorrupt
			}
			vs = append(vs, v)
		}
		ev.Body = vs
		return w.perform(x, e, ev, func() {})
	}
	return machine.Event{}, false
}

func (w *world) perform(x *tnodeT, e machine.Effect, ev machine.Event, op func()) (machine.Event, bool) {
	if w.lag == nil {
		op()
		return ev, true
	}
	at := w.net.Now.Add(w.lag(x.h.GUID, e))
	if n := len(x.late); n > 0 {
		at = max(at, x.late[n-1].at)
	}
	x.late = append(x.late, lateEffect{at, ev, op})
	return machine.Event{}, false
}

// start gives a command to x and returns its number.
func (w *world) start(x *tnodeT, body any) uint64 {
	w.cmds++
	w.net.Feed(x.h.GUID, machine.Event{Kind: machine.Command, ID: w.cmds, Body: body})
	return w.cmds
}

// wait lets time pass until the command is answered.
func (w *world) wait(cmd uint64) (any, error) {
	w.t.Helper()
	if !w.net.Until(2*machine.Minute, func() bool { return w.replies[cmd] != nil }) {
		w.t.Fatalf("command %d not answered in two minutes", cmd)
	}
	r := w.replies[cmd]
	return r.Body, r.Err
}

func (w *world) do(x *tnodeT, body any) (any, error) {
	w.t.Helper()
	return w.wait(w.start(x, body))
}

// block makes a block of a size from a seed.
func block(seed uint64, size int) []byte {
	b := make([]byte, max(size, HeaderSize+8))
	copy(b, blockMagic)
	b[4] = 1
	binary.BigEndian.PutUint64(b[8:], seed)
	return b
}

func (w *world) cert(b []byte, owner ed25519.PrivateKey, c byte, stamp uint64) StoreCert {
	cert := NewStoreCert(w.pool, GUIDOf(b), pub(owner), [16]byte{c}, len(b), w.cfg.K, stamp)
	cert.SignWith(signer(owner))
	return cert
}

func (w *world) putCmd(b []byte, c byte) PutCmd {
	return PutCmd{Cert: w.cert(b, w.owner, c, uint64(w.wall())), Block: b}
}

func (w *world) put(x *tnodeT, b []byte) PutDone {
	w.t.Helper()
	return w.putClaim(x, b, 1)
}

func (w *world) putClaim(x *tnodeT, b []byte, c byte) PutDone {
	w.t.Helper()
	r, err := w.do(x, w.putCmd(b, c))
	if err != nil {
		w.t.Fatalf("put: %v", err)
	}
	return r.(PutDone)
}

func (w *world) get(x *tnodeT, b []byte) {
	w.t.Helper()
	r, err := w.do(x, GetCmd{GUIDOf(b)})
	if err != nil {
		w.t.Fatalf("get %s: %v", GUIDOf(b).Short(), err)
	}
	if !bytes.Equal(r.([]byte), b) {
		w.t.Fatal("get returned other bytes")
	}
}

func (w *world) getErr(x *tnodeT, b []byte, want error) {
	w.t.Helper()
	_, err := w.do(x, GetCmd{GUIDOf(b)})
	if !errors.Is(err, want) {
		w.t.Fatalf("get: %v, want %v", err, want)
	}
}

// holders are the nodes, up or not, with the bytes of b on disk.
func (w *world) holders(b []byte) (xs []*tnodeT) {
	for _, x := range w.nodes {
		if x.disk[store.Key{Family: store.Block, GUID: GUIDOf(b)}] != nil {
			xs = append(xs, x)
		}
	}
	return xs
}

// set are the k nodes that are up and nearest to b, root first.
func (w *world) set(b []byte) []*tnodeT {
	var up []*tnodeT
	for _, x := range w.nodes {
		if x.up {
			up = append(up, x)
		}
	}
	g := GUIDOf(b)
	slices.SortFunc(up, func(a, b *tnodeT) int { return id.CmpDist(g, a.h.GUID, b.h.GUID) })
	return up[:min(w.cfg.K, len(up))]
}

// outsider is a node that is up and not in the set of b.
func (w *world) outsider(b []byte) *tnodeT {
	for _, x := range w.nodes {
		if x.up && !slices.Contains(w.set(b), x) {
			return x
		}
	}
	return w.set(b)[0]
}

func (w *world) stats() (s Stats) {
	for _, x := range w.nodes {
		if x.n == nil {
			continue
		}
		t := x.n.Stats()
		s.RepairBytes += t.RepairBytes
		s.Repairs += t.Repairs
		s.Migrations += t.Migrations
		s.StandIns += t.StandIns
		s.Surplus += t.Surplus
		s.WrongBytes += t.WrongBytes
		s.Corrupt += t.Corrupt
		s.Strikes += t.Strikes
		s.Hedges += t.Hedges
		s.Diverted += t.Diverted
		s.Forks += t.Forks
		s.WriteBacks += t.WriteBacks
		s.SyncItems += t.SyncItems
		s.Locates += t.Locates
	}
	return s
}
