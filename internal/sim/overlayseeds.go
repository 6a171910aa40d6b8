package sim

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// OverlaySeeds sums up one overlay run over many seeds: rates over all of
// them, figures of a run as their mean over the seeds.
type OverlaySeeds struct {
	Scenario string        `json:"scenario"`
	Config   OverlayConfig `json:"config"` // of every run, but for the seed
	From     uint64        `json:"from_seed"`
	Seeds    int           `json:"seeds"`
	Partial  bool          `json:"partial,omitempty"`
	Passed   bool          `json:"passed"`
	Failed   []string      `json:"failed,omitempty"` // replay line and first failure of each

	NodeHours     float64 `json:"node_hours"`
	WrongOwned    Rate    `json:"wrong_owned"`
	WrongBest     Rate    `json:"wrong_best_effort"`
	Lost          Rate    `json:"lost"`
	LostBest      Rate    `json:"lost_best_effort"`
	Stalled       Rate    `json:"owned_stalled_5s"`
	TwoOwners     Rate    `json:"two_owners"` // of leases looked at
	Loops         int64   `json:"loops"`
	Hops          float64 `json:"hops"`
	Log16N        float64 `json:"log16_n"`
	ControlPerMin float64 `json:"control_per_node_min"`
	RDP           float64 `json:"rdp_p50"`
	JoinS         float64 `json:"join_s_p50"`
	Events        uint64  `json:"events"`
	RealS         float64 `json:"real_s"`

	Runs []*Result `json:"runs"`
}

// RunOverlaySeeds runs cfg with the seeds cfg.Seed, cfg.Seed+1, …, on all
// cores. When ctx ends early the result covers what was run and is marked so.
func RunOverlaySeeds(ctx context.Context, cfg OverlayConfig, seeds int, progress func(Progress)) (*OverlaySeeds, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log != nil {
		return nil, fmt.Errorf("a trace is of one seed, not of %d", seeds)
	}
	began := time.Now()
	runs, err := eachSeed(ctx, cfg.Seed, seeds, progress, func(seed uint64) (*Result, error) {
		c := cfg
		c.Seed, c.beside = seed, true
		return RunOverlay(ctx, c, nil)
	})
	if err != nil {
		return nil, err
	}
	res := &OverlaySeeds{Scenario: cmp.Or(cfg.origin.name, "overlay"), Config: cfg, From: cfg.Seed, Seeds: seeds}
	for _, r := range runs {
		if r != nil {
			res.add(r)
		}
	}
	res.sum()
	res.RealS = time.Since(began).Seconds()
	return res, nil
}

func (s *OverlaySeeds) add(r *Result) {
	s.Runs = append(s.Runs, r)
	s.NodeHours += r.NodeHours
	for _, p := range []struct {
		all *Rate
		one Rate
	}{
		{&s.WrongOwned, r.WrongOwned},
		{&s.WrongBest, r.WrongBest},
		{&s.Lost, r.Lost},
		{&s.LostBest, r.LostBest},
		{&s.Stalled, r.Stalled},
		{&s.TwoOwners, r.TwoOwners},
	} {
		*p.all = rate(p.all.Count+p.one.Count, p.all.Of+p.one.Of)
	}
	s.Loops += r.Loops
	s.Events += r.Events
	s.Partial = s.Partial || r.Partial
	if !r.Passed {
		s.Failed = append(s.Failed, r.Replay+"  # "+r.Failures[0])
	}
}

func (s *OverlaySeeds) sum() {
	n := float64(len(s.Runs))
	for _, r := range s.Runs {
		s.Hops += r.Hops.Mean / n
		s.Log16N += r.Log16N / n
		s.ControlPerMin += r.ControlPerMin / n
		s.RDP += r.RDP.P50 / n
		s.JoinS += r.JoinS.P50 / n
	}
	s.Partial = s.Partial || len(s.Runs) < s.Seeds
	s.Passed = len(s.Failed) == 0
}

func (s *OverlaySeeds) OK() bool      { return s.Passed }
func (s *OverlaySeeds) Stopped() bool { return s.Partial }

var _ Report = (*OverlaySeeds)(nil)

// Print writes the result as a table for people, a row per seed at its end.
func (s *OverlaySeeds) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	c := &s.Config
	row("runs", "%d of %d seeds from %d, %.0f node-hours", len(s.Runs), s.Seeds, s.From, s.NodeHours)
	row("each", "%d nodes, %s, churn %s, loss %g %%, %g lookups/s/node, %v", c.Nodes, c.Topology, orNone(c.Churn),
		c.Loss*100, c.Lookups, c.Duration)
	if s.Partial {
		row("PARTIAL", "stopped early: the figures cover a part of the runs")
	}
	row("wrong deliveries, owned", "%v", s.WrongOwned)
	row("wrong deliveries, best effort", "%v; MSPastry, 5 %% loss: %.1e", s.WrongBest, publishedWrong)
	row("lost lookups", "%v; MSPastry: %.1e at 0 %%, %.1e at 5 %% loss", s.Lost, publishedLost0, publishedLost5)
	row("  best effort only", "%v", s.LostBest)
	row("owned, stalled > 5 s", "%v", s.Stalled)
	row("two owners", "%d in %d leases looked at", s.TwoOwners.Count, s.TwoOwners.Of)
	row("loops", "%d", s.Loops)
	row("hops", "mean %.2f; log16 N = %.2f", s.Hops, s.Log16N)
	row("control messages", "%.1f per node and minute", s.ControlPerMin)
	row("join, relative delay", "p50 %.2f s, p50 %.2f", s.JoinS, s.RDP)
	row("speed", "%d events in %.0f s", s.Events, s.RealS)
	if s.Passed {
		row("verdict", "passed")
	}
	for _, f := range s.Failed {
		row("FAILED", "%s", f)
	}
	_ = w.Flush() // out's own errors are out's owner's
	fmt.Fprintln(w, "\nseed\twrong owned\twrong best effort\tlost\thops\tcontrol\tjoin p50\treal s\ttrace hash")
	for _, r := range s.Runs {
		fmt.Fprintf(w, "%d\t%d/%d\t%d/%d\t%d/%d\t%.2f\t%.0f\t%.2f s\t%.0f\t%.16s\n", r.Config.Seed,
			r.WrongOwned.Count, r.WrongOwned.Of, r.WrongBest.Count, r.WrongBest.Of, r.Lost.Count, r.Lost.Of,
			r.Hops.Mean, r.ControlPerMin, r.JoinS.P50, r.RealS, r.TraceHash)
	}
	_ = w.Flush()
}
