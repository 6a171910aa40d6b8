package sim

import (
	"context"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// The fake overlay knows the oracle's ring and so is always right, unless a
// bug is switched on: the checkers are tested against it before they judge a
// real engine.
type fake struct {
	w     *fakeWorld
	self  *id.Handle
	up    kbr.Upcalls
	ready bool
	seen  map[kbr.ReqID]bool
}

type fakeWorld struct {
	run *overlayRun
	bug string
}

type fakeHop struct{ m kbr.Message }

func (fakeHop) Kind() uint8             { return 1 }
func (fakeHop) AppendBody(*wire.Writer) {}
func (f *fake) Self() *id.Handle        { return f.self }
func (f *fake) Ready() bool             { return f.ready }
func (f *fake) Wake() machine.Time      { return machine.Never }

func (f *fake) Start(_ machine.Time, _ []*id.Handle, _ []byte, _ bool, out []machine.Effect) []machine.Effect {
	f.ready, f.seen = true, make(map[kbr.ReqID]bool)
	return out
}

func (f *fake) Adopt(_ machine.Time, _ []*id.Handle, _ bool, _ func(id.GUID) machine.Duration, out []machine.Effect) []machine.Effect {
	f.ready, f.seen = true, make(map[kbr.ReqID]bool)
	return out
}

func (f *fake) Leave(_ machine.Time, out []machine.Effect) []machine.Effect {
	f.ready = false
	return out
}

func (f *fake) root(k id.GUID) *id.Handle {
	r := f.w.run
	n := r.ring.root(k, func(m Ref) bool { return r.check.together(r.e.Ref(f.self.GUID), m) })
	return r.e.Handle(n)
}

func (f *fake) Route(now machine.Time, m kbr.Message, _ *id.Handle, out []machine.Effect) []machine.Effect {
	to := f.root(m.Key)
	if f.w.bug == "stale" && m.Hops > 0 && m.ReqID[7]%8 == 0 {
		to = f.self
	}
	if f.w.bug == "loop" && m.Hops < 5 {
		left, _ := f.LeafSet()
		if m.Hops%2 == 1 {
			_, left = f.LeafSet()
		}
		to = left[0]
	}
	if to.GUID == f.self.GUID {
		if f.seen[m.ReqID] {
			return out
		}
		f.seen[m.ReqID] = true
		out, _ = f.up.Forward(now, &m, nil, out)
		return f.up.Deliver(now, &m, f.Owns(now, m.Key), out)
	}
	if m.Hops == 0 && f.w.bug == "stale" {
		left, _ := f.LeafSet()
		to = left[0]
	}
	out, _ = f.up.Forward(now, &m, to, out)
	m.Hops++
	if f.w.bug == "lose" && m.ReqID[7]%16 == 0 {
		return out
	}
	return append(out, machine.Effect{Kind: machine.Send, To: to, Msg: fakeHop{m}})
}

func (f *fake) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if ev.Kind == machine.Receive {
		return f.Route(now, ev.Msg.(fakeHop).m, nil, out)
	}
	return out
}

func (f *fake) LeafSet() (left, right []*id.Handle) {
	r := f.w.run
	l, rr := r.ring.sides(f.self.GUID, r.maker.leaf, nil)
	for _, g := range l {
		left = append(left, r.e.Handle(r.e.Ref(g)))
	}
	for _, g := range rr {
		right = append(right, r.e.Handle(r.e.Ref(g)))
	}
	if f.w.bug == "leaf" && f.self.GUID[0] < 16 {
		left = left[1:]
	}
	return left, right
}

func (f *fake) Owns(now machine.Time, k id.GUID) kbr.Ownership {
	run := f.w.run
	l, r := run.ring.sides(f.self.GUID, 1, func(m Ref) bool { return run.check.together(run.e.Ref(f.self.GUID), m) })
	if len(l) == 0 {
		return kbr.Ownership{OK: true, Until: now.Add(machine.Second)}
	}
	arc := id.Arc{Lo: id.Midpoint(l[0], f.self.GUID), Hi: id.Midpoint(f.self.GUID, r[0])}
	if f.w.bug == "owners" && f.self.GUID[0] < 16 {
		arc.Hi = r[0]
	}
	return kbr.Ownership{OK: f.w.bug != "lease", Arc: arc, Until: now.Add(machine.Second)}
}

func (f *fake) LocalLookup(id.GUID, int) []*id.Handle        { return nil }
func (f *fake) NeighborSet(int) []*id.Handle                 { return nil }
func (f *fake) ReplicaSet(id.GUID, int) ([]*id.Handle, bool) { return nil, false }
func (f *fake) Range(id.GUID, int) (id.Arc, bool)            { return id.Arc{}, false }
func (f *fake) Lookup(id.GUID) *id.Handle                    { return nil }
func (f *fake) RTT(id.GUID) machine.Duration                 { return 0 }

func fakeRun(bug string) *Result {
	w := &fakeWorld{bug: bug}
	cfg := DefaultOverlay()
	cfg.Nodes, cfg.Duration, cfg.Loss, cfg.Lookups, cfg.Churn = 50, 10*time.Minute, 0, 0.2, "poisson:10m"
	if bug == "none" {
		cfg.Split = time.Minute
	}
	w.run = newOverlayRun(cfg, &nodeMaker{leaf: 4, make: func(h *id.Handle, up kbr.Upcalls) overlayNode {
		return &fake{w: w, self: h, up: up}
	}, name: map[uint8]string{1: "hop"}, lookup: map[uint8]bool{1: true}})
	return w.run.run(context.Background(), nil)
}

// TestCheckersOnAFake: a right overlay passes; each wrong one is found by the
// checker made for it.
func TestCheckersOnAFake(t *testing.T) {
	for bug, want := range map[string]string{
		"none": "", "stale": "wrong delivery", "lose": "lost lookups", "loop": "loop", "leaf": "convergence",
		"owners": "two owners", "lease": "without a lease",
	} {
		t.Run(bug, func(t *testing.T) {
			r := fakeRun(bug)
			all := strings.Join(r.Failures, "\n")
			if want == "" && !r.Passed || want != "" && !strings.Contains(all, want) {
				t.Errorf("passed %v, failures:\n%s", r.Passed, all)
			}
			if r.LatencyS.N < 1000 || r.MeanNodes < 35 || r.MeanNodes > 65 {
				t.Errorf("%d lookups, %.1f nodes", r.LatencyS.N, r.MeanNodes)
			}
			if lost := r.Lost.Count > 0; bug != "loop" && lost != (bug == "lose") {
				t.Errorf("lost %v", r.Lost)
			}
			var b strings.Builder
			r.Print(&b)
			if bug == "none" {
				t.Log("\n" + b.String())
			}
		})
	}
}
