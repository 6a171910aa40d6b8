// Package sim is the host of machines in virtual time: the very machines that
// package node runs over sockets and disks run here by the thousand, over a
// network and disks made of numbers, deterministic by seed.
//
// It has three layers. The engine (engine.go, queue.go, network.go, disk.go)
// knows machines only. The workloads (overlay.go, dhtrun.go) start nodes, ask
// them for things and hurt them. The checkers know everything: which nodes
// live, who is connected, what was acknowledged; they judge what the machines
// did. A run ends with a trace hash: the same seed gives the same hash.
//
// A run uses one goroutine. Nothing in the engine decides by floating point;
// statistics may use it.
//
// Follows the simulators of MSPastry (Castro et al., DSN 2004), of
// FoundationDB and TigerBeetle, and swarm testing (Groce et al., ISSTA 2012).
package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/trace"
	"atoll.example/atoll/internal/wire"
)

// Ref names a node of an Engine: small, dense, never reused. 0 is the world
// outside: scripts and clients.
type Ref uint32

// World is the source of what no node does.
const World Ref = 0

type eventKind uint8

const (
	evMessage eventKind = iota + 1
	evTimer
	evStored
	evLoaded
	evCommand
	evScript
)

// event is what an item of the queue stands for.
type event struct {
	kind eventKind
	inc  uint32 // incarnation of dst the event is for; messages are for any
	id   uint64
	from *id.Handle
	msg  machine.Message
	body any
	fn   func()
}

// Config sets up an Engine.
type Config struct {
	Seed     uint64
	Topology Topology
	// Decode, if set, sends every message through the codec: slower, and what
	// arrives is what the wire carries.
	Decode func(frame []byte) (machine.Message, error)
	// Wall is the wall clock of time 0 in Unix ms.
	Wall int64
	// Hooks; each may be nil. They run inside a step and must not call Do.
	OnTrace   func(n Ref, ev trace.Event)
	OnMessage func(from, to Ref, m machine.Message) // delivered
	OnReply   func(n Ref, cmd uint64, body any, err error)
	OnSave    func(n Ref, body any) // a Save of anything but the routing state
	OnNote    func(n Ref, cmd uint64, body any)
	OnCrash   func(n Ref, why string) // a fault of the engine or a Halt ended n
	// AfterStep runs after each step of n, when Do may be called again.
	AfterStep func(n Ref)
}

// Engine runs machines in virtual time.
type Engine struct {
	cfg   Config
	now   machine.Time
	q     queue
	nodes []node // by Ref; 0 unused
	by    id.Index
	net   network
	out   []machine.Effect
	frame wire.Writer

	hash    *blake3.Hasher
	hashBuf []byte

	stepping bool

	// Counters of the run.
	Events  uint64      // machine steps
	Sent    [256]uint64 // messages handed to the network, by kind
	Bytes   [256]uint64 // their encoded bytes, with Decode set
	Faults  FaultCounts
	Unknown uint64 // Sends to a GUID that never existed
}

// node is one simulated process with its place, clock and disk.
type node struct {
	h       *id.Handle
	m       machine.Machine // nil: dead
	armed   machine.Time    // time of the earliest queued timer; Never if none
	frozen  machine.Time    // events wait until then
	off     machine.Time    // its clock at time 0
	seq     uint64
	inc     uint32
	group   uint8 // side of a partition
	dying   crashPoint
	where   place
	rnd     rand.PCG // its link and disk faults
	slow    int64    // link delay factor, 0 or 1: none
	drift   int64    // ppm
	skew    int64    // wall clock, ms
	disk    *disk
	dyingBy machine.Time
	saved   []byte // last Save
	older   []byte // the Save before
}

// New makes an empty Engine.
func New(cfg Config) *Engine {
	if cfg.Topology == "" {
		cfg.Topology = LAN
	}
	e := &Engine{cfg: cfg, hash: blake3.New(), nodes: make([]node, 1)}
	e.net.topo = cfg.Topology
	return e
}

// Now is the virtual time.
func (e *Engine) Now() machine.Time { return e.now }

// Rand returns the stream of (seed, purpose) for scripts and workloads.
func (e *Engine) Rand(purpose string) *rand.Rand {
	return machine.NewRand(e.cfg.Seed, id.GUID{}, "sim/"+purpose)
}

// NewNode makes room for a node that is not running yet. h.GUID must be new.
func (e *Engine) NewNode(h *id.Handle) Ref {
	if e.Ref(h.GUID) != World {
		panic("sim: two nodes of GUID " + h.GUID.Short())
	}
	n := Ref(len(e.nodes))
	nd := node{h: h, armed: machine.Never, rnd: *machine.NewPCG(e.cfg.Seed, h.GUID, "sim/node")}
	r := rand.New(&nd.rnd)
	if e.cfg.Topology == Sphere {
		nd.where = newPlace(r)
	}
	// Clocks of different nodes have nothing to do with each other.
	nd.off = machine.Time(r.Int64N(int64(24 * machine.Hour)))
	e.nodes = append(e.nodes, nd)
	e.by.Add(uint32(n), e)
	return n
}

