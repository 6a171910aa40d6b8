package sim

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/store"
)

// simPool is what the operator of a simulated pool holds: the root key and
// every node's keys. Certificates are real; the dht's signatures, one a block
// and copy, are a keyed hash.
type simPool struct {
	run    *dhtRun
	root   ident.Key
	pool   *ident.Pool
	id     [32]byte
	pastry pastry.Config
	dht    dht.Config // preset
	bugs   dht.Bugs
	keys   []ident.Key // by Ref
	chains []ident.Chain
	saved  [][]byte // rosters, by Ref: what the node's host kept
	out    map[id.GUID]bool
}

func newSimPool(r *dhtRun) (*simPool, error) {
	p := &simPool{
		run: r, root: ident.KeyFromSeed(blake3.Sum256([]byte("root of a simulated pool"))),
		pastry: pastry.Sim(), dht: dht.Sim(), keys: make([]ident.Key, 1), chains: make([]ident.Chain, 1), saved: make([][]byte, 1),
		out: make(map[id.GUID]bool),
	}
	var err error
	if p.pool, err = ident.NewPool(p.root, [16]byte{1}, "sim", r.cfg.K, ident.Pastry); err != nil {
		return nil, err
	}
	p.id = p.pool.ID()
	p.pastry.Pool, p.pastry.GUIDOf = p.id, ident.GUIDOf
	for _, b := range r.cfg.Bugs {
		if !plantDHT(&p.bugs, b) && !plantPastry(&p.pastry.Bugs, b) {
			return nil, fmt.Errorf("unknown bug %q", b)
		}
	}
	return p, nil
}

func plantDHT(b *dht.Bugs, name string) bool { return plant(reflect.ValueOf(b).Elem(), name) }

// member makes the keys and certificate of a new node.
func (p *simPool) member(num uint64) (*id.Handle, error) {
	key := ident.KeyFromSeed(blake3.Sum256(fmt.Appendf(nil, "node %d of seed %d", num, p.run.cfg.Seed)))
	// The first members have been in the pool for a day.
	since := p.run.e.cfg.Wall - 24*60*60*1000
	if p.run.phase != "build" {
		since = p.run.e.wall(World)
	}
	chain, err := ident.Certify(p.pool, p.root, nil, ident.Subject{
		Node: key.Public(), Owner: ownerKey(int(num % numOwners)), Role: ident.Member,
		Domain: fmt.Sprintf("host-%d", num), Name: fmt.Sprintf("node-%d", num),
	}, since)
	if err != nil {
		return nil, err
	}
	p.keys, p.chains, p.saved = append(p.keys, key), append(p.chains, chain), append(p.saved, nil)
	g := ident.GUIDOf(key.Public())
	return &id.Handle{GUID: g, Key: key.Public(), Epoch: 1, Addrs: []string{"sim:" + g.Short()}}, nil
}

// poolNode is the stack of one node, with what its host adds: telling it of
// every first contact, as links are opened.
type poolNode struct {
	*stack.Node
	met map[id.GUID]uint32 // epoch met, plus one
}

func (s *poolNode) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if ev.Kind == machine.Receive && s.met[ev.From.GUID] != ev.From.Epoch+1 {
		s.met[ev.From.GUID] = ev.From.Epoch + 1
		out = s.Met(now, ev.From, out)
	}
	return s.Node.Step(now, ev, out)
}

// make builds the stack of n from its certificate, its saved roster and its
// disk. A node that has no roster yet gets what a join answer brings from one
// that is ready, which learns of the newcomer in turn.
func (p *simPool) make(n Ref, h *id.Handle) (*poolNode, error) {
	node := &poolNode{met: make(map[id.GUID]uint32)}
	seed := p.run.cfg.Seed + uint64(h.Epoch)<<32
	members := roster.New(roster.Config{
		Self: h.GUID, Seed: seed,
		Peers: func() []*id.Handle { return node.Ring().NeighborSet(32) },
	}, p.pool)
	own := roster.CertEntry(p.chains[n])
	if _, err := members.Load([][]byte{own}); err != nil {
		return nil, err
	}
	if p.saved[n] != nil {
		if err := members.Restore(p.saved[n]); err != nil {
			return nil, err
		}
	} else if issuer := p.run.pickReady(p.run.rnd.fault); issuer != World {
		from := p.run.peers[issuer].node
		p.run.e.Do(issuer, func(now machine.Time, out []machine.Effect) []machine.Effect {
			if _, err := from.Roster().Add(own); err != nil {
				p.run.fail("roster", err.Error())
			}
			return from.RosterChanged(now, out)
		})
		if _, err := members.Load(from.Roster().Seeds(h.GUID, 16<<10)); err != nil {
			return nil, err
		}
	}
	c := p.dht
	if p.run.cfg.Young {
		c.Elder = 365 * 24 * machine.Hour
	}
	c.Pool, c.K, c.Bugs = p.id, p.run.cfg.K, p.bugs
	c.Sign = func(domain string, msg []byte) [64]byte { return fakeSign(h.Key, domain, msg) }
	c.Verify = fakeVerify
	c.Usage = func() store.Usage { return p.run.e.diskOf(n).usage() }
	key := p.keys[n]
	var err error
	node.Node, err = stack.New(stack.Config{
		Self: h, Seed: seed, Roster: members, Overlay: p.pastry, DHT: c,
		ReadyEntry: func(seq uint32) []byte { return roster.ReadyEntry(p.id, key, h, seq) },
	})
	if err != nil {
		return nil, err
	}
	d := p.run.e.diskOf(n)
	for _, k := range d.keys(0) {
		v := d.data[k]
		if d.rotten[k] {
			continue // a store that fails its checksum gives nothing at the start
		}
		if err := node.DHT().Restore(k, v); err != nil {
			return nil, fmt.Errorf("restore %c %s: %w", k.Family, k.GUID.Short(), err)
		}
	}
	return node, nil
}

