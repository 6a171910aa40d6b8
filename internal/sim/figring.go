package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
)

// figName is a GUID as the chapter's figures write it: six digits.
func figName(g id.GUID) string { return strings.ToUpper(g.String()[:6]) }

// figPlace puts the k-th of the figure's own nodes on a great circle, 18° from
// the one before: proximity neighbour selection then prefers, at every node of
// the path, the next one.
func figPlace(k int) place {
	// cos and sin of multiples of 18°, times 2^19.
	cos := [...]int32{524288, 498627, 424158, 308169, 162014, 0, -162014, -308169, -424158, -498627, -524288}
	sin := [...]int32{0, 162014, 308169, 424158, 498627, 524288, 498627, 424158, 308169, 162014, 0}
	return place{cos[k], sin[k], 0}
}

// figNodes are the nodes that the figures name, in the order of the path, then
// those that stand beside it (D467C4 and D471F1 are recalled from the drawing).
var figNodes = []string{"65A1FC", "D13DA3", "D4213F", "D462BA", "D46A1C", "D467C4", "D471F1"}

// figFill keeps D46A1C out of the leaf sets of the nodes before D462BA, as the
// other dots of the drawing do.
var figFill = []string{"D27F31", "D38C05", "D43A77", "D4485B", "D45E90"}

// figRing is a ring with exact tables, for the chapter's figures: pastry nodes
// that have adopted what the oracle knows, without faults.
type figRing struct {
	e      *Engine
	ring   ring
	nodes  []*pastry.Node // by Ref
	routes []*FigureRoute // under way; a message's ReqID tells which is its own
}

// routeOf is the way of m so far.
func (r *figRing) routeOf(m *kbr.Message) *FigureRoute {
	return r.routes[binary.LittleEndian.Uint32(m.ReqID[:])-1]
}

// Hop of a figure.
type FigureHop struct {
	Node string `json:"node"`
	Rule string `json:"rule"` // the line of Figure 10.9 that chose the next hop
	Bits int    `json:"shared_bits"`
}

// FigureRoute is one message's way.
type FigureRoute struct {
	From      string      `json:"from"`
	Key       string      `json:"key"`
	Hops      []FigureHop `json:"hops"`
	Delivered string      `json:"delivered"`
}

func (r *FigureRoute) path() []string {
	var p []string
	for _, h := range r.Hops {
		p = append(p, h.Node)
	}
	return p
}

type figApp struct {
	r *figRing
	n Ref
}

func (a *figApp) Forward(_ machine.Time, m *kbr.Message, next *id.Handle, out []machine.Effect) ([]machine.Effect, bool) {
	g := a.r.e.Handle(a.n).GUID
	rule := m.Rule
	if next == nil {
		rule = kbr.RuleRoot
	}
	route := a.r.routeOf(m)
	route.Hops = append(route.Hops, FigureHop{figName(g), rule.String(), id.CommonBits(g, m.Key)})
	return out, true
}

func (a *figApp) Deliver(_ machine.Time, m *kbr.Message, _ kbr.Ownership, out []machine.Effect) []machine.Effect {
	a.r.routeOf(m).Delivered = figName(a.r.e.Handle(a.n).GUID)
	return out
}

func (a *figApp) Update(_ machine.Time, _ *id.Handle, _ bool, out []machine.Effect) []machine.Effect {
	return out
}

func (a *figApp) Drop(_ machine.Time, m *kbr.Message, err error, out []machine.Effect) []machine.Effect {
	a.r.routeOf(m).Delivered = "dropped: " + err.Error()
	return out
}

