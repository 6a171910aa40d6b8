package sim

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"atoll.example/atoll/internal/machine"
)

// DHTResult is what one run of the stack found.
type DHTResult struct {
	Scenario string    `json:"scenario"`
	Config   DHTConfig `json:"config"`
	Faulty   []string  `json:"faults_enabled"`
	Healed   bool      `json:"healed"` // phase two was run
	Partial  bool      `json:"partial,omitempty"`
	Passed   bool      `json:"passed"`
	Failures []string  `json:"failures,omitempty"`
	Remarks  []string  `json:"remarks,omitempty"`
	Replay   string    `json:"replay"`

	NodeHours   float64           `json:"node_hours"`
	Blocks      int               `json:"blocks"`
	AckedPuts   int64             `json:"acked_puts"`
	AckedRemove int64             `json:"acked_removes"`
	AckedWrites int64             `json:"acked_signed"`
	Broken      map[string]int    `json:"broken,omitempty"` // promises broken, by kind
	Asked       map[string]int64  `json:"asked"`
	Done        map[string]int64  `json:"done"`
	Refused     map[string]int64  `json:"refused,omitempty"`
	Seconds     map[string]Dist   `json:"seconds"`
	Reads       int64             `json:"signed_reads"`
	Stale       int64             `json:"signed_stale"`
	Forks       int64             `json:"signed_forks"`
	RepairS     float64           `json:"whole_after_s"`
	Ends        map[string]int64  `json:"ends,omitempty"` // why nodes stopped
	Faults      map[string]uint64 `json:"faults"`
	TraceHash   string            `json:"trace_hash"`
	Events      uint64            `json:"events"`
	EventsPerS  float64           `json:"events_per_s"`
	RealS       float64           `json:"real_s"`

	counts  FaultCounts
	outcome outcome
}

func (r *dhtRun) result(took time.Duration) *DHTResult {
	res := &DHTResult{
		Scenario: r.cfg.origin.name, Config: r.cfg, Faulty: r.faults.names(), Healed: r.cfg.Seed%10 != 9, Partial: r.partial,
		Failures: r.failures, Remarks: r.stat.remarks,
		NodeHours: float64(r.e.Now()) / float64(machine.Hour) * float64(r.cfg.Nodes),
		Blocks:    len(r.set.order), AckedPuts: r.set.Acked, AckedRemove: r.set.Removes, AckedWrites: r.reg.Writes,
		Broken: r.perKind, Asked: make(map[string]int64), Done: make(map[string]int64), Refused: r.stat.errs,
		Seconds: make(map[string]Dist), Reads: r.reg.Reads, Stale: r.reg.Stale, Forks: r.reg.Forks,
		RepairS: float64(r.converge) / 1e6, Ends: r.stat.ends, Faults: r.e.Faults.Map(), counts: r.e.Faults,
		TraceHash: r.e.Hash(), Events: r.e.Events, EventsPerS: float64(r.e.Events) / took.Seconds(), RealS: took.Seconds(),
		Passed: len(r.failures) == 0,
		Replay: r.cfg.origin.replay(r.cfg.Seed),
	}
	res.outcome = outcome{parts: r.parts, kinds: r.perKind, span: r.span, hash: res.TraceHash}
	for k, n := range opNames {
		res.Asked[n], res.Done[n] = r.stat.asked[k], r.stat.ok[k]
		res.Seconds[n] = dist(r.stat.seconds[k])
	}
	return res
}

// Print writes the result as a table for people.
func (r *DHTResult) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	row("run", "%d nodes, k = %d, %.0f node-hours, seed %d", r.Config.Nodes, r.Config.K, r.NodeHours, r.Config.Seed)
	if r.Partial {
		row("PARTIAL", "stopped early: the figures cover a part of the run")
	}
	row("faults enabled", "%s", orNone(strings.Join(r.Faulty, " ")))
	row("blocks", "%d; acknowledged: %d puts, %d removals, %d signed writes", r.Blocks, r.AckedPuts, r.AckedRemove, r.AckedWrites)
	for _, n := range opNames {
		d := r.Seconds[n]
		row("  "+n, "%d asked, %d done; p50 %.0f ms, p99 %.0f ms", r.Asked[n], r.Done[n], d.P50*1e3, d.P99*1e3)
	}
	printCounts(row, "refused", r.Refused)
	row("signed blocks", "%d reads, %d stale, %d forks", r.Reads, r.Stale, r.Forks)
	if r.Healed {
		row("whole again", "%.0f s after the last fault", r.RepairS)
	}
	printCounts(row, "nodes ended", r.Ends)
	printCounts(row, "faults", r.Faults)
	row("speed", "%d events in %.1f s: %.0f events/s", r.Events, r.RealS, r.EventsPerS)
	row("trace hash", "%s", r.TraceHash)
	for _, s := range r.Remarks {
		row("remark", "%s", s)
	}
	verdict(row, r.Passed, r.Failures, r.Replay)
	_ = w.Flush()
}

