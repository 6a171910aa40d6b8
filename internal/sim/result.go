package sim

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/trace"
)

// overlayStats collects the samples of a run.
type overlayStats struct {
	sent, bytes [256]uint64
	events      uint64
	cost        *Cost
	readySum    int64 // Σ ready nodes × µs
	hops        []float64
	latency     []float64 // s
	rdp         []float64
	joins       []float64 // s
	drops       map[string]int64
	halts       map[string]int64
	remarks     []string
	converge    machine.Duration
	convergeWhy string
}

func (s *overlayStats) init() {
	s.drops, s.halts = make(map[string]int64), make(map[string]int64)
}

// Result is what a run found. Times are in the unit of their name.
type Result struct {
	Scenario string        `json:"scenario"`
	Config   OverlayConfig `json:"config"`
	Partial  bool          `json:"partial,omitempty"` // ended by the caller: figures cover a part
	Passed   bool          `json:"passed"`
	Failures []string      `json:"failures,omitempty"`
	Remarks  []string      `json:"remarks,omitempty"`
	Replay   string        `json:"replay"`

	MeanNodes     float64            `json:"mean_nodes"`
	NodeHours     float64            `json:"node_hours"`
	WrongOwned    Rate               `json:"wrong_owned"`
	WrongBest     Rate               `json:"wrong_best_effort"`
	Lost          Rate               `json:"lost"`
	LostBest      Rate               `json:"lost_best_effort"`
	RootDied      int64              `json:"root_died"`
	OriginDied    int64              `json:"origin_died"`
	Stalled       Rate               `json:"owned_stalled_5s"`
	Duplicates    int64              `json:"delivered_twice"`
	Loops         int64              `json:"loops"`
	TwoOwners     Rate               `json:"two_owners"` // of leases looked at
	ConvergedS    float64            `json:"converged_s"`
	Hops          Dist               `json:"hops"`
	Log16N        float64            `json:"log16_n"`
	LatencyS      Dist               `json:"latency_s"`
	RDP           Dist               `json:"rdp"`
	JoinS         Dist               `json:"join_s"`
	ControlPerMin float64            `json:"control_per_node_min"`
	SentPerMin    float64            `json:"sent_per_node_min"`
	ByKind        map[string]float64 `json:"sent_per_node_min_by_kind"`
	ControlBytesS float64            `json:"control_bytes_per_node_s,omitempty"`
	Drops         map[string]int64   `json:"drops,omitempty"`
	Halts         map[string]int64   `json:"halts,omitempty"`
	Faults        map[string]uint64  `json:"faults"`

	TraceHash  string  `json:"trace_hash"`
	Events     uint64  `json:"events"`
	EventsPerS float64 `json:"events_per_s"`
	RealS      float64 `json:"real_s"`
	Cost       *Cost   `json:"cost,omitempty"` // none where other runs went on beside it
	Commit     string  `json:"commit,omitempty"`
	Machine    string  `json:"machine"`

	outcome outcome
}

// Published figures that results are shown beside: Coulouris et al., §10.5.1,
// after Castro et al., MSPastry (DSN 2004).
const (
	publishedLost0 = 1.5e-5
	publishedLost5 = 3.3e-5
	publishedWrong = 1.6e-5
)

// comparable reports whether the published rates can be asked of a run of c: full
// routing, no more loss than theirs, time to retry, and not the shortest sessions:
// at 5 minutes a healthy run loses 1.6e-4.
func (c *OverlayConfig) comparable(churn Churn) bool {
	return !c.LeafOnly && c.Loss <= 0.05 && c.Spikes == 0 && c.Deadline >= time.Minute &&
		(churn.Mean == 0 || churn.Mean >= 10*machine.Minute)
}

