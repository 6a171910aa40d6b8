package sim

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
)

// FigureNumbers are the figures of Coulouris et al., 5th ed., that Figure can
// draw.
func FigureNumbers() []string { return []string{"10.6", "10.7", "10.8", "10.9"} }

// FigureResult is a figure, redrawn by machines that run.
type FigureResult struct {
	Figure   string          `json:"figure"`
	Title    string          `json:"title"`
	Passed   bool            `json:"passed"`
	Failures []string        `json:"failures,omitempty"`
	Routes   []*FigureRoute  `json:"routes,omitempty"`
	Table    [][]string      `json:"table,omitempty"` // 10.7: rows of 16 cells
	Stats    []FigureStat    `json:"stats,omitempty"` // 10.6
	Branches map[string]bool `json:"branches,omitempty"`
	Partial  bool            `json:"partial,omitempty"`
}

// FigureStat compares hops with leaf sets only with what the chapter gives.
type FigureStat struct {
	Nodes   int     `json:"nodes"`
	Leaves  int     `json:"leaves_a_side"`
	Lookups int     `json:"lookups"`
	Mean    float64 `json:"mean_hops"`
	Max     int     `json:"max_hops"`
	ByBook  float64 `json:"mean_expected"` // N/4h
	Worst   float64 `json:"worst_case"`    // N/2h: the chapter's N/2l
}

var _ Report = (*FigureResult)(nil)

func (f *FigureResult) OK() bool      { return f.Passed }
func (f *FigureResult) Stopped() bool { return f.Partial }

func (f *FigureResult) fail(format string, a ...any) {
	f.Failures = append(f.Failures, fmt.Sprintf(format, a...))
}

// Figure draws one of FigureNumbers. Sizes are the rings of the statistics of
// Figure 10.6; nil: 64, 1,000 and 10,000 nodes.
func Figure(ctx context.Context, number string, seed uint64, sizes []int) (*FigureResult, error) {
	f := &FigureResult{Figure: number}
	named := slices.Concat(figNodes, figFill)
	switch number {
	case "10.6":
		f.Title = "circular routing alone: leaf sets of 4 a side, from 65A1FC to D46A1C"
		f.leafSetsOnly(ctx, seed, named, sizes)
	case "10.7":
		f.Title = "first four rows of the routing table of 65A1FC"
		f.table(newFigRing(seed, named, 64, 4, false))
	case "10.8":
		f.Title = "Pastry routing from 65A1FC to D46A1C"
		f.pastry(seed, named)
	case "10.9":
		f.Title = "Pastry's routing algorithm: every branch taken"
		f.branches(newFigRing(seed, named, 64, 4, false))
	default:
		return nil, fmt.Errorf("figure %q: %s", number, strings.Join(FigureNumbers(), ", "))
	}
	f.Passed = len(f.Failures) == 0
	return f, nil
}

func (f *FigureResult) leafSetsOnly(ctx context.Context, seed uint64, named []string, sizes []int) {
	const h = 4
	r := newFigRing(seed, named, 64, h, true)
	route := r.send("65A1FC", "D46A1C")
	f.Routes = append(f.Routes, route)
	if route.Delivered != "D46A1C" {
		f.fail("delivered at %s", route.Delivered)
	}
	for _, hop := range route.Hops {
		if hop.Rule != kbr.RuleLeaf.String() && hop.Rule != kbr.RuleRoot.String() {
			f.fail("%s chose by %s", hop.Node, hop.Rule)
		}
	}
	if sizes == nil {
		sizes = []int{64, 1000, 10_000}
	}
	for _, size := range sizes {
		s, ok := leafOnlyStat(ctx, seed, size, h)
		if !ok {
			f.Partial = true
			return
		}
		f.Stats = append(f.Stats, s)
	}
	for _, s := range f.Stats {
		// GUIDs are random: half the ring by distance holds N/2 nodes give or
		// take a few times √N/2.
		if slack := 3 * math.Sqrt(float64(s.Nodes)) / float64(2*s.Leaves); float64(s.Max) > s.Worst+slack {
			f.fail("%d nodes: %d hops, over N/2h", s.Nodes, s.Max)
		}
	}
}

// leafOnlyStat sends 200 messages between random nodes of an even ring. It
// returns false if ctx ends first.
func leafOnlyStat(ctx context.Context, seed uint64, size, h int) (FigureStat, bool) {
	const lookups = 200
	s := FigureStat{Nodes: size, Leaves: h, Lookups: lookups, ByBook: float64(size) / float64(4*h), Worst: float64(size) / float64(2*h)}
	if ctx.Err() != nil {
		return s, false
	}
	r := newFigRing(seed, nil, size, h, true)
	rnd := r.e.Rand("pairs")
	for range lookups {
		from, to := Ref(1+rnd.IntN(size)), Ref(1+rnd.IntN(size))
		r.start(from, r.e.Handle(to).GUID)
	}
	if !r.finish(ctx) {
		return s, false
	}
	sum := 0
	for _, route := range r.routes {
		hops := len(route.Hops) - 1
		sum += hops
		s.Max = max(s.Max, hops)
	}
	s.Mean = float64(sum) / lookups
	return s, true
}

