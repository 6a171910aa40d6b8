package dht

import (
	"fmt"
	"math/rand/v2"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/trace"
)

// Node is the DHT part of one node: client, coordinator and replica. It is
// not safe for concurrent use; see package machine.
type Node struct {
	cfg Config
	r   kbr.Router
	m   Members
	me  *peer
	rnd *rand.Rand

	now     machine.Time
	wall    int64 // Unix ms at wallAt
	wallAt  machine.Time
	out     []machine.Effect // of the step under way
	started bool
	halted  bool

	tree   tree
	owners owners
	signed int64 // signed blocks in the tree

	peers     map[id.GUID]*peer
	slots     [maxSlots]*peer
	live      uint64 // slots of peers that count as live
	allHere   bool   // every member of the pool is a neighbour
	returned  uint64 // of those that had been away
	forgotten map[id.GUID]bool
	circle    circle  // neighbours and self
	arcs      []*arc  // known stretches of the ring, in order
	unsettled bool    // circle and arcs are out of date: settle
	news      []*peer // arrived since arcs were computed
	domains   map[string]int32
	scratch   []*peer
	scratch2  []*peer
	set       []*peer // of the piece of ring that rebuild is at
	roster    [32]byte
	members   int

	seq    uint64
	calls  map[uint64]*call
	waits  map[uint64]func(body any, err error)
	timers machine.Timers[uint64]
	alarms map[uint64]func()
	locks  map[id.GUID]*lock

	placed  []placed // answers to Locate
	pending int64    // block bytes held by requests under way
	serving int      // Gets being loaded
	sides   int      // questions for records outside a session
	pushes  int      // copies being sent on request

	repair   repair
	stray    id.GUID // where looking for strays goes on
	straying bool    // a look is under way
	scrub    scrub
	drain    *drain
	spreads  int    // of coordinators, not answered yet
	stop     uint64 // the StopCmd; 0: none
	stopping bool

	arrivals map[id.GUID]func() // of bytes asked for

	rate  int64 // bytes per second seen in copies: the measured link
	gets  int64
	stats Stats
}

// idPart marks the effects of this package: see the composition of the stack.
const idPart = 2 << 56

var (
	_ machine.Machine = (*Node)(nil)
	_ kbr.Upcalls     = (*Node)(nil)
)

// New makes a node over an overlay and a roster. cfg must be valid.
func New(cfg Config, r kbr.Router, m Members) *Node {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	n := &Node{
		cfg: cfg, r: r, m: m,
		rnd:       machine.NewRand(cfg.Seed, cfg.Self.GUID, "dht"),
		peers:     make(map[id.GUID]*peer),
		forgotten: make(map[id.GUID]bool),
		calls:     make(map[uint64]*call),
		waits:     make(map[uint64]func(any, error)),
		alarms:    make(map[uint64]func()),
		locks:     make(map[id.GUID]*lock),
		arrivals:  make(map[id.GUID]func()),
		domains:   make(map[string]int32),
		rate:      cfg.RepairFloor * 4,
	}
	n.me = &peer{h: cfg.Self, slot: -1, leaf: true}
	n.peers[cfg.Self.GUID] = n.me
	// Numbers of requests differ between lives of a node, so that late
	// answers to an earlier one are not taken for answers to this.
	n.seq = n.rnd.Uint64() >> 24
	n.repair.init()
	return n
}

// Start begins work; every stored record has been given to Restore before.
func (n *Node) Start(now machine.Time, wall int64, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		n.setWall(wall)
		n.started = true
		n.settlePointers()
		n.roster, n.members = n.m.Digest(), n.m.Count()
		n.unsettle()
		n.later(n.cfg.Tick, n.tick)
		n.startScrub()
		n.later(n.cfg.Round/4, n.lookForStrays)
	})
}

// with runs f with out as the step's effects. It nests: the overlay may call
// an upcall from inside Route.
func (n *Node) with(now machine.Time, out []machine.Effect, f func()) []machine.Effect {
	prev := n.out
	n.out = out
	n.now = max(n.now, now)
	f()
	out = n.out
	n.out = prev
	return out
}

func (n *Node) setWall(wall int64) {
	if wall != 0 {
		n.wall, n.wallAt = wall, n.now
	}
}

// unixMS is the wall clock, from the last event that brought it.
func (n *Node) unixMS() uint64 { return uint64(n.wall + n.now.Sub(n.wallAt).Milliseconds()) }

// Wake is when a Tick is due.
func (n *Node) Wake() machine.Time {
	if n.halted {
		return machine.Never
	}
	return n.timers.Next()
}