// SwarmResult sums up many seeds.
type SwarmResult struct {
	Scenario  string            `json:"scenario"`
	From      uint64            `json:"from_seed"`
	Seeds     int               `json:"seeds"`
	Run       int               `json:"seeds_run"`
	Partial   bool              `json:"partial,omitempty"`
	Passed    bool              `json:"passed"`
	Failed    []string          `json:"failed,omitempty"` // replay line and first failure of each
	NodeHours float64           `json:"node_hours"`
	Acked     int64             `json:"acked_writes"`
	Lost      Rate              `json:"acked_lost"`
	NotFound  Rate              `json:"not_found_for_acked"` // of gets and signed gets
	Broken    map[string]int    `json:"broken,omitempty"`
	Faults    map[string]uint64 `json:"faults"`
	Missing   []string          `json:"faults_never_injected,omitempty"`
	Stale     int64             `json:"signed_stale"`
	Forks     int64             `json:"signed_forks"`
	Events    uint64            `json:"events"`
	RealS     float64           `json:"real_s"`
	Hashes    []string          `json:"trace_hashes,omitempty"`
}

// RunSwarm runs seeds from, from+1, … of cfg on all cores.
func RunSwarm(ctx context.Context, cfg DHTConfig, from uint64, seeds int, progress func(Progress)) (*SwarmResult, error) {
	began := time.Now()
	results, err := eachSeed(ctx, from, seeds, progress, func(seed uint64) (*DHTResult, error) {
		c := cfg
		c.Seed = seed
		return RunDHT(ctx, c, nil)
	})
	if err != nil {
		return nil, err
	}
	res := &SwarmResult{
		Scenario: cfg.origin.name, From: from, Seeds: seeds, Passed: true,
		Broken: make(map[string]int), Partial: ctx.Err() != nil,
	}
	var counts FaultCounts
	var gets int64
	for _, r := range results {
		if r == nil {
			continue
		}
		res.Run++
		res.NodeHours += r.NodeHours
		res.Acked += r.AckedPuts + r.AckedRemove + r.AckedWrites
		gets += r.Asked["get"] + r.Asked["signed_get"]
		res.Stale += r.Stale
		res.Forks += r.Forks
		res.Events += r.Events
		res.Partial = res.Partial || r.Partial
		res.Hashes = append(res.Hashes, r.TraceHash)
		for _, k := range sortedNames(r.Broken) {
			res.Broken[k] += r.Broken[k]
		}
		counts.Merge(&r.counts)
		if !r.Passed {
			res.Passed = false
			res.Failed = append(res.Failed, r.Replay+"  # "+r.Failures[0])
		}
	}
	res.Faults = counts.Map()
	if cfg.Faults == nil && res.Run == seeds && seeds >= 20 {
		for f := range numFaults {
			if counts[f] == 0 {
				res.Missing = append(res.Missing, f.String())
			}
		}
		res.Passed = res.Passed && len(res.Missing) == 0
	}
	res.Lost = rate(int64(res.Broken["acknowledged write lost"]), res.Acked)
	res.NotFound = rate(int64(res.Broken["not found"]), gets)
	res.RealS = time.Since(began).Seconds()
	return res, nil
}

// Print writes the result as a table for people.
func (r *SwarmResult) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	row("swarm", "%d of %d seeds from %d, %.0f node-hours", r.Run, r.Seeds, r.From, r.NodeHours)
	if r.Partial {
		row("PARTIAL", "stopped early")
	}
	row("acknowledged writes lost", "%v", r.Lost)
	row("not_found for an acknowledged object", "%v", r.NotFound)
	for _, k := range sortedNames(r.Broken) {
		row("broken", "%s: %d", k, r.Broken[k])
	}
	row("signed blocks", "%d stale reads, %d forks over set changes", r.Stale, r.Forks)
	printCounts(row, "faults", r.Faults)
	if len(r.Missing) > 0 {
		row("NEVER INJECTED", "%s", strings.Join(r.Missing, " "))
	}
	row("speed", "%d events in %.0f s", r.Events, r.RealS)
	if r.Passed {
		row("verdict", "passed")
	}
	for _, f := range r.Failed {
		row("FAILED", "%s", f)
	}
	_ = w.Flush()
}
