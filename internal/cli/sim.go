package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/sim"

	"github.com/spf13/cobra"
)

// laterSims are experiments of the design that are not built yet.
var laterSims = []string{"mspastry", "goals", "faults", "adversary", "bench"}

func (a *app) simCmd() *cobra.Command {
	var about strings.Builder
	var names []string
	for _, s := range sim.Scenarios() {
		fmt.Fprintf(&about, "\n  %-15s %s", s.Name, s.About)
		names = append(names, s.Name)
	}
	c := a.command(&cobra.Command{
		Use:   "sim",
		Short: "Simulate a pool in virtual time; needs no node",
		Args:  cobra.ArbitraryArgs,
		Long: `
Sim runs the protocols' own code, as nodes run it, in virtual time: any seed
gives the same run on every machine, down to the trace hash that it prints.
Checkers watch all of it; exit code 1 means that one found something, and the
command that replays the run is printed. A run that --timeout cuts short ends
with 4.

--shrink then looks for a small part of that run in which the same checker
still finds something: it takes away nodes, client operations, faults and time,
a run each, and writes what is left to a file that --only replays. Ctrl-C ends
it with the smallest found so far; --shrink with --only goes on from there.

"atoll sim overlay" sets up a run of the overlay by flags, "atoll sim figures"
draws the chapter's figures, and --scenario runs one of:
` + about.String(),
		Example: `
			atoll sim figures 10.8
			atoll sim overlay --nodes 1000 --for 10m
			atoll sim --scenario dht-swarm --seed 7
			atoll sim --scenario dht-swarm --seed 7 --trace swarm.log
			atoll sim --scenario dht-swarm --seed 7 --shrink
			atoll sim --only dht-swarm-7.json`,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if slices.Contains(laterSims, args[0]) {
				return notBuilt("sim " + args[0])
			}
			return usage(cmd, "unknown command %q for \"atoll sim\"", args[0])
		}
		shrink, only, seeds := truth(cmd, "shrink"), str(cmd, "only"), int(number(cmd, "seeds"))
		trace := str(cmd, "trace") != ""
		switch {
		case seeds > 1 && (shrink || only != "" || trace):
			return usage(cmd, "--shrink, --only and --trace are of one seed: leave --seeds out")
		case shrink && trace:
			return usage(cmd, "--trace is of one run: trace what --shrink leaves, with --only")
		}
		var c sim.Case
		if only != "" {
			if str(cmd, "scenario") != "" || cmd.Flags().Changed("seed") || truth(cmd, "quick") {
				return usage(cmd, "the file of --only names the run: leave --scenario, --seed and --quick out")
			}
			var err error
			if c, err = readCase(only); err != nil {
				return wrong("--only: %w", err)
			}
		} else {
			c = sim.Case{Scenario: str(cmd, "scenario"), Seed: uint64(number(cmd, "seed")), Quick: truth(cmd, "quick")}
			if c.Scenario == "" {
				return usage(cmd, "name a scenario with --scenario, or say \"atoll sim overlay\" or \"atoll sim figures\"")
			}
			if !slices.Contains(names, c.Scenario) {
				return usage(cmd, "unknown scenario %q: %s", c.Scenario, strings.Join(names, ", "))
			}
		}
		a.checkCommit(cmd)
		if shrink {
			return a.shrink(ctx, cmd, c)
		}
		return a.simulate(cmd, func(log io.Writer, progress func(sim.Progress)) (sim.Report, error) {
			c.Log = log
			return c.Run(ctx, seeds, progress)
		})
	})
	c.AddCommand(a.simOverlayCmd(), a.simFiguresCmd())
	return c
}

// readCase reads the file of a run.
func readCase(path string) (sim.Case, error) {
	f, err := os.Open(path)
	if err != nil {
		return sim.Case{}, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, sim.MaxCase+1))
	if err != nil {
		return sim.Case{}, err
	}
	c, err := sim.DecodeCase(b)
	if err != nil {
		return sim.Case{}, fmt.Errorf("%s: %w", path, err)
	}
	c.File = path
	return c, nil
}