// goldenPath is the way of the chapter's Figure 10.8.
var goldenPath = []string{"65A1FC", "D13DA3", "D4213F", "D462BA", "D46A1C"}

func (f *FigureResult) pastry(seed uint64, named []string) {
	r := newFigRing(seed, named, 64, 4, false)
	route := r.send("65A1FC", "D46A1C")
	f.Routes = append(f.Routes, route)
	if !slices.Equal(route.path(), goldenPath) {
		f.fail("path %s, the chapter's is %s", strings.Join(route.path(), " → "), strings.Join(goldenPath, " → "))
	}
	// The message reaches the node numerically closest to its key.
	without := slices.DeleteFunc(slices.Clone(named), func(s string) bool { return s == "D46A1C" })
	r = newFigRing(seed, without, 63, 4, false)
	route = r.send("65A1FC", "D46A1C")
	f.Routes = append(f.Routes, route)
	if route.Delivered != "D467C4" {
		f.fail("without D46A1C its key ends at %s, not D467C4", route.Delivered)
	}
}

// table is Figure 10.7: what 65A1FC has in rows 0 to 3. Its own digits are
// written in brackets, where the book has grey cells.
func (f *FigureResult) table(r *figRing) {
	self := id.FromPrefix("65A1FC")
	rows := r.nodes[r.e.Ref(self)].Table()
	for p := range 4 {
		cells := make([]string, 16)
		for d := range 16 {
			switch {
			case d == self.Digit(p):
				cells[d] = "[" + figName(self)[:p+1] + "]"
			case p < len(rows) && rows[p][d].Primary != nil:
				g := rows[p][d].Primary.GUID
				cells[d] = figName(g)
				if id.CommonDigits(g, self) != p || g.Digit(p) != d {
					f.fail("row %d column %X holds %s", p, d, figName(g))
				}
			default:
				cells[d] = "-"
				want := self.WithDigit(p, d)
				if lo, hi := r.ring.prefixRange(want, p+1); hi > lo {
					f.fail("row %d column %X is empty, though %s exists", p, d, figName(r.ring.at[lo].g))
				}
			}
		}
		f.Table = append(f.Table, cells)
	}
}

// branches sends two messages that take every branch of Figure 10.9 between
// them: that of Figure 10.8, by table and leaf set to the root; and one for a
// key under D4F, which D4213F knows nobody of: the rare case.
func (f *FigureResult) branches(r *figRing) {
	f.Branches = make(map[string]bool)
	for _, c := range []struct{ key, root string }{{"D46A1C", "D46A1C"}, {"D4F000", "D471F1"}} {
		route := r.send("65A1FC", c.key)
		f.Routes = append(f.Routes, route)
		for _, h := range route.Hops {
			f.Branches[h.Rule] = true
		}
		if route.Delivered != c.root {
			f.fail("key %s delivered at %s, the closest is %s", c.key, route.Delivered, c.root)
		}
	}
	for _, rule := range []kbr.Rule{kbr.RuleRoot, kbr.RuleLeaf, kbr.RuleTable, kbr.RuleRare} {
		if !f.Branches[rule.String()] {
			f.fail("branch not taken: %s", rule)
		}
	}
}

// Print draws the figure in text.
func (f *FigureResult) Print(w io.Writer) {
	fmt.Fprintf(w, "Figure %s: %s\n\n", f.Figure, f.Title)
	for _, r := range f.Routes {
		fmt.Fprintf(w, "from %s, key %s\n", r.From, r.Key)
		for i, h := range r.Hops {
			fmt.Fprintf(w, "  %2d  %s  shares %2d bits with the key, next by: %s\n", i, h.Node, h.Bits, h.Rule)
		}
		fmt.Fprintf(w, "  delivered at %s after %d hops\n\n", r.Delivered, len(r.Hops)-1)
	}
	if f.Table != nil {
		fmt.Fprint(w, "p  ")
		for d := range 16 {
			fmt.Fprintf(w, "%-7X", d)
		}
		fmt.Fprintln(w)
		for p, cells := range f.Table {
			fmt.Fprintf(w, "%d  ", p)
			for _, c := range cells {
				fmt.Fprintf(w, "%-7s", c)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w)
	}
	for _, s := range f.Stats {
		fmt.Fprintf(w, "N = %-6d h = %d: %d lookups, mean %.1f hops (N/4h = %.1f), most %d (N/2h = %.1f)\n",
			s.Nodes, s.Leaves, s.Lookups, s.Mean, s.ByBook, s.Max, s.Worst)
	}
	for _, s := range f.Failures {
		fmt.Fprintf(w, "FAILED: %s\n", s)
	}
}