// Start runs m as node n, which must not be running, under handle h (the same
// GUID, a higher epoch than before). start, if not nil, is called first: its
// effects are performed.
func (e *Engine) Start(n Ref, h *id.Handle, m machine.Machine, start func(now machine.Time, out []machine.Effect) []machine.Effect) {
	nd := &e.nodes[n]
	if nd.m != nil {
		panic("sim: node started twice")
	}
	if nd.h.GUID != h.GUID {
		panic("sim: node started under another GUID")
	}
	nd.h, nd.m, nd.inc, nd.armed, nd.frozen, nd.dying = h, m, nd.inc+1, machine.Never, 0, crashNever
	if start != nil {
		e.Do(n, start)
	} else {
		e.rearm(n)
	}
}

// Crash ends n at once: batches not yet synced are lost (in part), messages on
// the wire are not.
func (e *Engine) Crash(n Ref) {
	nd := &e.nodes[n]
	if nd.m == nil {
		return
	}
	nd.m, nd.armed = nil, machine.Never
	nd.inc++
	if nd.disk != nil {
		nd.disk.crash(rand.New(&nd.rnd), &e.Faults)
	}
}

// Forget drops what is kept of a dead node that never returns.
func (e *Engine) Forget(n Ref) {
	nd := &e.nodes[n]
	if nd.m != nil {
		panic("sim: forgetting a living node")
	}
	nd.saved, nd.older, nd.disk = nil, nil, nil
}

// crashPoint is where a node crashes: between the effects of a step.
type crashPoint uint8

const (
	crashNever    crashPoint = iota
	crashAtAny               // of its next step
	crashAtStore             // of its next step that writes, with the write begun
	crashAtStored            // of its next step after a write or a read has ended
)

// crashPatience is how long a node that is to crash at a write may do without
// one; then any step will do.
const crashPatience = machine.Minute

// CrashInStep ends n between two effects of a step at p.
func (e *Engine) CrashInStep(n Ref, p crashPoint) {
	e.nodes[n].dying, e.nodes[n].dyingBy = p, e.now.Add(crashPatience)
}

// crashes reports whether n is to crash in the step that ev caused, and after at
// least how many of its effects.
func (e *Engine) crashes(nd *node, ev machine.Event) (after int, yes bool) {
	switch {
	case nd.dying == crashNever || len(e.out) == 0:
		return 0, false
	case nd.dying == crashAtAny || e.now >= nd.dyingBy:
		return 0, true
	case nd.dying == crashAtStored:
		return 0, ev.Kind == machine.Done
	default:
		i := slices.IndexFunc(e.out, func(ef machine.Effect) bool { return ef.Kind == machine.Store })
		return i + 1, i >= 0
	}
}

// Freeze stops n until t: what arrives waits, its timers fire late.
func (e *Engine) Freeze(n Ref, t machine.Time) { e.nodes[n].frozen = t }

// Frozen reports whether n is frozen now.
func (e *Engine) Frozen(n Ref) bool { return e.nodes[n].frozen > e.now }

// Alive reports whether n runs.
func (e *Engine) Alive(n Ref) bool { return e.nodes[n].m != nil }

// Handle returns the handle under which n runs or last ran.
func (e *Engine) Handle(n Ref) *id.Handle { return e.nodes[n].h }

// Ref returns the node of a GUID, World if there is none.
func (e *Engine) Ref(g id.GUID) Ref { return Ref(e.by.Find(&g, e)) }

// GUIDAt makes the engine what its index finds GUIDs in.
func (e *Engine) GUIDAt(n uint32) *id.GUID { return &e.nodes[n].h.GUID }

// Saved returns the routing state that n last saved, nil if none.
func (e *Engine) Saved(n Ref) []byte { return e.nodes[n].saved }

// SetClock gives n a drift in ppm and a wall clock skewed by ms. It must be
// called before n first runs.
func (e *Engine) SetClock(n Ref, driftPPM, skewMS int64) {
	e.nodes[n].drift, e.nodes[n].skew = driftPPM, skewMS
}

// JumpWall moves the wall clock of n by ms.
func (e *Engine) JumpWall(n Ref, ms int64) { e.nodes[n].skew += ms }

