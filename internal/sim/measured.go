package sim

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
)

// Measured is what the results of the scenarios that measure have in common.
// Passed is the checkers' word; whether a figure reaches its target is said
// beside it.
type Measured struct {
	Scenario string   `json:"scenario"`
	Seed     uint64   `json:"seed"`
	Partial  bool     `json:"partial,omitempty"`
	Passed   bool     `json:"passed"`
	Failures []string `json:"failures,omitempty"`
	Replay   string   `json:"replay"`
	Reached  bool     `json:"target_reached"`

	NodeHours float64          `json:"node_hours"`
	AckedPuts int64            `json:"acked_puts"`
	Lost      int64            `json:"acked_lost"`
	Refused   map[string]int64 `json:"refused,omitempty"` // answers other than success
	TraceHash []string         `json:"trace_hashes"`      // of each run of a pool
	Events    uint64           `json:"events"`
	RealS     float64          `json:"real_s"`
}

func (m *Measured) OK() bool      { return m.Passed }
func (m *Measured) Stopped() bool { return m.Partial }

// add takes in what the checkers of a run found.
func (m *Measured) add(r *dhtRun) {
	if !r.over() {
		m.Lost += r.set.lost()
	}
	m.Partial = m.Partial || r.partial
	m.Failures = append(m.Failures, r.failures...)
	m.Passed = len(m.Failures) == 0
	m.NodeHours += float64(r.e.Now()) / float64(machine.Hour) * float64(r.cfg.Nodes)
	m.AckedPuts += r.set.Acked
	if m.Refused == nil {
		m.Refused = make(map[string]int64)
	}
	for _, k := range sortedNames(r.stat.errs) {
		m.Refused[k] += r.stat.errs[k]
	}
	m.TraceHash = append(m.TraceHash, r.e.Hash())
	m.Events += r.e.Events
}

// table prints what all have in common around the rows of f.
func (m *Measured) table(out io.Writer, f func(row func(name, format string, a ...any))) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	f(row)
	if m.Partial {
		row("PARTIAL", "stopped early: the figures cover a part of the run")
	}
	row("acknowledged", "%d puts, %d lost", m.AckedPuts, m.Lost)
	printCounts(row, "refused", m.Refused)
	row("speed", "%d events, %.0f node-hours in %.1f s", m.Events, m.NodeHours, m.RealS)
	for _, h := range m.TraceHash {
		row("trace hash", "%s", h)
	}
	verdict(row, m.Passed, m.Failures, m.Replay)
	_ = w.Flush()
}

// target words whether a figure reaches its target.
func target(reached bool) string {
	if reached {
		return "reached"
	}
	return "NOT reached"
}

// newMeasured names a run.
func newMeasured(name string, seed uint64, o Options) Measured {
	return Measured{Scenario: name, Seed: seed, Passed: true, Replay: origin{name, o.Quick, ""}.replay(seed)}
}

// calmPool is a pool of real nodes' presets in which only what a scenario does
// itself happens. It is built, and its clients are idle.
func calmPool(ctx context.Context, seed uint64, o Options, nodes int, t Topology, ring pastry.Config, blocks dht.Config, progress func(Progress)) (*dhtRun, error) {
	c := DefaultDHT()
	c.Seed, c.Nodes, c.Faults, c.Encode, c.Bugs, c.Log = seed, nodes, []string{"none"}, o.Encode, o.Bugs, o.Log
	r, err := newDHTRun(c)
	if err != nil {
		return nil, err
	}
	r.ctx, r.teller = ctx, newTeller(progress)
	r.e.cfg.Topology, r.e.net.topo = t, t
	ring.Pool, ring.GUIDOf, ring.Bugs = r.pool.pastry.Pool, r.pool.pastry.GUIDOf, r.pool.pastry.Bugs
	r.pool.pastry, r.pool.dht = ring, blocks
	r.build()
	return r, nil
}

// onReply calls f after each answer has been judged, inside the client's step.
func (r *dhtRun) onReply(f func(op *dhtOp, err error)) {
	judge := r.e.cfg.OnReply
	r.e.cfg.OnReply = func(n Ref, num uint64, body any, err error) {
		op := r.ops[num]
		judge(n, num, body, err)
		if op != nil && op.node == n {
			f(op, err)
		}
	}
}

// pass lets d go by.
func (r *dhtRun) pass(phase string, d machine.Duration) {
	if r.over() {
		return
	}
	r.phase, r.end = phase, r.e.Now().Add(d)
	r.runUntil(r.end)
}