func (r *overlayRun) result(took time.Duration) *Result {
	c, st := &r.check, &r.stat
	span := float64(r.to.Sub(r.from))
	minutes := float64(r.nodeTime) / float64(machine.Minute)
	res := &Result{
		Scenario: cmp.Or(r.cfg.origin.name, "overlay"), Config: r.cfg, Partial: r.partial, Failures: c.failures, Remarks: st.remarks,
		NodeHours:  minutes / 60,
		WrongOwned: rate(c.wrongOwned, c.deliveries[1]),
		WrongBest:  rate(c.wrongBest, c.deliveries[0]),
		Lost:       rate(c.lost, c.owned+c.best), LostBest: rate(c.lostBest, c.best),
		RootDied: c.rootDie, OriginDied: c.excused,
		Stalled:    rate(c.stalled, c.owned),
		Duplicates: c.twice, Loops: c.loops, TwoOwners: rate(c.twoOwners, c.leaseLooks),
		ConvergedS: float64(st.converge) / 1e6,
		Hops:       dist(st.hops), LatencyS: dist(st.latency), RDP: dist(st.rdp), JoinS: dist(st.joins),
		Cost: st.cost, Drops: st.drops, Halts: st.halts, Faults: r.e.Faults.Map(),
		ByKind:    make(map[string]float64),
		TraceHash: r.e.Hash(), Events: r.e.Events, RealS: took.Seconds(),
		EventsPerS: float64(r.e.Events) / took.Seconds(),
		Commit:     buildCommit(), Machine: fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
	if span > 0 {
		res.MeanNodes = float64(st.readySum) / span
		res.Log16N = math.Log2(max(1, res.MeanNodes)) / 4
	}
	if minutes > 0 {
		var bytes uint64
		for k, n := range st.sent {
			if n == 0 {
				continue
			}
			perMin := float64(n) / minutes
			res.SentPerMin += perMin
			res.ByKind[r.maker.kind(uint8(k))] = perMin
			if r.maker.control(uint8(k)) {
				res.ControlPerMin += perMin
				bytes += st.bytes[k]
			}
		}
		res.ControlBytesS = float64(bytes) / minutes / 60
	}
	for what, n := range st.halts {
		if n > 0 {
			c.fail("halt", what)
		}
	}
	c.rates()
	res.Failures = c.failures
	res.Passed = len(c.failures) == 0
	res.Replay = r.cfg.replay()
	res.outcome = outcome{parts: r.parts, kinds: c.perKind, span: r.span, hash: res.TraceHash}
	return res
}

// replay is the command that runs cfg again.
func (c *OverlayConfig) replay() string {
	if c.origin.name != "" {
		return c.origin.replay(c.Seed)
	}
	s := fmt.Sprintf("atoll sim overlay --nodes %d --topology %s --churn %s --loss %g --lookups %g --for %s --seed %d",
		c.Nodes, c.Topology, c.Churn, c.Loss, c.Lookups, c.Duration, c.Seed)
	if c.LeafOnly {
		s += " --leaf-only"
	}
	return s + commitFlag()
}

// buildCommit is the commit the running program was built from, if known.
func buildCommit() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// logMessage writes a delivery as a line.
func logMessage(w io.Writer, e *Engine, from, to Ref, m machine.Message) {
	fmt.Fprintf(w, "%s %s <- %s %T\n", logTime(e.Now()), e.Handle(to).GUID.Short(), e.Handle(from).GUID.Short(), m)
}

// logTrace writes a trace event as a line.
func logTrace(w io.Writer, e *Engine, n Ref, ev trace.Event) {
	fmt.Fprintf(w, "%s %s %s", logTime(e.Now()), e.Handle(n).GUID.Short(), ev.Kind)
	if !ev.Peer.IsZero() {
		fmt.Fprintf(w, " peer %s", ev.Peer.Short())
	}
	if !ev.Key.IsZero() {
		fmt.Fprintf(w, " key %s", ev.Key.Short())
	}
	fmt.Fprintf(w, " n %d %s\n", ev.N, ev.Note)
}

// logTime is the time of a log's line, to the µs.
func logTime(t machine.Time) string { return (time.Duration(t) * time.Microsecond).String() }

func fmtTime(t machine.Time) string {
	return (time.Duration(t) * time.Microsecond).Round(time.Millisecond).String()
}

func (r Rate) String() string {
	return fmt.Sprintf("%d of %d (%.2g, 95 %%: ≤ %.2g)", r.Count, r.Of, r.Rate, r.Bound95)
}

// Print writes the result as a table for people.
func (r *Result) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	c := &r.Config
	row("run", "%d nodes, %s, churn %s, loss %g %%, %g lookups/s/node, %v, seed %d", c.Nodes, c.Topology, orNone(c.Churn),
		c.Loss*100, c.Lookups, c.Duration, c.Seed)
	if r.Partial {
		row("PARTIAL", "stopped early: the figures cover a part of the run")
	}
	row("nodes", "%.0f in the mean, %.0f node-hours; sessions fitted, not the published traces", r.MeanNodes, r.NodeHours)
	row("wrong deliveries, owned", "%v", r.WrongOwned)
	row("wrong deliveries, best effort", "%v; MSPastry, 5 %% loss: %.1e", r.WrongBest, publishedWrong)
	row("lost lookups", "%v; MSPastry: %.1e at 0 %%, %.1e at 5 %% loss", r.Lost, publishedLost0, publishedLost5)
	row("  best effort only", "%v", r.LostBest)
	row("  not counted", "%d whose origin died, %d whose root died", r.OriginDied, r.RootDied)
	row("owned, stalled > 5 s", "%v", r.Stalled)
	row("delivered twice", "%d", r.Duplicates)
	row("loops", "%d", r.Loops)
	row("two owners", "%d in %d leases looked at", r.TwoOwners.Count, r.TwoOwners.Of)
	row("leaf sets equal the oracle's", "%.0f s after the last fault", r.ConvergedS)
	row("hops", "mean %.2f, p99 %.0f, max %.0f; log16 N = %.2f", r.Hops.Mean, r.Hops.P99, r.Hops.Max, r.Log16N)
	row("latency", "p50 %.0f ms, p95 %.0f ms, p99 %.0f ms", r.LatencyS.P50*1e3, r.LatencyS.P95*1e3, r.LatencyS.P99*1e3)
	row("relative delay", "mean %.2f, p50 %.2f, p95 %.2f", r.RDP.Mean, r.RDP.P50, r.RDP.P95)
	if r.JoinS.N > 0 {
		row("join", "%d: p50 %.2f s, p99 %.2f s, max %.1f s", r.JoinS.N, r.JoinS.P50, r.JoinS.P99, r.JoinS.Max)
	}
	row("control messages", "%.2f per node and minute (all: %.2f)", r.ControlPerMin, r.SentPerMin)
	var kinds []string
	for _, k := range sortedNames(r.ByKind) {
		kinds = append(kinds, fmt.Sprintf("%s %.2f", k, r.ByKind[k]))
	}
	row("  by kind", "%s", strings.Join(kinds, ", "))
	if r.ControlBytesS > 0 {
		row("  bytes", "%.0f per node and second", r.ControlBytesS)
	}
	printCounts(row, "drops", r.Drops)
	printCounts(row, "halts", r.Halts)
	printCounts(row, "faults", r.Faults)
	row("speed", "%d events in %.1f s: %.0f events/s", r.Events, r.RealS, r.EventsPerS)
	if c := r.Cost; c != nil {
		row("cost", "%.2f µs of CPU time and %.0f bytes of garbage an event, %.0f bytes a node, %.0f MiB in all",
			c.USPerEvent, c.GarbagePerEvent, c.HeapPerNode, c.ProcessMiB)
	}
	row("trace hash", "%s", r.TraceHash)
	for _, s := range r.Remarks {
		row("remark", "%s", s)
	}
	verdict(row, r.Passed, r.Failures, r.Replay)
	_ = w.Flush() // out's own errors are out's owner's
}

func printCounts[V int64 | uint64](row func(string, string, ...any), name string, m map[string]V) {
	if len(m) == 0 {
		return
	}
	var parts []string
	for _, k := range sortedNames(m) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	row(name, "%s", strings.Join(parts, ", "))
}

func verdict(row func(string, string, ...any), passed bool, failures []string, replay string) {
	if passed {
		row("verdict", "passed")
		return
	}
	for _, f := range failures {
		row("FAILED", "%s", f)
	}
	row("replay", "%s", replay)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
