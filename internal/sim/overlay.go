package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/trace"
)

// OverlayConfig describes a run of the overlay alone: nodes, what hurts them,
// and lookups between them.
type OverlayConfig struct {
	Seed     uint64        `json:"seed"`
	Nodes    int           `json:"nodes"`
	Topology Topology      `json:"topology"`
	Churn    string        `json:"churn"` // "none" or "poisson:30m"
	Loss     float64       `json:"loss"`  // share of messages lost, each on its own
	Lookups  float64       `json:"lookups_per_node_s"`
	Owned    float64       `json:"owned_share"` // share of lookups in the owned class
	Duration time.Duration `json:"duration"`    // virtual time under churn and loss
	Deadline time.Duration `json:"deadline"`    // of a lookup
	Leave    float64       `json:"leave_share"` // share of departures that say goodbye
	Preset   string        `json:"preset"`      // of pastry: sim, lan, wan, local
	Leaves   int           `json:"leaves"`      // h, leaves a side; 0: the preset's
	LeafOnly bool          `json:"leaf_only"`   // leaf sets only, as in Figure 10.6
	Encode   bool          `json:"encode"`      // every message crosses the codec
	Build    string        `json:"build"`       // "join": nodes join one another; "oracle": they are given their tables
	Spikes   float64       `json:"spikes"`      // share of messages held for 0.5–3 s

	// Single faults, in the middle of the run.
	Split  time.Duration `json:"split"`       // the ring falls into halves for so long
	Kill   float64       `json:"kill"`        // share of the nodes that crash at once
	Flash  float64       `json:"flash"`       // share of new nodes that join at once
	Freeze float64       `json:"freeze_rate"` // freezes per node and hour, 1–40 s each
	Drift  bool          `json:"drift"`       // clocks drift by up to 1 %

	Bugs []string `json:"bugs,omitempty"` // planted bugs, by name

	Only *Subset `json:"only,omitempty"`

	Log io.Writer `json:"-"` // every trace event and end of a node, a line each

	origin origin // of a scenario; zero where flags made the run
	beside bool   // other runs go on in this process: what this one costs cannot be told
}

// DefaultOverlay is the run that the first release is judged by, at one seed:
// 1,000 nodes, 5 % loss, sessions of 30 minutes, 0.01 lookups a second and
// node, 2 virtual hours.
func DefaultOverlay() OverlayConfig {
	return OverlayConfig{
		Seed: 1, Nodes: 1000, Topology: Sphere, Churn: "poisson:30m", Loss: 0.05,
		Lookups: 0.01, Owned: 0.5, Duration: 2 * time.Hour, Deadline: 60 * time.Second, Preset: "sim",
	}
}

// Validate returns the first fault of c.
func (c *OverlayConfig) Validate() error {
	if _, err := ParseTopology(string(c.Topology)); err != nil {
		return err
	}
	if _, err := ParseChurn(c.Churn); err != nil {
		return err
	}
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case c.Nodes < 1 || c.Nodes > 1_000_000:
		return fmt.Errorf("%d nodes: 1 to 1,000,000", c.Nodes)
	case !share(c.Loss) || c.Loss > 0.5:
		return fmt.Errorf("loss %v: a share of 0 to 0.5", c.Loss)
	case !share(c.Owned) || !share(c.Leave) || !share(c.Kill):
		return errors.New("owned, leave and kill are shares of 0 to 1")
	case c.Build != "" && c.Build != "join" && c.Build != "oracle":
		return fmt.Errorf("build %q: join or oracle", c.Build)
	case !share(c.Spikes) || c.Flash < 0 || c.Flash > 10 || c.Freeze < 0 || c.Freeze > 1000 || c.Split < 0:
		return errors.New("spikes is a share of 0 to 1, flash one of 0 to 10, freezes 0 to 1,000 an hour, split not negative")
	case c.Lookups < 0 || c.Lookups > 100:
		return fmt.Errorf("%v lookups a second and node: 0 to 100", c.Lookups)
	case c.Duration <= 0 || c.Duration > 10_000*time.Hour:
		return fmt.Errorf("duration %v", c.Duration)
	case c.Deadline < time.Second || c.Deadline > time.Hour:
		return fmt.Errorf("deadline %v: 1s to 1h", c.Deadline)
	}
	return nil
}