// shrink makes a failing run smaller and writes what is left of it.
func (a *app) shrink(ctx context.Context, cmd *cobra.Command, c sim.Case) error {
	dir := str(cmd, "out")
	c.File = filepath.Join(dir, fmt.Sprintf("%s-%d.json", c.Scenario, c.Seed))
	return a.simulate(cmd, func(_ io.Writer, progress func(sim.Progress)) (sim.Report, error) {
		r, err := sim.Shrink(ctx, c, progress)
		if err != nil || r.Case == nil {
			return r, err
		}
		b, err := r.Case.Encode()
		if err == nil && dir != "" {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil {
			err = os.WriteFile(c.File, b, 0o644)
		}
		if err != nil {
			return nil, wrong("--shrink: %w", err)
		}
		return r, nil
	})
}

func (a *app) simOverlayCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "overlay",
		Short: "Simulate the routing overlay under loss and churn",
		Args:  cobra.NoArgs,
		Long: `
Overlay runs nodes that join, route lookups, fail and leave, and checks every
delivery against what an all-knowing observer sees: wrong deliveries, lost
lookups, loops, two owners of one key, leaf sets that do not settle. Figures are
printed beside those published for MSPastry.`,
		Example: `
			atoll sim overlay
			atoll sim overlay --nodes 300 --churn none --loss 0 --for 10m --seed 3
			atoll sim overlay --seeds 20`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		switch e := str(cmd, "engine"); e {
		case "pastry":
		case "tapestry":
			return notBuilt("--engine tapestry")
		default:
			return usage(cmd, "--engine must be pastry")
		}
		c := sim.DefaultOverlay()
		c.Seed, c.Nodes = uint64(number(cmd, "seed")), int(number(cmd, "nodes"))
		c.Topology, c.Churn = sim.Topology(str(cmd, "topology")), str(cmd, "churn")
		c.Loss, c.Lookups = share(cmd, "loss"), share(cmd, "lookups")
		c.Duration, c.LeafOnly = duration(cmd, "for"), truth(cmd, "leaf-only")
		if err := c.Validate(); err != nil {
			return wrong("%w", err)
		}
		a.checkCommit(cmd)
		seeds := int(number(cmd, "seeds"))
		if seeds > 1 && str(cmd, "trace") != "" {
			return usage(cmd, "--trace is of one seed: leave --seeds out")
		}
		return a.simulate(cmd, func(log io.Writer, progress func(sim.Progress)) (sim.Report, error) {
			if seeds > 1 {
				return sim.RunOverlaySeeds(ctx, c, seeds, progress)
			}
			c.Log = log
			return sim.RunOverlay(ctx, c, progress)
		})
	})
}

func (a *app) simFiguresCmd() *cobra.Command {
	numbers := sim.FigureNumbers()
	return a.command(&cobra.Command{
		Use:   "figures [NUMBER…|all]",
		Short: "Draw figures of the chapter by machines that run",
		Long: `
Figures lets the overlay's own code produce figures of chapter 10 of Coulouris
et al.: 10.6, routing with leaf sets alone from 65A1FC to D46A1C; 10.7, the
routing table of 65A1FC; 10.8, the same way with routing tables; 10.9, each
branch of the routing algorithm. It exits 1 if one does not come out as in the
book.`,
		Example: `
			atoll sim figures
			atoll sim figures 10.6 10.8`,
		ValidArgs: append(slices.Clone(numbers), "all"),
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		if len(args) == 0 || slices.Contains(args, "all") {
			args = numbers
		}
		for _, n := range args {
			switch {
			case n == "10.1" || n == "10.10":
				return notBuilt("figure " + n)
			case !slices.Contains(numbers, n):
				return usage(cmd, "no figure %q: %s or all", n, strings.Join(numbers, ", "))
			}
		}
		var failed error
		for i, n := range args {
			f, err := sim.Figure(ctx, n, uint64(number(cmd, "seed")), nil)
			if err != nil {
				return err
			}
			if i > 0 && !a.json {
				fmt.Fprintln(a.out)
			}
			if err := a.report(cmd, "figure-"+n, f); err != nil {
				failed = err
			}
		}
		return failed
	})
}

