package sim

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/trace"
)

type idGUID = id.GUID

// DHTConfig describes a run of the whole stack: a pool, clients and faults.
type DHTConfig struct {
	Seed      uint64   `json:"seed"`
	Nodes     int      `json:"nodes"`  // 0: 20 to 60, by seed
	K         int      `json:"k"`      // copies
	NodeHours float64  `json:"hours"`  // node-hours, both phases together
	OpsPerS   float64  `json:"ops_s"`  // operations a second, over all clients
	Faults    []string `json:"faults"` // nil: a random subset by seed; "none", "all", or names
	Bugs      []string `json:"bugs,omitempty"`
	Intensity int      `json:"intensity"` // faults come so many times as often; 0 counts as 1
	Signed    int      `json:"signed"`    // percent of operations on signed blocks; 0: 22
	Registers int      `json:"registers"` // signed blocks; 0: 12
	Keep      bool     `json:"keep"`      // nothing is removed
	Young     bool     `json:"young"`     // a pool founded just now: it has no elders
	Encode    bool     `json:"encode"`    // every message crosses the codec
	Only      *Subset  `json:"only,omitempty"`

	Log io.Writer `json:"-"` // every trace event, a line each

	origin origin
}

// DefaultDHT is one swarm seed: 20 to 60 nodes, 30 node-hours, k = 3.
func DefaultDHT() DHTConfig {
	return DHTConfig{Seed: 1, K: 3, NodeHours: 30, OpsPerS: 1.5, origin: origin{name: "dht-swarm"}}
}

// Validate returns the first fault of c.
func (c *DHTConfig) Validate() error {
	switch {
	case c.Nodes < 0 || c.Nodes > 1000:
		return fmt.Errorf("%d nodes: 0 to 1,000", c.Nodes)
	case c.K < 1 || c.K > 8:
		return fmt.Errorf("k of %d: 1 to 8", c.K)
	case c.NodeHours <= 0 || c.NodeHours > 1e6:
		return fmt.Errorf("%v node-hours", c.NodeHours)
	case c.Registers < 0 || c.Registers > 200:
		return fmt.Errorf("%d signed blocks: 0 to 200", c.Registers)
	case c.Intensity < 0 || c.Intensity > 100 || c.Signed < 0 || c.Signed > 100:
		return fmt.Errorf("intensity %d: 0 to 100; signed %d: a percentage", c.Intensity, c.Signed)
	case c.OpsPerS < 0 || c.OpsPerS > 1000:
		return fmt.Errorf("%v operations a second: 0 to 1,000", c.OpsPerS)
	}
	return nil
}

type nodeState uint8

const (
	running nodeState = iota + 1
	crashed           // comes back
	dead              // does not
	departed
)

// dhtPeer is what the run knows of one node.
type dhtPeer struct {
	node    *poolNode
	state   nodeState
	inc     int
	epoch   uint32
	thawed  machine.Time
	ready   bool // was ready once
	leaving bool
	absent  bool // left out of the run: its number is all there is
}

// dhtRun is a run under way.
type dhtRun struct {
	cfg     DHTConfig
	ctx     context.Context
	teller  teller
	partial bool

	e      *Engine
	faults faultSet
	parts  parts
	lasts  faultSet // of the faults that last, those that take place
	disks  DiskFaults
	cut    bool
	phase  string           // build, faults, heal, verify
	began  machine.Time     // of the faults
	span   machine.Duration // they last
	peers  []dhtPeer
	pool   *simPool

	ops    map[uint64]*dhtOp
	nextOp uint64
	mute   bool // the operation that is drawn is left out
	set    *setChecker
	reg    *regChecker
	stat   dhtStats
	rnd    struct{ fault, op, data *rand.Rand }
	drawn  *stream // of rnd.fault

	failures []string
	perKind  map[string]int
	end      machine.Time
	converge machine.Duration
}