// load puts count blocks of a size, each with its first claim, one every gap,
// and waits until the pool has k copies of each.
func (r *dhtRun) load(count, size int, gap machine.Duration) {
	for i := range count {
		r.e.After(machine.Duration(i)*gap, func() {
			if n := r.pickReady(r.rnd.op); n != World {
				r.put(n, r.blockOf(size), ownerKey(r.rnd.op.IntN(numOwners)), r.newClaim())
			}
		})
	}
	r.pass("load", machine.Duration(count)*gap+machine.Minute)
	r.whole(10 * machine.Minute)
}

// whole waits until every block has k copies, for limit at most.
func (r *dhtRun) whole(limit machine.Duration) {
	until := r.e.Now().Add(limit)
	for !r.over() {
		why := r.owes()
		if why == "" {
			return
		}
		if r.e.Now() >= until {
			r.fail("repair", fmt.Sprintf("after %s without faults: %s", time.Duration(limit)*time.Microsecond, why))
			return
		}
		r.pass(r.phase, 5*machine.Second)
	}
}

// readAll reads every acknowledged block once, somewhere, one every gap: each
// must answer, with the right bytes.
func (r *dhtRun) readAll(gap machine.Duration) {
	count := 0
	for _, b := range r.set.order {
		if b.must() {
			count++
			r.e.After(machine.Duration(count)*gap, func() {
				if n := r.pickReady(r.rnd.op); n != World {
					r.get(n, b, &finalCheck{})
				}
			})
		}
	}
	r.pass("verify", machine.Duration(count)*gap+4*machine.Minute)
}

// blockOf makes a block of size bytes, 24 at least.
func (r *dhtRun) blockOf(size int) []byte {
	b := make([]byte, max(size, 24))
	copy(b, "ATB1\x02\x01\x00\x00")
	for i := 8; i < len(b); i += 8 {
		v := r.rnd.data.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return b
}

// normal draws from the standard normal distribution, in units of 2^-20: the
// sum of twelve even draws, as good as normal up to three deviations.
func normal(r *rand.Rand) int64 {
	var sum int64
	for range 12 {
		sum += r.Int64N(1 << 20)
	}
	return sum - 6<<20
}

// roots are 2^(2^-i) for i from 1, in units of 2^-30.
var roots = [...]int64{
	1518500250, 1276901417, 1170923762, 1121280436, 1097253708, 1085434106, 1079572136, 1076653033, 1075196443, 1074468888,
}

// logNormal draws from the log-normal distribution of a median, whose logarithm
// to the base 2 has a deviation of milli/1000; below 1 becomes 1, and a result
// above limit becomes limit. It counts in integers, as all that a history
// depends on.
func logNormal(r *rand.Rand, median, milli, limit int64) int64 {
	x := normal(r) * milli / 1000 // the exponent, in units of 2^-20
	v, whole := median<<10, x>>20
	for i, f := range roots {
		if x&(1<<(19-i)) != 0 {
			v = v * (f >> 10) >> 20
		}
	}
	for ; whole > 0 && v < limit<<10; whole-- {
		v *= 2
	}
	for ; whole < 0; whole++ {
		v /= 2
	}
	return min(max(v>>10, 1), limit)
}

// truncatedNormal draws from the normal distribution of a mean and deviation,
// again until the result is from lo to hi.
func truncatedNormal(r *rand.Rand, mean, dev, lo, hi int64) int64 {
	for {
		if v := mean + normal(r)*(dev>>10)>>10; v >= lo && v <= hi {
			return v
		}
	}
}

// Runs are the reports of several seeds.
type Runs struct {
	Runs []Report `json:"runs"`
}

func (rs *Runs) OK() bool      { return rs.all(Report.OK) }
func (rs *Runs) Stopped() bool { return !rs.all(func(r Report) bool { return !r.Stopped() }) }

func (rs *Runs) all(is func(Report) bool) bool {
	for _, r := range rs.Runs {
		if !is(r) {
			return false
		}
	}
	return true
}

// Print prints one table after the other.
func (rs *Runs) Print(w io.Writer) {
	for i, r := range rs.Runs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		r.Print(w)
	}
}

var _ Report = (*Runs)(nil)

// measuringScenario is a scenario whose run is whole or not at all.
func measuringScenario[R Report](name, about string, run func(ctx context.Context, seed uint64, o Options, progress func(Progress)) (R, error)) Scenario {
	return Scenario{Name: name, About: about, Whole: true, Run: func(ctx context.Context, seed uint64, o Options, progress func(Progress)) (Report, error) {
		if o.Seeds <= 1 {
			return nilIfErr(run(ctx, seed, o, progress))
		}
		reports, err := eachSeed(ctx, seed, o.Seeds, progress, func(seed uint64) (Report, error) {
			return nilIfErr(run(ctx, seed, o, nil))
		})
		if err != nil {
			return nil, err
		}
		rs := &Runs{}
		for _, r := range reports {
			if r != nil { // not kept from starting
				rs.Runs = append(rs.Runs, r)
			}
		}
		return rs, nil
	}}
}