// Step handles messages of kinds 64–95, commands of this package, and the Done
// of its effects.
func (n *Node) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if n.halted {
		if ev.Kind == machine.Command {
			out = append(out, machine.Effect{Kind: machine.Reply, ID: ev.ID, Err: store.ErrFailed})
		}
		return out
	}
	return n.with(now, out, func() {
		n.setWall(ev.Wall)
		switch ev.Kind {
		case machine.Tick:
			for {
				k, ok := n.timers.Pop(n.now)
				if !ok {
					break
				}
				f := n.alarms[k]
				delete(n.alarms, k)
				f()
			}
		case machine.Receive:
			n.receive(ev.From, ev.Msg)
		case machine.Command:
			n.command(ev.ID, ev.Body)
		case machine.Done:
			if f, ok := n.waits[ev.ID]; ok {
				delete(n.waits, ev.ID)
				f(ev.Body, ev.Err)
			}
		}
	})
}

func (n *Node) command(cmd uint64, body any) {
	switch _, stop := body.(StopCmd); {
	case stop:
		n.stopping, n.stop = true, cmd
		n.stopped()
		return
	case len(n.calls) >= n.cfg.MaxOps:
		n.refuse(cmd, &Refusal{Code: CodeBusy, AfterMS: 100, Detail: "too many requests under way at this node"})
		return
	}
	switch c := body.(type) {
	case PutCmd:
		n.cmdPut(cmd, c)
	case GetCmd:
		n.cmdGet(cmd, c)
	case HeadCmd:
		n.cmdHead(cmd, c)
	case RemoveCmd:
		n.cmdRemove(cmd, c)
	case PutSignedCmd:
		n.cmdPutSigned(cmd, c)
	case GetSignedCmd:
		n.cmdGetSigned(cmd, c)
	case LookupCmd:
		n.cmdLookup(cmd, c)
	case AuditCmd:
		n.cmdAudit(cmd, c)
	case SurveyCmd:
		n.cmdSurvey(cmd, c)
	case DrainCmd:
		n.cmdDrain(cmd)
	default:
		n.refuse(cmd, &Refusal{Code: CodeBadRequest, Detail: fmt.Sprintf("unknown command %T", body)})
	}
}

func (n *Node) reply(cmd uint64, body any) {
	n.out = append(n.out, machine.Effect{Kind: machine.Reply, ID: cmd, Body: body})
}

func (n *Node) refuse(cmd uint64, r *Refusal) {
	n.stats.refused(r.Code)
	n.out = append(n.out, machine.Effect{Kind: machine.Reply, ID: cmd, Err: r})
}

func (n *Node) receive(from *id.Handle, m machine.Message) {
	p := n.peer(from)
	p.heard = n.now
	switch m := m.(type) {
	case *putMsg:
		n.onPut(p, m)
	case *copyMsg:
		n.onCopy(p, m)
	case *getMsg:
		n.onGet(p, m)
	case *headMsg:
		n.onHead(p, m)
	case *removeMsg:
		n.onRemove(p, m)
	case *putSignedMsg:
		n.onPutSigned(p, m)
	case *getSignedMsg:
		n.onGetSigned(p, m)
	case *syncTreeMsg:
		n.onSyncTree(p, m)
	case *syncKeysMsg:
		n.onSyncKeys(p, m)
	case *wantMsg:
		n.onWant(p, m)
	case *surveyMsg:
		n.onSurvey(p, m)
	case *challengeMsg:
		n.onChallenge(p, m)
	case *pointerMsg:
		n.onPointer(p, m)
	case *mendMsg:
		n.onMend(p, m)
	case *mendAckMsg:
		n.answer(p, m.req, m)
	case *workingMsg:
		n.extend(p, m.req)
	case *locatedMsg:
		n.answer(p, m.req, m)
	case *putAckMsg:
		n.answer(p, m.req, m)
	case *copyAckMsg:
		n.answer(p, m.req, m)
	case *blockMsg:
		n.answer(p, m.req, m)
	case *headAckMsg:
		n.answer(p, m.req, m)
	case *removeAckMsg:
		n.answer(p, m.req, m)
	case *putSignedAckMsg:
		n.answer(p, m.req, m)
	case *signedIsMsg:
		n.answer(p, m.req, m)
	case *syncTreeAckMsg:
		n.answer(p, m.req, m)
	case *syncKeysAckMsg:
		n.answer(p, m.req, m)
	case *offerMsg:
		n.answer(p, m.req, m)
	case *surveyAckMsg:
		n.answer(p, m.req, m)
	case *challengeAckMsg:
		n.answer(p, m.req, m)
	case *refuseMsg:
		n.answer(p, m.req, m)
	default:
		n.strike(p, "message out of place")
	}
}

func (n *Node) trace(kind string, p, key id.GUID, v int64, note string) {
	n.out = append(n.out, machine.Effect{
		Kind: machine.Trace,
		Body: trace.Event{Kind: kind, Peer: p, Key: key, N: v, Note: note},
	})
}

// tick is the slow pulse: roster, repair, sessions.
func (n *Node) tick() {
	n.later(n.cfg.Tick, n.tick)
	if d := n.m.Digest(); d != n.roster || n.m.Count() != n.members {
		n.rosterNews()
	}
	n.settle()
	n.refreshLive()
	n.pulseSync()
	n.pulseRepair()
}