// RunDHT runs cfg. When ctx ends early the result is partial and marked so.
func RunDHT(ctx context.Context, cfg DHTConfig, progress func(Progress)) (*DHTResult, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r, err := newDHTRun(cfg)
	if err != nil {
		return nil, err
	}
	r.ctx, r.teller = ctx, newTeller(progress)
	began := time.Now()
	r.build()
	total := machine.Duration(r.cfg.NodeHours * float64(machine.Hour) / float64(r.cfg.Nodes))
	r.faulty(r.parts.until(total - min(total/4, 5*machine.Minute))) // healing takes about that long
	// One seed in ten never heals: safety alone is judged.
	if cfg.Seed%10 != 9 {
		r.heal()
		r.verify()
	}
	if !r.over() {
		r.set.lost()
		r.lostSigned()
	}
	return r.result(time.Since(began)), nil
}

func newDHTRun(cfg DHTConfig) (*dhtRun, error) {
	r := &dhtRun{
		cfg: cfg, ctx: context.Background(), phase: "build", peers: make([]dhtPeer, 1),
		ops: make(map[uint64]*dhtOp), perKind: make(map[string]int), parts: newParts(cfg.Only), lasts: make(faultSet),
	}
	ec := Config{
		Seed: cfg.Seed, Topology: LAN, Wall: 1_700_000_000_000,
		OnReply: r.replied, OnCrash: r.crashed, AfterStep: r.afterStep,
		OnSave: func(n Ref, body any) { r.pool.keep(n, body) },
	}
	if cfg.Encode {
		ec.Decode = stack.Decode
	}
	ec.OnTrace = r.evicted
	if cfg.Log != nil {
		ec.OnTrace = func(n Ref, ev trace.Event) {
			logTrace(cfg.Log, r.e, n, ev)
			r.evicted(n, ev)
		}
		ec.OnMessage = func(from, to Ref, m machine.Message) { logMessage(cfg.Log, r.e, from, to, m) }
	}
	swarm := machine.NewRand(cfg.Seed, id.GUID{}, "sim/swarm")
	var err error
	if r.faults, err = newFaultSet(cfg.Faults, swarm); err != nil {
		return nil, err
	}
	for _, f := range lastingFaults {
		r.lasts[f] = r.faults[f] && r.parts.lasting(f)
	}
	if r.cfg.Nodes == 0 {
		r.cfg.Nodes = 20 + swarm.IntN(41)
	}
	if swarm.IntN(2) == 0 {
		ec.Topology = Sphere
	}
	r.e = New(ec)
	r.drawn = newStream(func() *rand.Rand { return r.e.Rand("fault") })
	r.rnd.fault, r.rnd.op, r.rnd.data = rand.New(r.drawn), r.e.Rand("op"), r.e.Rand("data")
	r.set = newSetChecker(cfg.K, r.fail)
	r.reg = &regChecker{fail: r.fail, note: r.remark}
	r.stat.init()
	if r.pool, err = newSimPool(r); err != nil {
		return nil, err
	}
	return r, nil
}

// fail records a broken promise: the first five of a kind in words.
func (r *dhtRun) fail(kind, what string) {
	r.perKind[kind]++
	r.parts.finding(kind, r.phase == "faults", r.e.Now().Sub(r.began))
	r.log("FAILED %s: %s", kind, what)
	if r.perKind[kind] <= 5 {
		r.failures = append(r.failures, fmt.Sprintf("%s at %s: %s", kind, fmtTime(r.e.Now()), what))
	}
}

// log writes a line of the run's own.
func (r *dhtRun) log(format string, a ...any) {
	if r.cfg.Log != nil {
		fmt.Fprintf(r.cfg.Log, "%s sim: %s\n", logTime(r.e.Now()), fmt.Sprintf(format, a...))
	}
}

func (r *dhtRun) remark(what string) {
	if len(r.stat.remarks) < 20 {
		r.stat.remarks = append(r.stat.remarks, fmt.Sprintf("%s: %s", fmtTime(r.e.Now()), what))
	}
}

func (r *dhtRun) stopped() bool {
	if r.ctx.Err() != nil {
		r.partial = true
	}
	r.teller.tell(r.e, r.phase, r.count(running), r.end)
	return r.partial
}