// Local is the time that n's own clock shows at global time t.
func (e *Engine) Local(n Ref, t machine.Time) machine.Time {
	nd := &e.nodes[n]
	if nd.drift == 0 {
		return t + nd.off
	}
	return t + nd.off + machine.Time(int64(t)/1_000_000*nd.drift+int64(t)%1_000_000*nd.drift/1_000_000)
}

// Global is the first global time at which n's clock shows at least t.
func (e *Engine) Global(n Ref, t machine.Time) machine.Time {
	nd := &e.nodes[n]
	if t == machine.Never {
		return machine.Never
	}
	g := t - nd.off
	if nd.drift == 0 {
		return g
	}
	g -= machine.Time(int64(g) / 1_000_000 * nd.drift)
	for e.Local(n, g) >= t {
		g -= max(1, e.Local(n, g)-t)
	}
	for e.Local(n, g) < t {
		g += max(1, (t-e.Local(n, g))/2)
	}
	return g
}

func (e *Engine) wall(n Ref) int64 {
	return e.cfg.Wall + int64(e.now)/int64(machine.Millisecond) + e.nodes[n].skew
}

// Do runs f on n between two steps, as a host calls methods of its machine,
// and performs the effects.
func (e *Engine) Do(n Ref, f func(now machine.Time, out []machine.Effect) []machine.Effect) {
	if e.stepping {
		panic("sim: Do inside a step")
	}
	nd := &e.nodes[n]
	if nd.m == nil {
		return
	}
	e.stepping = true
	e.out = f(e.Local(n, e.now), e.out[:0])
	e.perform(n)
	e.stepping = false
	e.rearm(n)
}

// Command gives n a client's request now.
func (e *Engine) Command(n Ref, cmd uint64, body any) {
	e.push(e.now, n, World, event{kind: evCommand, inc: e.nodes[n].inc, id: cmd, body: body})
}

// At runs f at time t.
func (e *Engine) At(t machine.Time, f func()) {
	e.push(max(t, e.now), World, World, event{kind: evScript, fn: f})
}

// After runs f after d.
func (e *Engine) After(d machine.Duration, f func()) { e.At(e.now.Add(d), f) }

func (e *Engine) push(t machine.Time, dst, src Ref, ev event) {
	nd := &e.nodes[src]
	nd.seq++
	e.q.push(item{at: int64(t), dst: dst, src: src, seq: nd.seq}, ev)
}

// Run processes events up to and including those at time until.
func (e *Engine) Run(until machine.Time) {
	for e.q.peek() <= until {
		e.next()
	}
	e.now = max(e.now, until)
}

// Next processes one event if one is due by until.
func (e *Engine) Next(until machine.Time) bool {
	if e.q.peek() > until {
		return false
	}
	e.next()
	return true
}

func (e *Engine) next() {
	it, ev := e.q.pop()
	e.now = machine.Time(it.at)
	if it.dst == World {
		ev.fn()
		return
	}
	n := it.dst
	nd := &e.nodes[n]
	if ev.kind == evStored && nd.disk != nil {
		// The disk goes on while its process is frozen or dead.
		if !nd.disk.finish(&ev, ev.inc == nd.inc) {
			return
		}
	}
	if nd.m == nil || ev.kind != evMessage && ev.inc != nd.inc {
		return
	}
	if nd.frozen > e.now {
		e.push(nd.frozen, n, it.src, ev)
		return
	}
	switch ev.kind {
	case evMessage:
		e.note(it.src, n, ev.msg.Kind())
		if e.cfg.OnMessage != nil {
			e.cfg.OnMessage(it.src, n, ev.msg)
		}
		e.feed(n, machine.Event{Kind: machine.Receive, From: ev.from, Msg: ev.msg})
	case evTimer:
		if machine.Time(ev.id) != nd.armed {
			return // moved earlier meanwhile: that one has rearmed
		}
		nd.armed = machine.Never
		if nd.m.Wake() <= e.Local(n, e.now) {
			e.feed(n, machine.Event{Kind: machine.Tick})
		} else {
			e.rearm(n)
		}
	case evStored:
		err, _ := ev.body.(error)
		e.feed(n, machine.Event{Kind: machine.Done, ID: ev.id, Err: err})
	case evLoaded:
		values, err := nd.disk.get(ev.body.([]store.Key))
		e.feed(n, machine.Event{Kind: machine.Done, ID: ev.id, Body: values, Err: err})
	case evCommand:
		e.feed(n, machine.Event{Kind: machine.Command, ID: ev.id, Body: ev.body})
	}
}