// RunOverlay runs cfg. When ctx ends early the result is partial and marked so.
func RunOverlay(ctx context.Context, cfg OverlayConfig, progress func(Progress)) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	maker, err := newNodeMaker(&cfg)
	if err != nil {
		return nil, err
	}
	return newOverlayRun(cfg, maker).run(ctx, progress), nil
}

func (r *overlayRun) run(ctx context.Context, progress func(Progress)) *Result {
	r.ctx, r.teller = ctx, newTeller(progress)
	began := time.Now()
	if r.build() {
		r.quiet(machine.Minute)
		r.measure()
		r.heal()
	}
	return r.result(time.Since(began))
}

// overlayRun is a run under way.
type overlayRun struct {
	cfg     OverlayConfig
	churn   Churn
	maker   *nodeMaker
	ctx     context.Context
	teller  teller
	partial bool

	e      *Engine
	ring   ring   // ready nodes
	peers  []peer // by Ref
	live   int    // running nodes
	parts  parts
	away   int  // nodes left out
	drifts bool // clocks do

	phase     string
	measuring bool
	churning  bool
	end       machine.Time
	from, to  machine.Time // the measured span
	span      machine.Duration

	nodeTime machine.Duration // Σ over running nodes while measuring
	countAt  machine.Time
	sentAt   [256]uint64 // Sent when measuring began
	bytesAt  [256]uint64
	eventsAt uint64

	lookups map[uint64]*lookup
	nextID  uint64

	check checks
	stat  overlayStats
	rnd   runRand
}

// peer is the oracle's knowledge of one node.
type peer struct {
	node      overlayNode
	inc       int
	started   machine.Time
	ready     bool
	unsettled machine.Time // after a freeze: others may rightly think it dead until then
	epoch     uint32
	absent    bool // left out of the run: its number is all there is
}

// newOverlayRun prepares a run of a valid cfg.
func newOverlayRun(cfg OverlayConfig, maker *nodeMaker) *overlayRun {
	churn, _ := ParseChurn(cfg.Churn)
	r := &overlayRun{
		cfg: cfg, churn: churn, maker: maker, ctx: context.Background(),
		peers: make([]peer, 1), lookups: make(map[uint64]*lookup), parts: newParts(cfg.Only),
	}
	ec := Config{Seed: cfg.Seed, Topology: cfg.Topology, Wall: 1_700_000_000_000, AfterStep: r.afterStep, OnCrash: r.ended}
	if cfg.Encode {
		ec.Decode = maker.decode
	}
	if cfg.Log != nil {
		ec.OnTrace = func(n Ref, ev trace.Event) { logTrace(cfg.Log, r.e, n, ev) }
		ec.OnMessage = func(from, to Ref, m machine.Message) { logMessage(cfg.Log, r.e, from, to, m) }
	}
	r.e = New(ec)
	r.rnd = newRunRand(r.e)
	r.drifts = cfg.Drift && r.parts.lasting("drift")
	r.stat.init()
	r.check.run = r
	return r
}

// adoptAll makes all nodes at once, each with the leaf set and routing table
// that the oracle fills for it.
func (r *overlayRun) adoptAll() {
	var all ring
	for range r.cfg.Nodes {
		if n := r.newNode(); !r.peers[n].absent {
			all.add(r.e.Handle(n).GUID, n)
		}
	}
	h := r.maker.leaf
	for n := Ref(1); int(n) < len(r.peers); n++ {
		if r.peers[n].absent {
			continue
		}
		others := adoptees(r.e, &all, n, h, r.cfg.LeafOnly, r.rnd.seeds)
		r.run1(n, r.e.Handle(n), func(node overlayNode, now machine.Time, out []machine.Effect) []machine.Effect {
			return node.Adopt(now, others, all.len() <= 2*h+1, rttOracle(r.e, n), out)
		})
	}
}

