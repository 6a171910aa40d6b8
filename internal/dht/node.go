package dht

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

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

	repair repair
	stray  id.GUID // where looking for strays goes on
	scrub  scrub
	drain  *drain

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
	if len(n.calls) >= n.cfg.MaxOps {
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

// OwnsCommand reports whether body is a command of this package.
func OwnsCommand(body any) bool {
	switch body.(type) {
	case PutCmd, GetCmd, HeadCmd, RemoveCmd, PutSignedCmd, GetSignedCmd, LookupCmd, AuditCmd, SurveyCmd, DrainCmd:
		return true
	}
	return false
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

// call is a question to a peer that waits for its one answer.
type call struct {
	to    *peer // nil: anybody may answer (Locate)
	alarm uint64
	wait  machine.Duration
	until machine.Time // for Working: not beyond
	f     func(from *peer, m machine.Message)
}

// ask sends p a question and calls f once: with the answer, or with nil when
// timeout has passed or p is evicted. It returns the number of the question,
// for forget.
func (n *Node) ask(p *peer, timeout machine.Duration, q func(req uint64) machine.Message, f func(p *peer, m machine.Message)) uint64 {
	return n.askUntil(p, timeout, 0, q, f)
}

// askUntil is ask with a peer that may, until then, ask for patience.
func (n *Node) askUntil(p *peer, timeout machine.Duration, until machine.Time, q func(req uint64) machine.Message, f func(p *peer, m machine.Message)) uint64 {
	n.seq++
	req := n.seq
	c := &call{to: p, f: f, wait: timeout, until: until}
	c.alarm = n.later(timeout, func() { n.expire(req) })
	n.calls[req] = c
	if p != nil {
		n.send(p, q(req))
	}
	return req
}

// expire ends a question without an answer.
func (n *Node) expire(req uint64) {
	if c, ok := n.calls[req]; ok {
		delete(n.calls, req)
		c.f(c.to, nil)
	}
}

// extend: the peer says that it is at work.
func (n *Node) extend(p *peer, req uint64) {
	c, ok := n.calls[req]
	if !ok || c.to != p || n.now.Add(c.wait) > c.until {
		return
	}
	n.cancel(c.alarm)
	c.alarm = n.later(c.wait, func() { n.expire(req) })
}

func (n *Node) answer(p *peer, req uint64, m machine.Message) {
	c, ok := n.calls[req]
	if !ok {
		return // late: answered, given up, or of an earlier life
	}
	if c.to != nil && c.to != p {
		n.strike(p, "answer to a question put to another")
		return
	}
	n.forget(req)
	p.fails, p.suspect = 0, 0
	c.f(p, m)
}

// forget gives a question up without calling its function.
func (n *Node) forget(req uint64) {
	if c, ok := n.calls[req]; ok {
		n.cancel(c.alarm)
		delete(n.calls, req)
	}
}

// abandon fails the questions to an evicted peer.
func (n *Node) abandon(p *peer) {
	var reqs []uint64
	for req, c := range n.calls {
		if c.to == p {
			reqs = append(reqs, req)
		}
	}
	slices.Sort(reqs)
	for _, req := range reqs {
		if c, ok := n.calls[req]; ok {
			n.forget(req)
			c.f(p, nil)
		}
	}
}

func (n *Node) send(p *peer, m machine.Message) {
	n.out = append(n.out, machine.Effect{Kind: machine.Send, To: p.h, Msg: m, Bulk: bulky(m)})
}

func bulky(m machine.Message) bool {
	switch m := m.(type) {
	case *putMsg:
		return len(m.block) > bulkFrom
	case *copyMsg:
		return len(m.block) > bulkFrom
	case *blockMsg:
		return len(m.block) > bulkFrom
	case *putSignedMsg:
		return m.rec.size() > bulkFrom
	case *signedIsMsg:
		n := 0
		for i := range m.recs {
			n += m.recs[i].size()
		}
		return n > bulkFrom
	case *offerMsg:
		n := 0
		for i := range m.items {
			n += m.items[i].size()
		}
		return n > bulkFrom
	}
	return false
}

// later calls f after d; the number it returns serves cancel.
func (n *Node) later(d machine.Duration, f func()) uint64 {
	n.seq++
	n.alarms[n.seq] = f
	n.timers.Set(n.seq, n.now.Add(max(d, 1)))
	return n.seq
}

func (n *Node) cancel(alarm uint64) {
	if _, ok := n.alarms[alarm]; ok {
		delete(n.alarms, alarm)
		n.timers.Stop(alarm)
	}
}

// store makes a batch durable and calls f with nil, or with store.ErrFull if
// nothing was written. Any other error stops the node.
func (n *Node) store(g id.GUID, b store.Batch, f func(err error)) {
	n.seq++
	num := n.seq | idPart
	n.waits[num] = func(_ any, err error) {
		if err != nil && !errors.Is(err, store.ErrFull) {
			n.halt(err)
			return
		}
		f(err)
	}
	n.out = append(n.out, machine.Effect{Kind: machine.Store, ID: num, Shard: g, Body: b})
}

func (n *Node) halt(err error) {
	n.halted = true
	n.trace("dht.halt", id.GUID{}, id.GUID{}, 0, err.Error())
	n.out = append(n.out, machine.Effect{Kind: machine.Halt, Err: err})
}

// load reads records; absent ones are nil.
func (n *Node) load(keys []store.Key, f func(values [][]byte, err error)) {
	n.seq++
	num := n.seq | idPart
	n.waits[num] = func(body any, err error) {
		values, _ := body.([][]byte)
		if err == nil && len(values) != len(keys) {
			err = store.ErrNotFound
		}
		f(values, err)
	}
	n.out = append(n.out, machine.Effect{Kind: machine.Load, ID: num, Body: keys})
}

func (n *Node) trace(kind string, p, key id.GUID, v int64, note string) {
	n.out = append(n.out, machine.Effect{
		Kind: machine.Trace,
		Body: trace.Event{Kind: kind, Peer: p, Key: key, N: v, Note: note},
	})
}

// lock makes changes to one GUID follow each other: what is on disk then never
// differs from what the next change was decided on.
type lock struct{ queue []func() }

const maxQueue = 64 // changes waiting for one GUID

// exclusive runs f when no other change of g is under way; f's work ends with
// release. False: too many wait.
func (n *Node) exclusive(g id.GUID, f func()) bool {
	l, busy := n.locks[g]
	if !busy {
		n.locks[g] = &lock{}
		f()
		return true
	}
	if len(l.queue) >= maxQueue {
		n.stats.Dropped++
		return false
	}
	l.queue = append(l.queue, f)
	return true
}

func (n *Node) release(g id.GUID) {
	l := n.locks[g]
	if l == nil {
		panic("dht: release without lock: " + g.String())
	}
	if len(l.queue) == 0 {
		delete(n.locks, g)
		return
	}
	f := l.queue[0]
	l.queue = l.queue[1:]
	f()
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

// RosterChanged tells that members or domains changed, so that sets are
// computed anew at once.
func (n *Node) RosterChanged(now machine.Time, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		if n.started {
			n.rosterNews()
		}
	})
}

// rosterNews: k copies may mean another number now, and sets differ.
func (n *Node) rosterNews() {
	if c := n.m.Count(); c != n.members {
		n.members = c
		for _, a := range n.arcs {
			a.dirty = true
		}
	}
	n.roster = n.m.Digest()
	n.unsettle()
}

// Forget tells that g was revoked: it is out of every set at once, and what it
// held is copied without grace.
func (n *Node) Forget(now machine.Time, g id.GUID, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		n.forgotten[g] = true
		if p, ok := n.peers[g]; ok && p != n.me {
			n.lost(p)
		}
		n.unsettle()
	})
}

