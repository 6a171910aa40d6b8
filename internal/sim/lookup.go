package sim

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
)

// appLookup is the application number of the simulator's own lookups.
const appLookup uint16 = 0x5157

// runRand are the streams of a run: one a purpose.
type runRand struct{ guid, seeds, churn, fault, lookup *rand.Rand }

func newRunRand(e *Engine) runRand {
	return runRand{e.Rand("guid"), e.Rand("seeds"), e.Rand("churn"), e.Rand("fault"), e.Rand("lookup")}
}

// lookup is one routed message and what the oracle knows of it.
type lookup struct {
	key     id.GUID
	class   kbr.Class
	origin  Ref
	inc     int // incarnation of origin
	issued  machine.Time
	root    Ref // the oracle's when it was issued
	rootInc int

	delivered int
	wrong     int // of these, best effort
	hops      uint8
	took      machine.Duration
	direct    machine.Duration
	noLease   bool
	dropped   error

	path   []Ref // nodes in order, while the path has not branched
	last   uint8 // hops at the last of them
	branch bool  // a hop was repeated or rerouted: the path is a tree
}

func (r *overlayRun) scheduleLookup() {
	if r.cfg.Lookups <= 0 {
		return
	}
	mean := machine.Duration(1e6 / r.cfg.Lookups / float64(r.cfg.Nodes))
	r.e.After(max(1, expDuration(r.rnd.lookup, mean)), func() {
		if !r.measuring {
			return
		}
		var key id.GUID
		for i := range 4 {
			binary.BigEndian.PutUint64(key[8*i:], r.rnd.lookup.Uint64())
		}
		class := kbr.BestEffort
		if chance(r.rnd.lookup, int64(r.cfg.Owned*million)) {
			class = kbr.Owned
		}
		takes := r.parts.operation()
		if r.ring.len() > 0 {
			if n := r.ring.at[r.rnd.lookup.IntN(r.ring.len())].n; takes {
				r.issue(n, key, class)
			}
		}
		r.scheduleLookup()
	})
}

// issue routes a message for key from n and judges it at its deadline.
func (r *overlayRun) issue(n Ref, key id.GUID, class kbr.Class) *lookup {
	if r.e.Frozen(n) {
		return nil // nobody there to ask
	}
	r.nextID++
	num := r.nextID
	l := &lookup{key: key, class: class, origin: n, inc: r.peers[n].inc, issued: r.e.Now()}
	l.root = r.ring.root(key, func(m Ref) bool { return r.check.together(n, m) })
	l.rootInc = r.peers[l.root].inc
	r.lookups[num] = l
	deadline := machine.Duration(r.cfg.Deadline.Microseconds())
	r.e.Do(n, func(now machine.Time, out []machine.Effect) []machine.Effect {
		m := kbr.Message{Key: key, App: appLookup, Class: class, Origin: r.e.Handle(n), Deadline: deadline}
		binary.BigEndian.PutUint64(m.ReqID[:], num)
		return r.peers[n].node.Route(now, m, nil, out)
	})
	r.afterStep(n)
	r.e.After(deadline+machine.Second, func() {
		delete(r.lookups, num)
		r.check.judge(l)
	})
	return l
}

// probe is the application on every node: it reports to the oracle.
type probe struct {
	run *overlayRun
	n   Ref
}

var _ kbr.Upcalls = (*probe)(nil)

func (p *probe) of(m *kbr.Message) *lookup {
	return p.run.lookups[binary.BigEndian.Uint64(m.ReqID[:])]
}

func (p *probe) Forward(_ machine.Time, m *kbr.Message, next *id.Handle, out []machine.Effect) ([]machine.Effect, bool) {
	if l := p.of(m); l != nil {
		p.run.check.hop(l, p.n, m.Hops, next == nil)
	}
	return out, true
}

func (p *probe) Deliver(now machine.Time, m *kbr.Message, own kbr.Ownership, out []machine.Effect) []machine.Effect {
	p.run.afterStep(p.n) // it may have become ready in this very step
	if l := p.of(m); l != nil {
		p.run.check.delivered(l, p.n, now, m, own)
	}
	return out
}

func (p *probe) Update(_ machine.Time, _ *id.Handle, _ bool, out []machine.Effect) []machine.Effect {
	return out
}

func (p *probe) Drop(_ machine.Time, m *kbr.Message, err error, out []machine.Effect) []machine.Effect {
	if l := p.of(m); l != nil {
		l.dropped = err
		l.noLease = l.noLease || errors.Is(err, kbr.ErrNoLease)
		p.run.stat.drops[err.Error()]++
		if errors.Is(err, kbr.ErrHops) && !p.run.cfg.LeafOnly {
			p.run.check.loop(l, "the hop cap fired")
		}
	}
	return out
}