// addNode makes a node of random GUID and starts it, if it takes part.
func (r *overlayRun) addNode() Ref {
	n := r.newNode()
	r.start(n, r.e.Handle(n), nil)
	return n
}

// newNode makes room for a node of random GUID, and no more where it is left out.
func (r *overlayRun) newNode() Ref {
	var g id.GUID
	for i := range 4 {
		binary.BigEndian.PutUint64(g[8*i:], r.rnd.guid.Uint64())
	}
	h := r.maker.handle(g, 1)
	n := r.e.NewNode(h)
	r.peers = append(r.peers, peer{})
	if r.cfg.Drift {
		if ppm, ms := r.rnd.fault.Int64N(20_001)-10_000, r.rnd.fault.Int64N(7_200_001)-3_600_000; r.drifts {
			r.e.Faults.Add(FaultDrift)
			r.e.SetClock(n, ppm, ms)
		}
	}
	if !r.parts.node(int(n)) {
		r.peers[n].absent = true
		r.away++
	}
	return n
}

// start runs node n with up to three ready nodes as seeds.
func (r *overlayRun) start(n Ref, h *id.Handle, saved []byte) {
	var seeds []*id.Handle
	for range min(3, r.ring.len()) {
		if s := r.ring.at[r.rnd.seeds.IntN(r.ring.len())].n; s != n {
			seeds = append(seeds, r.e.Handle(s))
		}
	}
	if r.peers[n].absent {
		return
	}
	creator := n == 1 && r.peers[n].inc == 0
	r.run1(n, h, func(node overlayNode, now machine.Time, out []machine.Effect) []machine.Effect {
		return node.Start(now, seeds, saved, creator, out)
	})
}

// run1 makes the machine of n and lets begin start it.
func (r *overlayRun) run1(n Ref, h *id.Handle, begin func(overlayNode, machine.Time, []machine.Effect) []machine.Effect) {
	node := r.maker.make(h, &probe{run: r, n: n})
	r.tally()
	r.live++
	p := &r.peers[n]
	p.node, p.started, p.ready, p.epoch = node, r.e.Now(), false, h.Epoch
	p.inc++
	r.e.Start(n, h, node, func(now machine.Time, out []machine.Effect) []machine.Effect { return begin(node, now, out) })
	r.afterStep(n)
}

// crash ends n without a word.
func (r *overlayRun) crash(n Ref) {
	if r.e.Alive(n) {
		r.e.Faults.Add(FaultCrash)
		r.e.Crash(n)
		r.ended(n, "crash")
	}
}

// ended keeps the books when a node has stopped.
func (r *overlayRun) ended(n Ref, why string) {
	r.tally()
	r.live--
	p := &r.peers[n]
	p.node, p.ready = nil, false
	r.ring.remove(r.e.Handle(n).GUID)
	if why != "crash" && why != "left" {
		r.stat.halts[why]++
	}
}

// afterStep follows the state of n after everything it does.
func (r *overlayRun) afterStep(n Ref) {
	p := &r.peers[n]
	if p.node == nil || p.node.Ready() == p.ready {
		return
	}
	p.ready = !p.ready
	g := r.e.Handle(n).GUID
	if p.ready {
		r.ring.add(g, n)
		if r.measuring {
			r.stat.joins = append(r.stat.joins, float64(r.e.Now().Sub(p.started))/1e6)
		}
		return
	}
	r.ring.remove(g)
}

// tally brings the node-hours up to date before the number of nodes changes.
func (r *overlayRun) tally() {
	if r.measuring {
		r.nodeTime += machine.Duration(r.live) * r.e.Now().Sub(r.countAt)
		r.stat.readySum += int64(r.ring.len()) * int64(r.e.Now().Sub(r.countAt))
	}
	r.countAt = r.e.Now()
}

// stopped reports whether the caller has had enough, and tells progress.
func (r *overlayRun) stopped() bool {
	if r.ctx.Err() != nil {
		r.partial = true
	}
	r.teller.tell(r.e, r.phase, r.ring.len(), r.end)
	return r.partial
}

// runUntil advances to t, or until stopped.
func (r *overlayRun) runUntil(t machine.Time) {
	for i := 0; r.e.Next(t); i++ {
		if r.parts.found || i%4096 == 4095 && r.stopped() {
			return
		}
	}
	if !r.over() {
		r.e.Run(t)
	}
}