// Update is the upcall of a change of the leaf set.
func (n *Node) Update(now machine.Time, h *id.Handle, joined bool, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		if h.GUID == n.me.h.GUID {
			n.me.h = h
			n.unsettle()
			return
		}
		p := n.peer(h)
		p.heard = n.now
		switch {
		case joined && !p.leaf:
			n.arrived(p)
		case !joined:
			n.lost(p)
		}
		n.unsettle()
	})
}

// arrived: p is a neighbour now. If it had been one before, what it holds must
// be confirmed, and what others agreed on without us must be learnt.
func (n *Node) arrived(p *peer) {
	p.leaf = true
	p.fails, p.suspect = 0, 0
	n.slot(p)
	if p.gone {
		p.gone, p.returned = false, true
		p.rejoin = p.h.Epoch == p.epoch // else it restarted, and enters anyway
		n.trace("dht.return", p.h.GUID, id.GUID{}, 0, "")
	}
	n.news = append(n.news, p)
	p.sync.reset()
	if n.cfg.Bugs.DeleteOnReturn && p.returned {
		for _, g := range n.outsideCopies(maxQueued) {
			n.dropCopy(g, nil)
		}
	}
}

// lost: the overlay evicted p.
func (n *Node) lost(p *peer) {
	wasLeaf := p.leaf
	p.leaf, p.gone, p.epoch = false, true, p.h.Epoch
	p.sync.reset()
	if wasLeaf {
		n.trace("dht.gone", p.h.GUID, id.GUID{}, 0, "")
	}
	n.live &^= p.bit()
	n.abandon(p)
}

// pulseSoon brings the next look at sessions and repair forward, once for a
// burst of updates.
func (n *Node) pulseSoon() {
	if n.repair.soon || !n.started {
		return
	}
	n.repair.soon = true
	n.later(20*machine.Millisecond, func() {
		n.repair.soon = false
		n.settle()
		n.pulseSync()
		n.pulseRepair()
	})
}

// memberGUIDs lists peers for a refusal.
func guids(ps []*peer) []id.GUID {
	gs := make([]id.GUID, 0, len(ps))
	for _, p := range ps {
		gs = append(gs, p.h.GUID)
	}
	slices.SortFunc(gs, func(a, b id.GUID) int { return a.Cmp(b) })
	return slices.Compact(gs)
}

func handles(ps []*peer) []*id.Handle {
	hs := make([]*id.Handle, 0, min(len(ps), maxSet))
	for _, p := range ps[:min(len(ps), maxSet)] {
		hs = append(hs, p.h)
	}
	return hs
}