// seeds are up to three running nodes for n to join by.
func (p *simPool) seeds(n Ref) (hs []*id.Handle) {
	for range 3 {
		if m := p.run.pickReady(p.run.rnd.fault); m != World && m != n {
			hs = append(hs, p.run.e.Handle(m))
		}
	}
	return hs
}

// keep is the host's part of a Save effect.
func (p *simPool) keep(n Ref, body any) {
	if s, ok := body.(stack.RosterState); ok {
		p.saved[n] = s.Entries
	}
}

// count is the number of members by the oracle's view: those ever ready that
// have not left and are not revoked.
func (p *simPool) count() (c int) {
	for n := 1; n < len(p.run.peers); n++ {
		if p.run.peers[n].ready && !p.out[p.run.e.Handle(Ref(n)).GUID] {
			c++
		}
	}
	return c
}

// revoke ends the membership of a node that is gone for ever: the admin tells
// one node, and the rest hear of it.
func (r *dhtRun) revoke(n Ref) {
	g := r.e.Handle(n).GUID
	at := r.pickReady(r.rnd.fault)
	if r.pool.out[g] || at == World {
		return
	}
	node := r.peers[at].node
	var nonce [16]byte
	nonce[0] = byte(n)
	entry, err := node.Roster().Revoke(r.pool.root, nil, g, "lost", r.e.wall(at), nonce)
	if err != nil {
		return // not heard of it yet: another time
	}
	r.pool.out[g] = true
	r.e.Do(at, func(now machine.Time, out []machine.Effect) []machine.Effect {
		if _, err := node.Roster().Add(entry); err != nil {
			r.fail("roster", err.Error())
		}
		return node.RosterChanged(now, out)
	})
}

// leave lets a node drain and go, if the pool stays large enough.
func (r *dhtRun) leave() {
	n := r.pickRunning()
	if n == World || r.count(running) < 15 || r.peers[n].leaving || !r.peers[n].ready {
		return
	}
	r.e.Faults.Add(FaultLeave)
	r.peers[n].leaving = true
	r.issue(&dhtOp{kind: opDrain, node: n}, dht.DrainCmd{})
}

// drained goes on with a leave: k others hold each block, so the node signs
// that it has left, says goodbye and stops.
func (r *dhtRun) drained(n Ref, inc int) {
	p := &r.peers[n]
	if p.state != running || p.inc != inc {
		return
	}
	for _, b := range r.set.order {
		if b.must() && b.disks[n] && len(b.disks)-1 < r.set.w {
			r.fail("leave", fmt.Sprintf("%s has handed over, but %s is on %d other disks", r.name(n), b.guid.Short(), len(b.disks)-1))
		}
	}
	r.pool.out[r.e.Handle(n).GUID] = true
	r.e.Do(n, func(now machine.Time, out []machine.Effect) []machine.Effect {
		entry := roster.LeftEntry(r.pool.id, r.pool.keys[n], p.epoch, p.node.NextSeq())
		if _, err := p.node.Roster().Add(entry); err != nil {
			r.fail("roster", err.Error())
		}
		out = p.node.RosterChanged(now, out)
		return p.node.Leave(now, out)
	})
	r.e.After(10*machine.Second, func() {
		if p := &r.peers[n]; p.state == running && p.inc == inc {
			p.state, p.node = departed, nil
			r.wipe(n)
			r.e.Crash(n)
		}
	})
}

// sortedRefs lists the keys of a set of nodes in order.
func sortedRefs(m map[Ref]bool) []Ref {
	ns := make([]Ref, 0, len(m))
	for n := range m {
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return ns
}