// newFigRing builds a ring of the named nodes and of random ones, size in all,
// with h leaves a side. Random ones keep away from the first digit D, where
// the figures' path runs, if named is not empty.
func newFigRing(seed uint64, named []string, size, h int, leafOnly bool) *figRing {
	r := &figRing{e: New(Config{Seed: seed, Topology: Sphere}), nodes: make([]*pastry.Node, 1)}
	rnd := r.e.Rand("figure")
	cfg := pastry.WAN()
	cfg.LeafSet, cfg.LeafSetOnly = h, leafOnly
	cfg.Deadline = machine.Hour
	var gs []id.GUID
	for _, s := range named {
		gs = append(gs, id.FromPrefix(s))
	}
	for len(gs) < size {
		g := id.FromPrefix(fmt.Sprintf("%06X", rnd.IntN(1<<24)))
		if !slices.Contains(gs, g) && (len(named) == 0 || g.Digit(0) != 0xD) {
			gs = append(gs, g)
		}
	}
	for _, g := range gs {
		n := r.e.NewNode(&id.Handle{GUID: g, Key: g, Epoch: 1, Addrs: []string{"sim:" + figName(g)}})
		if k := slices.Index(figNodes, figName(g)); k >= 0 {
			r.e.nodes[n].where = figPlace(k)
		} else if slices.Contains(figFill, figName(g)) {
			r.e.nodes[n].where = place{0, -524288, 0} // far from all of the path
		}
		r.ring.add(g, n)
	}
	for i := range gs {
		n := Ref(i + 1)
		node := pastry.New(&cfg, r.e.Handle(n), seed)
		node.Register(appLookup, &figApp{r, n})
		r.nodes = append(r.nodes, node)
		others := adoptees(r.e, &r.ring, n, h, leafOnly, rnd)
		r.e.Start(n, r.e.Handle(n), node, func(now machine.Time, out []machine.Effect) []machine.Effect {
			return node.Adopt(now, others, r.ring.len() <= 2*h+1, rttOracle(r.e, n), out)
		})
	}
	return r
}

// rttOracle gives the round trips of node n.
func rttOracle(e *Engine, n Ref) func(g id.GUID) machine.Duration {
	return func(g id.GUID) machine.Duration { return 2 * e.Direct(n, e.Ref(g)) }
}

// perSlot is K of proximity neighbour selection in an oracle's ring: how many
// candidates of a slot are measured.
const perSlot = 16

// adoptees are the nodes that n is given by the oracle: its leaves, and up to
// perSlot candidates for each slot of its routing table.
func adoptees(e *Engine, rg *ring, n Ref, h int, leafOnly bool, rnd *rand.Rand) (hs []*id.Handle) {
	g := e.Handle(n).GUID
	left, right := rg.sides(g, h, nil)
	for _, s := range [2][]id.GUID{left, right} {
		for _, x := range s {
			hs = append(hs, e.Handle(e.Ref(x)))
		}
	}
	if leafOnly {
		return hs
	}
	for p := range id.Digits {
		lo, hi := rg.prefixRange(g, p)
		if hi-lo <= 1 {
			break // alone with this prefix
		}
		for d := range 16 {
			if d == g.Digit(p) {
				continue
			}
			lo, hi := rg.prefixRange(g.WithDigit(p, d), p+1)
			for k := range min(perSlot, hi-lo) {
				i := lo + k
				if hi-lo > perSlot {
					i = lo + rnd.IntN(hi-lo)
				}
				hs = append(hs, e.Handle(rg.at[i].n))
			}
		}
	}
	return hs
}

// send routes a message and returns its way.
func (r *figRing) send(from string, key string) *FigureRoute {
	route := r.start(r.e.Ref(id.FromPrefix(from)), id.FromPrefix(key))
	r.finish(context.Background())
	return route
}

// start sends a message on its way.
func (r *figRing) start(n Ref, key id.GUID) *FigureRoute {
	route := &FigureRoute{From: figName(r.e.Handle(n).GUID), Key: figName(key)}
	r.routes = append(r.routes, route)
	m := kbr.Message{Key: key, App: appLookup, Origin: r.e.Handle(n), Deadline: machine.Hour}
	binary.LittleEndian.PutUint32(m.ReqID[:], uint32(len(r.routes)))
	r.e.Do(n, func(now machine.Time, out []machine.Effect) []machine.Effect {
		return r.nodes[n].Route(now, m, nil, out)
	})
	return route
}

// finish runs until every message that was sent has arrived, for an hour of
// virtual time at most, or until ctx ends: then it returns false.
func (r *figRing) finish(ctx context.Context) bool {
	end := r.e.Now().Add(machine.Hour)
	for _, route := range r.routes {
		for i := 1; route.Delivered == "" && r.e.Next(end); i++ {
			if i%4096 == 0 && ctx.Err() != nil {
				return false
			}
		}
	}
	return true
}