func (e *Engine) feed(n Ref, ev machine.Event) {
	nd := &e.nodes[n]
	ev.Wall = e.wall(n)
	e.Events++
	e.stepping = true
	e.out = nd.m.Step(e.Local(n, e.now), ev, e.out[:0])
	if after, yes := e.crashes(nd, ev); yes {
		// Power fails between two effects.
		e.Faults.Add(FaultCrashInStep)
		keep := after + rand.New(&nd.rnd).IntN(len(e.out)+1-after)
		clear(e.out[keep:])
		e.out = e.out[:keep]
		e.perform(n)
		e.stepping = false
		e.fail(n, "crash between effects")
		return
	}
	e.perform(n)
	e.stepping = false
	e.rearm(n)
	if e.cfg.AfterStep != nil {
		e.cfg.AfterStep(n)
	}
}

// fail ends n on behalf of the engine.
func (e *Engine) fail(n Ref, why string) {
	if !e.Alive(n) {
		return
	}
	e.Crash(n)
	if e.cfg.OnCrash != nil {
		e.cfg.OnCrash(n, why)
	}
}

// rearm queues a timer if the machine wants to be woken before the one queued.
func (e *Engine) rearm(n Ref) {
	nd := &e.nodes[n]
	if nd.m == nil {
		return
	}
	w := nd.m.Wake()
	if w == machine.Never {
		return
	}
	g := max(e.Global(n, w), e.now)
	if g >= nd.armed {
		return
	}
	nd.armed = g
	e.push(g, n, n, event{kind: evTimer, inc: nd.inc, id: uint64(g)})
}

func (e *Engine) perform(n Ref) {
	nd := &e.nodes[n]
	for i := range e.out {
		ef := &e.out[i]
		switch ef.Kind {
		case machine.Send:
			e.send(n, ef)
		case machine.Store:
			due, err := e.diskOf(n).submit(ef.ID, ef.Shard, ef.Body.(store.Batch), nd.inc, e.now, rand.New(&nd.rnd), &e.Faults)
			e.push(due, n, n, event{kind: evStored, inc: nd.inc, id: ef.ID, body: err})
			if errors.Is(err, store.ErrFailed) {
				e.At(due.Add(machine.Millisecond), func() { e.fail(n, "disk failed") })
			}
		case machine.Load:
			due := e.diskOf(n).readTime(e.now, rand.New(&nd.rnd))
			e.push(due, n, n, event{kind: evLoaded, inc: nd.inc, id: ef.ID, body: ef.Body})
		case machine.Save:
			if b, ok := ef.Body.([]byte); ok {
				nd.older, nd.saved = nd.saved, b
			} else if e.cfg.OnSave != nil {
				e.cfg.OnSave(n, ef.Body)
			}
		case machine.Reply:
			e.noteReply(n, ef)
			if e.cfg.OnReply != nil {
				e.cfg.OnReply(n, ef.ID, ef.Body, ef.Err)
			}
		case machine.Note:
			if e.cfg.OnNote != nil {
				e.cfg.OnNote(n, ef.ID, ef.Body)
			}
		case machine.Trace:
			ev := ef.Body.(trace.Event)
			e.noteTrace(n, &ev)
			if e.cfg.OnTrace != nil {
				e.cfg.OnTrace(n, ev)
			}
		case machine.Halt:
			why := fmt.Sprintf("halt: %v", ef.Err)
			e.At(e.now, func() { e.fail(n, why) })
		default:
			panic(fmt.Sprintf("sim: effect of kind %d", ef.Kind))
		}
		*ef = machine.Effect{} // drop references: the buffer lives on
	}
}

// send hands a message to the network.
func (e *Engine) send(n Ref, ef *machine.Effect) {
	nd := &e.nodes[n]
	dst := Ref(e.by.Find(&ef.To.GUID, e))
	if dst == World {
		e.Unknown++
		return
	}
	if dst == n {
		e.push(e.now, n, n, event{kind: evMessage, from: nd.h, msg: ef.Msg})
		return
	}
	kind := ef.Msg.Kind()
	e.Sent[kind]++
	msg := ef.Msg
	if e.cfg.Decode != nil {
		e.frame.B = e.frame.B[:0]
		machine.AppendMessage(&e.frame, msg)
		e.Bytes[kind] += uint64(len(e.frame.B))
		// Decoded messages may alias the frame, so each has its own.
		d, err := e.cfg.Decode(append([]byte(nil), e.frame.B...))
		if err != nil {
			panic(fmt.Sprintf("sim: own message %T does not decode: %v", msg, err))
		}
		msg = d
	}
	var due [2]machine.Duration
	for _, d := range due[:e.net.carry(nd, &e.nodes[dst], ef.Bulk, &e.Faults, &due)] {
		e.push(e.now.Add(d), dst, n, event{kind: evMessage, from: nd.h, msg: msg})
	}
}

func (e *Engine) diskOf(n Ref) *disk {
	nd := &e.nodes[n]
	if nd.disk == nil {
		nd.disk = newDisk()
	}
	return nd.disk
}
