package sim

import (
	"math/rand/v2"

	"atoll.example/atoll/internal/machine"
)

// Subset is what of a seed's run takes part: these nodes, client operations and
// faults, for so long, until a checker finds what it is about. All numbers are
// those of the whole run, in which they count from 1.
type Subset struct {
	Finding string    `json:"finding"`    // kind: the run ends when a checker finds one
	Nodes   []int     `json:"nodes"`      // in order; node 1, which founds the pool, is always there
	Ops     []int     `json:"operations"` // in order
	Faults  []Episode `json:"faults"`
	UntilMS int64     `json:"until_ms"` // faults and operations last so long, ms of virtual time; 0: as long as in the whole run
}

// Episode is one fault of a run.
type Episode struct {
	Kind string `json:"kind"`
	N    int    `json:"n,omitempty"` // the n-th of its kind, or the node that departs; 0: lasts the whole run
	// Where it draws from in the stream that it shares with other episodes,
	// and the number of the first node that it may add: so it does the same
	// whichever others are left out.
	Draws uint64 `json:"draws,omitempty"`
	Node  int    `json:"node,omitempty"`
}

// episodeID tells episodes apart.
type episodeID struct {
	kind string
	n    int
}

// parts decides what takes place in a run, and lists what did. What is left out
// draws as many random numbers as if it were not, so that the rest stays as it
// was.
type parts struct {
	only   *Subset // nil: all
	nodes  map[int]bool
	ops    map[int]bool
	faults map[episodeID]Episode

	found bool // what only is about: the run ends

	seen    Subset
	counted map[string]int // episodes so far, by kind
	first   string         // kind of the first finding
	during  bool           // it came while operations and faults went on …
	at      machine.Duration
}

func newParts(only *Subset) parts {
	p := parts{only: only, counted: make(map[string]int), seen: Subset{Nodes: []int{}, Ops: []int{}, Faults: []Episode{}}}
	if only == nil {
		return p
	}
	p.nodes, p.ops, p.faults = map[int]bool{1: true}, make(map[int]bool), make(map[episodeID]Episode)
	for _, n := range only.Nodes {
		p.nodes[n] = true
	}
	for _, n := range only.Ops {
		p.ops[n] = true
	}
	for _, f := range only.Faults {
		p.faults[episodeID{f.Kind, f.N}] = f
	}
	return p
}

// node reports whether node n takes part.
func (p *parts) node(n int) bool {
	if p.only != nil && !p.nodes[n] {
		return false
	}
	p.seen.Nodes = append(p.seen.Nodes, n)
	return true
}

// operation reports whether the next client operation takes place.
func (p *parts) operation() bool {
	p.counted[""]++
	n := p.counted[""]
	if p.only != nil && !p.ops[n] {
		return false
	}
	p.seen.Ops = append(p.seen.Ops, n)
	return true
}

// lasting reports whether a fault that lasts the whole run takes place.
func (p *parts) lasting(kind string) bool { return p.fault(Episode{Kind: kind}) }

// episode reports whether the next fault of a kind takes place.
func (p *parts) episode(kind string) bool {
	p.counted[kind]++
	return p.fault(Episode{Kind: kind, N: p.counted[kind]})
}

func (p *parts) fault(f Episode) bool {
	if p.only != nil {
		kept, ok := p.faults[episodeID{f.Kind, f.N}]
		if !ok {
			return false
		}
		f = kept
	}
	p.seen.Faults = append(p.seen.Faults, f)
	return true
}

// place notes where the fault that takes place just now begins.
func (p *parts) place(draws uint64, node int) {
	f := &p.seen.Faults[len(p.seen.Faults)-1]
	f.Draws, f.Node = draws, node
}

// finding notes what a checker has found, at so long since the faults began.
func (p *parts) finding(kind string, during bool, at machine.Duration) {
	if p.first == "" {
		p.first, p.during, p.at = kind, during, at
	}
	p.found = p.found || p.only != nil && p.only.Finding == kind
}

// until bounds how long operations and faults last.
func (p *parts) until(d machine.Duration) machine.Duration {
	if p.only == nil || p.only.UntilMS == 0 {
		return d
	}
	return min(d, machine.Duration(p.only.UntilMS)*machine.Millisecond)
}

// outcome is what the shrinker wants to know of a run.
type outcome struct {
	parts parts
	kinds map[string]int   // findings
	span  machine.Duration // of operations and faults
	hash  string
}

// stream is a random stream that knows how much was drawn from it.
type stream struct {
	begin func() *rand.Rand
	src   *rand.Rand
	drawn uint64
}

func newStream(begin func() *rand.Rand) *stream { return &stream{begin: begin, src: begin()} }

func (s *stream) Uint64() uint64 {
	s.drawn++
	return s.src.Uint64()
}

// seek goes to where drawn numbers have been drawn.
func (s *stream) seek(drawn uint64) {
	if drawn < s.drawn {
		s.src, s.drawn = s.begin(), 0
	}
	for s.drawn < drawn {
		s.Uint64()
	}
}

var _ rand.Source = (*stream)(nil)
