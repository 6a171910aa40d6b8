package sim

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"atoll.example/atoll/internal/machine"
)

// leastNodes is how far a pool of the dht scenarios shrinks: the set of a block
// and one more. Smaller ones keep other promises, which the checkers would take
// for failures: a pool of one acknowledges one copy.
const leastNodes = 4

// Shrunk is the outcome of shrinking a run.
type Shrunk struct {
	Scenario string   `json:"scenario"`
	Seed     uint64   `json:"seed"`
	Passed   bool     `json:"passed"` // there was nothing to shrink
	Partial  bool     `json:"partial,omitempty"`
	Finding  string   `json:"finding,omitempty"`  // its kind
	Failures []string `json:"failures,omitempty"` // of the smallest run
	Before   Size     `json:"before"`
	After    Size     `json:"after"`
	Tries    int      `json:"tries"`
	RealS    float64  `json:"real_s"`
	Hash     string   `json:"trace_hash,omitempty"` // of the smallest run
	Replay   string   `json:"replay,omitempty"`
	Case     *Case    `json:"case,omitempty"` // the smallest run that was found
}

// Size is how much takes part in a run.
type Size struct {
	Nodes  int     `json:"nodes"`
	Ops    int     `json:"operations"`
	Faults int     `json:"faults"` // episodes, and faults that last
	ForS   float64 `json:"for_s"`  // how long operations and faults last, virtual
}

func (s Size) String() string {
	return fmt.Sprintf("nodes %d, operations %d, faults %d, %s", s.Nodes, s.Ops, s.Faults,
		time.Duration(s.ForS*float64(time.Second)).Round(time.Millisecond))
}

// shrinker is the work under way.
type shrinker struct {
	ctx      context.Context
	progress func(Progress)
	began    time.Time
	least    int // nodes that must take part, those that join with the fault that brings them

	c     Case // the smallest that fails
	best  Report
	tries int
	err   error
}

