package pastry

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/trace"
)

// pool is a ring of nodes on a test network.
type pool struct {
	t     testing.TB
	net   machinetest.Net
	nodes map[id.GUID]*Node
	apps  map[id.GUID]*recorder
	order []id.GUID
	cfg   Config
	log   []string
	saved map[id.GUID][]byte
}

// feedLate hands over those of the messages kept back that are three seconds late
// by now, and returns the others.
func (p *pool) feedLate(late []machinetest.Flight) []machinetest.Flight {
	for len(late) > 0 && late[0].Due.Add(3*machine.Second) <= p.net.Now {
		f := late[0]
		late = late[1:]
		p.net.Feed(f.To.GUID, machine.Event{Kind: machine.Receive, From: f.From, Msg: f.Msg})
	}
	return late
}

// recorder is an application that writes down its upcalls.
type recorder struct {
	delivered []kbr.Message
	owned     []kbr.Ownership
	forwards  int
	drops     []error
}

func (r *recorder) Forward(_ machine.Time, _ *kbr.Message, _ *id.Handle, out []machine.Effect) ([]machine.Effect, bool) {
	r.forwards++
	return out, true
}

func (r *recorder) Deliver(_ machine.Time, m *kbr.Message, own kbr.Ownership, out []machine.Effect) []machine.Effect {
	r.delivered = append(r.delivered, *m)
	r.owned = append(r.owned, own)
	return out
}

func (r *recorder) Update(_ machine.Time, _ *id.Handle, _ bool, out []machine.Effect) []machine.Effect {
	return out
}

func (r *recorder) Drop(_ machine.Time, _ *kbr.Message, err error, out []machine.Effect) []machine.Effect {
	r.drops = append(r.drops, err)
	return out
}

func newPool(t testing.TB, cfg Config) *pool {
	p := &pool{
		t: t, cfg: cfg, nodes: map[id.GUID]*Node{}, apps: map[id.GUID]*recorder{}, saved: map[id.GUID][]byte{},
	}
	p.net.Delay = machine.Millisecond
	p.net.Decode = Decode
	p.net.Other = func(at id.GUID, e machine.Effect) (machine.Event, bool) {
		switch e.Kind {
		case machine.Trace:
			ev := e.Body.(trace.Event)
			p.log = append(p.log, fmt.Sprintf("%8.3f %s %s peer=%s key=%s n=%d %s",
				float64(p.net.Now)/1e6, at.Short(), ev.Kind, ev.Peer.Short(), ev.Key.Short(), ev.N, ev.Note))
		case machine.Save:
			p.saved[at] = e.Body.([]byte)
		}
		return machine.Event{}, false
	}
	return p
}

func guidN(i int) id.GUID {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return sha256.Sum256(b[:])
}

func handle(g id.GUID, epoch uint32) *id.Handle {
	return &id.Handle{GUID: g, Epoch: epoch, Addrs: []string{g.Short()}}
}

// add makes a node without starting it.
func (p *pool) add(h *id.Handle) *Node {
	cfg := p.cfg // tests change it for those that come later
	n := New(&cfg, h, 1)
	app := &recorder{}
	n.Register(kbr.AppDHT, app)
	if _, ok := p.nodes[h.GUID]; !ok {
		p.order = append(p.order, h.GUID)
	}
	p.nodes[h.GUID], p.apps[h.GUID] = n, app
	p.net.Add(h, n)
	return n
}

// start makes and starts a node that knows seed; nil: it creates the pool.
func (p *pool) start(h, seed *id.Handle) *Node {
	n := p.add(h)
	var seeds []*id.Handle
	if seed != nil {
		seeds = []*id.Handle{seed}
	}
	p.net.Perform(h.GUID, n.Start(p.net.Now, seeds, nil, seed == nil, nil))
	return n
}

// grow joins nodes from–to one after the other, through the first.
func (p *pool) grow(from, to int) {
	first := handle(guidN(0), 1)
	for i := from; i < to; i++ {
		h := handle(guidN(i), 1)
		var seed *id.Handle
		if i > 0 {
			seed = first
		}
		n := p.start(h, seed)
		if !p.net.Until(20*machine.Second, n.Ready) {
			p.t.Fatalf("node %d is %s after 20 s\n%s", i, n.State(), p.tail())
		}
	}
}

func (p *pool) tail() string {
	s := ""
	for _, l := range p.log[max(0, len(p.log)-400):] {
		s += l + "\n"
	}
	return s
}

func (p *pool) live() []id.GUID {
	var list []id.GUID
	for _, g := range p.order {
		if p.net.Alive(g) && p.nodes[g].state != Left {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, id.GUID.Cmp)
	return list
}

// wantLeaves returns the true leaf set of g among the live nodes.
func wantLeaves(live []id.GUID, g id.GUID, h int) (left, right []id.GUID) {
	i := slices.Index(live, g)
	m := len(live)
	for k := 1; k <= min(h, m-1); k++ {
		right = append(right, live[(i+k)%m])
		left = append(left, live[(i-k+m)%m])
	}
	return left, right
}

func guids(hs []*id.Handle) []id.GUID {
	var list []id.GUID
	for _, h := range hs {
		list = append(list, h.GUID)
	}
	return list
}

func shorts(list []id.GUID) (s []string) {
	for _, g := range list {
		s = append(s, g.Short())
	}
	return s
}

// converged reports whether every live node has its true leaf set.
func (p *pool) converged() bool { return p.diverged() == "" }

func (p *pool) diverged() string {
	live := p.live()
	for _, g := range live {
		n := p.nodes[g]
		if n.state != Ready {
			return fmt.Sprintf("%s is %s", g.Short(), n.state)
		}
		wl, wr := wantLeaves(live, g, p.cfg.LeafSet)
		l, r := n.LeafSet()
		if !slices.Equal(guids(l), wl) || !slices.Equal(guids(r), wr) {
			return fmt.Sprintf("%s has leaves %v %v (wrapped %v), want %v %v",
				g.Short(), shorts(guids(l)), shorts(guids(r)), n.leaf.Wrapped(), shorts(wl), shorts(wr))
		}
	}
	return ""
}

func (p *pool) root(k id.GUID) id.GUID {
	live := p.live()
	return slices.MinFunc(live, func(a, b id.GUID) int { return id.CmpDist(k, a, b) })
}

func TestGrow(t *testing.T) {
	for _, n := range []int{1, 2, 3, 17, 33, 34, 60} {
		p := newPool(t, LAN())
		p.grow(0, n)
		p.net.Run(30 * machine.Second)
		if d := p.diverged(); d != "" {
			t.Fatalf("N=%d: %s\n%s", n, d, p.tail())
		}
		for i := range 50 {
			k := guidN(100000 + i)
			from := p.order[i%n]
			class := kbr.Class(i % 2)
			before := len(p.apps[p.root(k)].delivered)
			p.net.Perform(from, p.nodes[from].Route(p.net.Now, kbr.Message{Key: k, App: kbr.AppDHT, Class: class}, nil, nil))
			p.net.Run(machine.Second)
			if len(p.apps[p.root(k)].delivered) != before+1 {
				t.Fatalf("N=%d: message %d class %d not delivered at the root\n%s", n, i, class, p.tail())
			}
		}
		t.Logf("N=%d: %d messages, now %d s", n, p.net.Sent, p.net.Now/1e6)
	}
}