// over reports whether the run ends before its time.
func (r *overlayRun) over() bool { return r.partial || r.parts.found }

// build lets the nodes join one another: the first is the pool's creator, then
// as many at a time as an eighth of those ready. False: not all became ready.
func (r *overlayRun) build() bool {
	r.phase = "build"
	if r.cfg.Build == "oracle" {
		r.adoptAll()
		return true
	}
	limit := machine.Time(20 * machine.Minute)
	for r.e.Now() < limit && !r.stopped() {
		for range min(r.cfg.Nodes-r.away-r.live, max(1, r.ring.len()/8-(r.live-r.ring.len()))) {
			r.addNode()
		}
		if r.ring.len() == r.cfg.Nodes-r.away {
			return true
		}
		r.runUntil(r.e.Now().Add(100 * machine.Millisecond))
	}
	if !r.over() {
		r.check.fail("build", fmt.Sprintf("only %d of %d nodes ready after %v", r.ring.len(), r.cfg.Nodes,
			time.Duration(r.e.Now())*time.Microsecond))
	}
	return false
}

// quiet lets d pass.
func (r *overlayRun) quiet(d machine.Duration) {
	r.phase = "settle"
	r.end = r.e.Now().Add(d)
	r.runUntil(r.end)
}

// measure is the run proper: churn, loss, lookups.
func (r *overlayRun) measure() {
	if r.over() {
		return
	}
	span := machine.Duration(r.cfg.Duration.Microseconds())
	r.span = r.parts.until(span)
	r.phase, r.from, r.end = "run", r.e.Now(), r.e.Now().Add(r.span)
	r.countAt = r.e.Now()
	r.measuring = true
	r.sentAt, r.bytesAt, r.eventsAt = r.e.Sent, r.e.Bytes, r.e.Events
	r.startLinkFaults()
	var cost *costMeter
	if !r.cfg.beside {
		cost = startCost()
	}
	r.startChurn()
	r.startFaults(span)
	r.scheduleLookup()
	r.check.watchLeases()
	r.runUntil(r.end)
	r.tally()
	r.to = r.e.Now()
	for k := range r.e.Sent {
		r.stat.sent[k] = r.e.Sent[k] - r.sentAt[k]
		r.stat.bytes[k] = r.e.Bytes[k] - r.bytesAt[k]
	}
	r.stat.events = r.e.Events - r.eventsAt
	if cost != nil {
		c := cost.stop(r.stat.events, r.live)
		r.stat.cost = &c
	}
	r.measuring, r.churning = false, false
}

// heal ends all faults and requires of the nodes what they owe: every one
// ready, leaf sets equal to the oracle's, within a minute.
func (r *overlayRun) heal() {
	if r.over() {
		return
	}
	r.phase = "heal"
	r.e.SetLinkFaults(LinkFaults{})
	r.e.Heal()
	healed := r.e.Now()
	for i := range r.peers {
		if p := &r.peers[i]; p.node != nil {
			healed = max(healed, p.unsettled.Add(-grace)) // who is frozen has yet to wake
		}
	}
	r.runUntil(healed)
	r.end = healed.Add(10 * machine.Minute)
	for r.e.Now() < r.end && !r.over() {
		if r.check.converged() == "" {
			break
		}
		r.runUntil(r.e.Now().Add(machine.Second))
	}
	r.stat.converge = r.e.Now().Sub(healed)
	r.stat.convergeWhy = r.check.converged()
	if r.stat.converge > machine.Minute && !r.over() {
		why := r.stat.convergeWhy
		if why == "" {
			why = "it came later"
		}
		r.check.fail("convergence", fmt.Sprintf("leaf sets not the oracle's 60 s after the last fault (%v): %s",
			time.Duration(r.stat.converge)*time.Microsecond, why))
	}
	// Lookups under way end by their deadlines.
	r.runUntil(r.e.Now().Add(machine.Duration(r.cfg.Deadline.Microseconds()) + 2*machine.Second))
}