// simulate runs a simulation, under a profile and with a trace of its events if
// they are asked for, and reports.
func (a *app) simulate(cmd *cobra.Command, run func(log io.Writer, progress func(sim.Progress)) (sim.Report, error)) error {
	stop := func() error { return nil }
	if path := str(cmd, "profile"); path != "" {
		var err error
		if stop, err = startProfile(path); err != nil {
			return wrong("--profile: %w", err)
		}
	}
	r, err := traced(str(cmd, "trace"), func(log io.Writer) (sim.Report, error) { return run(log, a.simProgress()) })
	a.endProgress()
	if stopped := stop(); stopped != nil && err == nil {
		err = api.Errorf(api.Internal, "", "", "writing the profile: %w", stopped)
	}
	if err != nil {
		return err
	}
	return a.report(cmd, "result", r)
}

// traced runs a simulation that writes its events to the file at path, if there is one.
func traced(path string, run func(log io.Writer) (sim.Report, error)) (sim.Report, error) {
	if path == "" {
		return run(nil)
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, wrong("--trace: %w", err)
	}
	w := bufio.NewWriter(f)
	r, err := run(w)
	if written := errors.Join(w.Flush(), f.Close()); written != nil && err == nil {
		err = api.Errorf(api.Internal, "", "", "writing the trace: %w", written)
	}
	return r, err
}

// report prints and saves what a simulation found; a checker's finding ends
// with 1, a run that was not done in time with 4: it proves nothing yet.
func (a *app) report(cmd *cobra.Command, name string, r sim.Report) error {
	if err := a.show(r, r.Print); err != nil {
		return err
	}
	if dir := str(cmd, "out"); dir != "" {
		if err := saveReport(dir, name, r); err != nil {
			return wrong("--out: %w", err)
		}
	}
	switch {
	case !r.OK():
		return exitError{api.ExitFailure}
	case r.Stopped():
		return exitError{api.ExitUnavailable}
	}
	return nil
}

func saveReport(dir, name string, r sim.Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	var text strings.Builder
	r.Print(&text)
	return os.WriteFile(filepath.Join(dir, name+".txt"), []byte(text.String()), 0o644)
}

// checkCommit warns where a seed was found with another program.
func (a *app) checkCommit(cmd *cobra.Command) {
	want, have := str(cmd, "commit"), a.version().Commit
	if want != "" && have != "" && !strings.HasPrefix(have, want) {
		a.remark("This program is of commit %s, the seed was found with %s: the run may differ.", have, escape(want))
	}
}

// simProgress tells how far a simulation is, in one line that is written over.
func (a *app) simProgress() func(sim.Progress) {
	if a.quiet || a.json || !a.errTTY {
		return nil
	}
	return func(p sim.Progress) { _, _ = io.WriteString(a.err, "\r\x1b[K"+simWords(p)) } // a line of progress
}

// simWords tells the progress of a simulation in a line: virtual time, nodes,
// real time, speed, memory, and how long still.
func simWords(p sim.Progress) string {
	parts := []string{p.Phase}
	if p.At > 0 {
		parts[0] += ": " + p.At.Round(time.Second).String()
		if p.End > 0 {
			parts[0] += " of " + p.End.Round(time.Second).String()
		}
		parts = append(parts, plural(int64(p.Nodes), "node"), "after "+seconds(p.Real.Seconds()),
			count(int64(p.EventsPerS))+" events/s", size(int64(p.Memory)))
	}
	if p.Left > 0 {
		parts = append(parts, seconds(p.Left.Seconds())+" left")
	}
	return strings.Join(parts, ", ")
}

func (a *app) endProgress() {
	if !a.quiet && !a.json && a.errTTY {
		_, _ = io.WriteString(a.err, "\r\x1b[K") // a line of progress
	}
}