// Shrink looks for the smallest part of a failing run that still fails with a
// finding of the same kind as its first: it takes away nodes, then operations,
// then faults, then time, as long as anything can go (delta debugging; Zeller
// and Hildebrandt, 2002). Each try is a run. When ctx ends early the result is
// the smallest that was found until then, and marked so.
func Shrink(ctx context.Context, c Case, progress func(Progress)) (*Shrunk, error) {
	if sc, err := ScenarioByName(c.Scenario); err != nil || sc.Whole {
		return nil, cmp.Or(err, errWhole(c.Scenario))
	}
	s := &shrinker{ctx: ctx, progress: progress, began: time.Now(), c: c}
	r, err := c.Run(ctx, 1, progress)
	if err != nil {
		return nil, err
	}
	o := outcomeOf(r)
	res := &Shrunk{
		Scenario: c.Scenario, Seed: c.Seed, Passed: r.OK(), Partial: r.Stopped(),
		Before: sizeOf(&o.parts.seen, o.span), After: sizeOf(&o.parts.seen, o.span), Tries: 1,
	}
	defer func() { res.RealS = time.Since(s.began).Seconds() }()
	if r.OK() || r.Stopped() {
		return res, nil
	}
	only := o.parts.seen
	only.Finding, only.UntilMS = o.parts.first, wholeMS(o.span)
	if c.Only != nil {
		only.Finding = c.Only.Finding
	}
	s.best = r
	if s.fails(only) {
		if strings.HasPrefix(c.Scenario, "dht-") {
			s.least = min(leastNodes, len(s.c.Only.Nodes))
		}
		for before := 0; before != s.parts(); {
			before = s.parts()
			s.nodes()
			s.ops()
			s.faults()
			s.time()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	o = outcomeOf(s.best)
	res.Partial, res.Finding, res.Failures = ctx.Err() != nil, only.Finding, failuresOf(s.best)
	res.After, res.Tries, res.Hash = sizeOf(&o.parts.seen, o.span), 1+s.tries, o.hash
	res.Case, res.Replay = &s.c, s.c.replay()
	return res, nil
}

// fails tries a smaller run, and keeps it if it fails as the whole one does.
func (s *shrinker) fails(only Subset) bool {
	if s.err != nil || s.ctx.Err() != nil {
		return false
	}
	s.tries++
	s.tell()
	c := s.c
	c.Only = &only
	r, err := c.Run(s.ctx, 1, nil)
	if err != nil {
		s.err = err
		return false
	}
	o := outcomeOf(r)
	if r.Stopped() || o.kinds[only.Finding] == 0 || len(o.parts.seen.Nodes) < s.least {
		return false
	}
	// What took part until the finding is enough, by the same history.
	until := only.UntilMS
	if o.parts.during {
		until = min(until, wholeMS(o.parts.at))
	}
	took := o.parts.seen
	took.Finding, took.UntilMS = only.Finding, until
	s.c.Only, s.best = &took, r
	return true
}

func (s *shrinker) tell() {
	if s.progress == nil {
		return
	}
	o := outcomeOf(s.best)
	s.progress(Progress{Phase: fmt.Sprintf("try %d, %s: %v", s.tries, time.Since(s.began).Round(time.Second), sizeOf(&o.parts.seen, o.span))})
}

// parts counts what is left.
func (s *shrinker) parts() int {
	return len(s.c.Only.Nodes) + len(s.c.Only.Ops) + len(s.c.Only.Faults)
}

func (s *shrinker) nodes() {
	reduce(func() []int { return s.c.Only.Nodes[1:] }, func(ns []int) bool { // all but the founder
		only := *s.c.Only
		only.Nodes = append([]int{1}, ns...)
		return len(only.Nodes) >= s.least && s.fails(only)
	})
}

func (s *shrinker) ops() {
	reduce(func() []int { return s.c.Only.Ops }, func(ns []int) bool {
		only := *s.c.Only
		only.Ops = ns
		return s.fails(only)
	})
}

func (s *shrinker) faults() {
	reduce(func() []Episode { return s.c.Only.Faults }, func(fs []Episode) bool {
		only := *s.c.Only
		only.Faults = fs
		return s.fails(only)
	})
}

// time halves the interval in which the shortest run lies that fails, down to a
// second.
func (s *shrinker) time() {
	for least := int64(0); s.c.Only.UntilMS-least > 1000; {
		only := *s.c.Only
		only.UntilMS = least + (only.UntilMS-least)/2
		if !s.fails(only) {
			least = only.UntilMS
		}
	}
}

// reduce takes away parts of a list, first large ones, then smaller ones, as long
// as fails says that the rest does. A run that fails may leave an even shorter
// list.
func reduce[T any](list func() []T, fails func(rest []T) bool) {
	for size := len(list()); size > 0; size /= 2 {
		for from := 0; from < len(list()); {
			l := list()
			rest := slices.Delete(slices.Clone(l), from, min(from+size, len(l)))
			if !fails(rest) {
				from += size
			}
		}
	}
}

func outcomeOf(r Report) *outcome {
	switch r := r.(type) {
	case *Result:
		return &r.outcome
	case *DHTResult:
		return &r.outcome
	}
	panic(fmt.Sprintf("sim: %T is not of one run", r))
}

func failuresOf(r Report) []string {
	switch r := r.(type) {
	case *Result:
		return r.Failures
	case *DHTResult:
		return r.Failures
	}
	return nil
}

// wholeMS is d in ms, rounded up.
func wholeMS(d machine.Duration) int64 {
	return int64((d + machine.Millisecond - 1) / machine.Millisecond)
}

func sizeOf(s *Subset, span machine.Duration) Size {
	return Size{len(s.Nodes), len(s.Ops), len(s.Faults), float64(span) / float64(machine.Second)}
}

func (r *Shrunk) OK() bool      { return r.Passed }
func (r *Shrunk) Stopped() bool { return r.Partial }

var _ Report = (*Shrunk)(nil)

// Print writes the result as a table for people.
func (r *Shrunk) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	row("run", "%s, seed %d: %v", r.Scenario, r.Seed, r.Before)
	switch {
	case r.Partial && r.Case == nil:
		row("PARTIAL", "stopped before anything was found")
	case r.Passed:
		row("verdict", "passed: there is nothing to shrink")
	default:
		row("finding", "%s", r.Finding)
		if r.Partial {
			row("PARTIAL", "stopped early: it may shrink further")
		}
		row("shrunk to", "%v, in %d tries and %.0f s", r.After, r.Tries, r.RealS)
		if only := r.Case.Only; only != nil {
			row("  nodes", "%s", list(only.Nodes))
			row("  operations", "%s", list(only.Ops))
			row("  faults", "%s", list(only.Faults))
		}
		row("trace hash", "%s", r.Hash)
		verdict(row, false, r.Failures, r.Replay)
	}
	_ = w.Flush() // out's own errors are out's owner's
}

// list names up to 30 of what is left.
func list[T any](parts []T) string {
	const most = 30
	var names []string
	for _, p := range parts[:min(len(parts), most)] {
		names = append(names, fmt.Sprint(p))
	}
	if more := len(parts) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return orNone(strings.Join(names, ", "))
}