func (r *dhtRun) runUntil(t machine.Time) {
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
func (r *dhtRun) over() bool { return r.partial || r.parts.found }

func (r *dhtRun) count(s nodeState) (c int) {
	for n := 1; n < len(r.peers); n++ {
		if r.peers[n].state == s {
			c++
		}
	}
	return c
}

// countAbsent is how many nodes are left out.
func (r *dhtRun) countAbsent() (c int) {
	for n := 1; n < len(r.peers); n++ {
		if r.peers[n].absent {
			c++
		}
	}
	return c
}

// pickRunning draws a running node to hurt, World if there is none, or if the
// one drawn is left out of the run.
func (r *dhtRun) pickRunning() Ref {
	if c := r.count(running) + r.countAbsent(); c > 0 {
		i := r.rnd.fault.IntN(c)
		for n := 1; n < len(r.peers); n++ {
			if p := &r.peers[n]; p.state == running || p.absent {
				if i == 0 {
					if p.absent {
						return World
					}
					return Ref(n)
				}
				i--
			}
		}
	}
	return World
}

// pickReady draws a running, ready node that is not frozen; the next one if the
// one drawn is left out of the run.
func (r *dhtRun) pickReady(rnd *rand.Rand) Ref {
	var ns []Ref
	none := true
	for n := 1; n < len(r.peers); n++ {
		p := &r.peers[n]
		if p.absent || p.state == running && !r.e.Frozen(Ref(n)) && p.node.Ring().Ready() {
			ns = append(ns, Ref(n))
			none = none && p.absent
		}
	}
	if none {
		return World
	}
	i := rnd.IntN(len(ns))
	for r.peers[ns[i]].absent {
		i = (i + 1) % len(ns)
	}
	return ns[i]
}

// addNode starts a new node, or makes room for it where it is left out.
func (r *dhtRun) addNode() Ref {
	n, h := r.newNode()
	if !r.parts.node(int(n)) {
		r.peers[n].absent = true
		for range 4 { // as in start: who lets it in, and its seeds
			r.pickReady(r.rnd.fault)
		}
		return n
	}
	r.setDisk(n)
	r.start(n, h, nil)
	return n
}

// newNode makes room for a node.
func (r *dhtRun) newNode() (Ref, *id.Handle) {
	h, err := r.pool.member(uint64(len(r.peers)))
	if err != nil {
		panic("sim: " + err.Error())
	}
	n := r.e.NewNode(h)
	r.peers = append(r.peers, dhtPeer{})
	if r.faults["drift"] {
		if ppm := r.rnd.fault.Int64N(20_001) - 10_000; r.lasts["drift"] {
			r.e.Faults.Add(FaultDrift)
			r.e.SetClock(n, ppm, 0)
		}
	}
	if r.faults["skew"] {
		if ms := r.rnd.fault.Int64N(240_001) - 120_000; r.lasts["skew"] { // under the 5 minutes that are refused
			r.e.Faults.Add(FaultSkew)
			r.e.nodes[n].skew = ms
		}
	}
	return n, h
}

// start runs the stack on n with what its disk holds.
func (r *dhtRun) start(n Ref, h *id.Handle, saved []byte) {
	p := &r.peers[n]
	r.reg.forget(n, r.e.diskOf(n))
	p.inc++
	p.epoch, p.state = h.Epoch, dead
	node, err := r.pool.make(n, h)
	if err != nil {
		r.fail("start", err.Error())
		return
	}
	p.node, p.state = node, running
	seeds := r.pool.seeds(n)
	creator := n == 1 && p.inc == 1
	r.e.Start(n, h, node, func(now machine.Time, out []machine.Effect) []machine.Effect {
		return node.Start(now, r.e.wall(n), seeds, saved, creator, out)
	})
	r.afterStep(n)
}

// crashed is called when a node has ended, by our hand or the engine's; it
// comes back in 1–90 s.
func (r *dhtRun) crashed(n Ref, why string) {
	p := &r.peers[n]
	p.node, p.state, p.leaving = nil, crashed, false
	r.log("%s ended: %s", r.name(n), why)
	r.stat.ends[why]++
	inc := p.inc
	r.e.After(machine.Second+machine.Duration(r.rnd.fault.Int64N(int64(89*machine.Second))), func() {
		if p := &r.peers[n]; p.state == crashed && p.inc == inc {
			r.restart(n)
		}
	})
}

// restart starts a crashed node again, with a higher epoch and what it saved
// of its routing state, unless that is lost, old or torn.
func (r *dhtRun) restart(n Ref) {
	h := *r.e.Handle(n)
	h.Epoch++
	nd := &r.e.nodes[n]
	saved := nd.saved
	if r.faults["table"] && r.phase == "faults" {
		switch what := r.rnd.fault.IntN(4); {
		case !r.lasts["table"]:
		case what == 0:
			r.e.Faults.Add(FaultTableLost)
			saved = nil
		case what == 1:
			r.e.Faults.Add(FaultTableStale)
			saved = nd.older
		case what == 2:
			r.e.Faults.Add(FaultTableTorn)
			saved = saved[:len(saved)/2]
		}
	}
	if nd.disk != nil {
		nd.disk.failed = false
	}
	r.setDisk(n)
	r.e.Faults.Add(FaultRestart)
	r.log("%s restarts", r.name(n))
	r.start(n, &h, saved)
}

func (r *dhtRun) afterStep(n Ref) {
	p := &r.peers[n]
	if p.node == nil || p.ready || !p.node.Ring().Ready() {
		return
	}
	p.ready = true
}

// build lets the pool grow one by one.
func (r *dhtRun) build() {
	r.phase = "build"
	for range r.cfg.Nodes {
		n := r.addNode()
		if r.peers[n].absent {
			continue
		}
		limit := r.e.Now().Add(5 * machine.Minute)
		for !r.peers[n].ready && r.e.Now() < limit && !r.over() {
			r.runUntil(r.e.Now().Add(100 * machine.Millisecond))
		}
		if !r.peers[n].ready && !r.over() {
			r.fail("build", fmt.Sprintf("node %d not ready after 5 minutes without faults", n))
			return
		}
	}
	r.runUntil(r.e.Now().Add(30 * machine.Second))
}

// faulty is phase one: anything may happen, safety must hold.
func (r *dhtRun) faulty(d machine.Duration) {
	if r.over() {
		return
	}
	r.phase, r.began, r.span = "faults", r.e.Now(), d
	r.end = r.began.Add(d)
	r.startFaults()
	r.startOps()
	r.runUntil(r.end)
}

// heal ends the faults, brings back who can come back, and waits until the
// pool has what it owes: k copies of everything, within 12 minutes.
func (r *dhtRun) heal() {
	if r.over() {
		return
	}
	r.phase = "heal"
	r.e.SetLinkFaults(LinkFaults{})
	r.e.Heal()
	r.disks = DiskFaults{}
	for n := 1; n < len(r.peers); n++ {
		r.setDisk(Ref(n))
		d := r.e.diskOf(Ref(n))
		d.limit, d.slow = 0, 0
		r.e.SetSlow(Ref(n), 1)
		r.e.nodes[n].dying = crashNever
		if r.peers[n].state == dead {
			r.revoke(Ref(n))
		}
	}
	healed := r.e.Now()
	r.end = healed.Add(15 * machine.Minute)
	why := "not looked at"
	for r.e.Now() < r.end && !r.over() {
		if why = r.owes(); why == "" {
			break
		}
		r.runUntil(r.e.Now().Add(5 * machine.Second))
	}
	r.converge = r.e.Now().Sub(healed)
	// A removal may leave a copy until heal and one round of anti-entropy.
	r.runUntil(max(r.e.Now(), healed.Add(3*machine.Minute)))
	if why != "" && !r.over() {
		r.fail("repair", fmt.Sprintf("15 minutes after the last fault: %s", why))
	}
}

// owes says what is missing from a healthy pool, "" if nothing.
func (r *dhtRun) owes() string {
	for n := 1; n < len(r.peers); n++ {
		switch p := &r.peers[n]; p.state {
		case crashed:
			return fmt.Sprintf("node %s is down", r.name(Ref(n)))
		case running:
			if !p.node.Ring().Ready() {
				return fmt.Sprintf("node %s is not ready", r.name(Ref(n)))
			}
		}
	}
	k := min(r.cfg.K, r.pool.count())
	for _, b := range r.set.order {
		if !b.must() {
			continue
		}
		live := 0
		for n := range b.disks {
			if r.peers[n].state == running {
				live++
			}
		}
		if live < k {
			return fmt.Sprintf("block %s has %d of %d copies", b.guid.Short(), live, k)
		}
	}
	for _, m := range r.reg.regs {
		if why := r.owesSigned(m, k); why != "" {
			return why
		}
	}
	return ""
}

func (r *dhtRun) name(n Ref) string { return r.e.Handle(n).GUID.Short() }
