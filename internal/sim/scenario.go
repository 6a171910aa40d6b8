package sim

import (
	"context"
	"fmt"
	"io"
	"time"
)

func (r *DHTResult) OK() bool        { return r.Passed }
func (r *DHTResult) Stopped() bool   { return r.Partial }
func (r *SwarmResult) OK() bool      { return r.Passed }
func (r *SwarmResult) Stopped() bool { return r.Partial }

var (
	_ Report = (*DHTResult)(nil)
	_ Report = (*SwarmResult)(nil)
)

// Options change a scenario's run.
type Options struct {
	Seeds  int  // run seeds seed … seed+Seeds−1; 0 or 1: the one
	Quick  bool // a smaller run, for tests
	Encode bool // every message crosses the codec

	NodeHours float64   // dht scenarios: both phases together; 0: the default
	Bugs      []string  // planted bugs, by name
	Log       io.Writer // every trace event, operation and fault, a line each

	only *Subset // of a Case
	file string
}

// Scenario is a named run that a seed replays.
type Scenario struct {
	Name  string
	About string
	Run   func(ctx context.Context, seed uint64, o Options, progress func(Progress)) (Report, error)
	Whole bool // its run has no parts that could be left out: it does not shrink
}

// Scenarios lists all scenarios.
func Scenarios() []Scenario {
	return []Scenario{
		overlayScenario("overlay", "1,000 nodes, 5 % loss, sessions of 30 minutes, 2 virtual hours", func(*OverlayConfig) {}),
		overlayScenario("overlay-quiet", "1,000 nodes, no loss, no churn: hops and control messages at rest", func(c *OverlayConfig) {
			c.Churn, c.Loss, c.Preset = "none", 0, "wan"
		}),
		overlayScenario("overlay-leave", "sessions of 30 minutes, every departure says goodbye", func(c *OverlayConfig) {
			c.Nodes, c.Leave, c.Duration = 300, 1, time.Hour
		}),
		overlayScenario("overlay-split", "300 nodes, 2 % loss, the ring falls into halves for 10 minutes", func(c *OverlayConfig) {
			c.Nodes, c.Loss, c.Churn, c.Split, c.Duration = 300, 0.02, "none", 10*time.Minute, 40*time.Minute
		}),
		overlayScenario("overlay-kill", "300 nodes, three in ten crash at once", func(c *OverlayConfig) {
			c.Nodes, c.Churn, c.Kill, c.Duration = 300, "none", 0.3, 30*time.Minute
		}),
		overlayScenario("overlay-freeze", "300 nodes that freeze for up to 40 s, twice an hour each, clocks adrift", func(c *OverlayConfig) {
			c.Nodes, c.Churn, c.Freeze, c.Drift, c.Duration = 300, "poisson:60m", 2, true, time.Hour
		}),
		dhtScenario("dht-swarm", "20–60 nodes, 30 node-hours, a random subset of all faults; then heal", nil),
		dhtScenario("dht-calm", "no faults: what everything costs", []string{"none"}),
		dhtScenario("dht-churn", "crashes, joins, leaves, lost disks", []string{"loss", "crash", "crashstep", "join", "leave", "kill", "amnesia"}),
		dhtScenario("dht-partition", "partitions of both kinds, freezes, clocks", []string{"loss", "partition", "oneway", "freeze", "skew", "jump", "drift"}),
		dhtScenario("dht-disk", "slow, torn, failing, full and rotting disks", []string{"diskslow", "fsync", "torn", "full", "bitrot", "crash"}),
		measuringScenario("dht-fill", "64 unequal disks filled to one and a half times their room: how full they get", RunFill),
		measuringScenario("dht-repair", "40 nodes, 36 h of absences and dead disks, twice: bytes of lazy and of eager repair", RunRepair),
		measuringScenario("dht-wan", "100 nodes on a sphere: what a block takes after Locate", RunWAN),
	}
}

// ScenarioByName finds one.
func ScenarioByName(name string) (Scenario, error) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, nil
		}
	}
	return Scenario{}, fmt.Errorf("unknown scenario %q", name)
}

// origin is where a configuration comes from, for the line that replays it.
type origin struct {
	name  string // of the scenario
	quick bool
	file  string // of a Case
}

// replay is the command that runs the scenario again with a seed.
func (o origin) replay(seed uint64) string {
	if o.file != "" {
		return "atoll sim --only " + o.file + commitFlag()
	}
	line := fmt.Sprintf("atoll sim --scenario %s --seed %d", o.name, seed)
	if o.quick {
		line += " --quick"
	}
	return line + commitFlag()
}

// commitFlag names the commit of the running program, if known: a seed gives
// the same history with the same code.
func commitFlag() string {
	if c := buildCommit(); c != "" {
		return " --commit " + c[:min(12, len(c))]
	}
	return ""
}

func overlayScenario(name, about string, change func(*OverlayConfig)) Scenario {
	return Scenario{Name: name, About: about, Run: func(ctx context.Context, seed uint64, o Options, progress func(Progress)) (Report, error) {
		c := DefaultOverlay()
		change(&c)
		c.Seed, c.Encode, c.Bugs, c.Log, c.Only = seed, o.Encode, o.Bugs, o.Log, o.only
		if o.Quick {
			c.Nodes, c.Duration = min(c.Nodes, 100), min(c.Duration, 20*time.Minute)
			c.Split = min(c.Split, 5*time.Minute)
		}
		c.origin = origin{name, o.Quick, o.file}
		if o.Seeds > 1 {
			return nilIfErr(RunOverlaySeeds(ctx, c, o.Seeds, progress))
		}
		return nilIfErr(RunOverlay(ctx, c, progress))
	}}
}

func dhtScenario(name, about string, faults []string) Scenario {
	return Scenario{Name: name, About: about, Run: func(ctx context.Context, seed uint64, o Options, progress func(Progress)) (Report, error) {
		c := DefaultDHT()
		c.Seed, c.Faults, c.Encode, c.Bugs, c.Log, c.Only = seed, faults, o.Encode, o.Bugs, o.Log, o.only
		if o.NodeHours > 0 {
			c.NodeHours = o.NodeHours
		}
		c.origin = origin{name, o.Quick, o.file}
		if o.Quick {
			c.Nodes, c.NodeHours = 20, 10
		}
		if o.Seeds > 1 {
			return nilIfErr(RunSwarm(ctx, c, seed, o.Seeds, progress))
		}
		return nilIfErr(RunDHT(ctx, c, progress))
	}}
}

// nilIfErr keeps a nil pointer from becoming a Report that is not nil.
func nilIfErr[R Report](r R, err error) (Report, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}
