package pastry

import (
	"math/rand/v2"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
	"atoll.example/atoll/internal/trace"
)

// State of a node's membership (10-overlay §3.3).
type State uint8

// A node delivers only when it is Ready; it forwards in every state but Cold
// and Left.
const (
	Cold State = iota
	Joining
	Settling
	Ready
	Leaving
	Left
)

func (s State) String() string {
	return [...]string{"cold", "joining", "settling", "ready", "leaving", "left"}[s]
}

// timer names a pending timer: what, and of which peer, flight or nothing.
type timer struct {
	kind timerKind
	of   uint32
}

// timerKind is as wide as timer.of, so that keys are compared as one word.
type timerKind uint32

const (
	tAcks     timerKind = iota // send gathered acks
	tHop                       // a flight's retransmission timeout
	tProof                     // next step of a proof of death
	tAsk                       // an LSProbe unanswered
	tFetch                     // a HandlesReq unanswered
	tPing                      // a Probe for a slot or another node unanswered
	tBeat                      // heartbeat due
	tBeatWait                  // a beat unanswered
	tSilence                   // the right neighbour has been silent
	tGrant                     // a grant that stood in the way has ended
	tJoin                      // join: next attempt
	tSettle                    // join: next look at whether all answered
	tJoined                    // join: Joined unanswered
	tAdmit                     // admission: AdmitReq unanswered
	tRepair                    // a token for the candidate queue
	tExchange                  // leaf exchange
	tGossip                    // row gossip
	tTable                     // look for silent table entries
	tHeal                      // look for the other side of a partition
	tWait                      // retry waiting messages
	tSweep                     // forget peers and request ids
	tSave                      // save the table
	tAlone                     // restarted and reached nobody
	tLeave                     // leave: done?
)

type app struct {
	num uint16
	up  kbr.Upcalls
}

type update struct {
	h      *id.Handle
	joined bool
}

// Node is a Pastry node: a machine.Machine and a kbr.Router. It is not safe
// for concurrent use.
type Node struct {
	// What nearly every step looks at: a simulation of many nodes finds none of
	// it in the processor's cache, so it lies close together.
	cfg         *Config
	state       State
	changed     bool // since the last save
	everSaved   bool
	everAdmit   bool // this process or the one before admitted somebody
	gossipNews  bool
	nb          [2]uint32     // neighbours, 0: none
	nbHandle    [2]*id.Handle // theirs; kept by setNeighbour and setHandle
	now         machine.Time
	wall        int64 // ms
	out         []machine.Effect
	timers      machine.Timers[timer]
	peers       peers
	updates     []update
	self        *id.Handle
	soundSince  machine.Time // ready, and not stalled, see mayVouch
	activeUntil machine.Time
	rnd         rand.Rand // of pcg, here too
	pcg         rand.PCG
	grants      uint32 // number of the last lease given
	asks        int    // LSProbes under way
	ledger      ring.Ledger
	ownedAfter  machine.Time // a restarted member owns nothing before
	estimate    int64        // of N, refreshed when the leaf set changes
	leaf        ring.LeafSet
	table       table

	lsLeft, lsRight []Ref // cached by refs

	me     id.GUID
	apps   []app
	bucket ring.Bucket

	// Messages under way: hop.go.
	flights  map[uint32]*flight
	flightNo uint32
	spare    []*flight
	acks     []ackBatch
	waiting  []waiting
	seen     map[kbr.ReqID]struct{}
	seenList []seenID
	drops    [numDrops]int64

	// Membership: join.go, admit.go, heal.go.
	join      joining
	admission *admission
	admitted  lastAdmission
	losses    []machine.Time
	lastLoss  machine.Time // last leaf that went without a goodbye, 0: none
	healUntil machine.Time

	// Maintenance: repair.go, restart.go.
	candidates []uint32
	exchange   machine.Duration
	exchanged  int // leaf exchanges so far
	gossip     machine.Duration
	saved      machine.Time
	leftSince  machine.Time
	deaths     []uint32
	fetching   machine.Time // handles were asked for, wait for them until
	repaired   machine.Time // last leaf repair
	lookNonce  uint64
}

var (
	_ machine.Machine = (*Node)(nil)
	_ kbr.Router      = (*Node)(nil)
)

// New returns a node that has not started. cfg may be that of many nodes, and
// must not change. It panics if cfg is not valid: call Validate first on what a
// user wrote.
func New(cfg *Config, self *id.Handle, seed uint64) *Node {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	n := &Node{
		cfg: cfg, self: self, me: self.GUID,
		pcg:      *machine.NewPCG(seed, self.GUID, "pastry"),
		peers:    newPeers(),
		leaf:     ring.NewLeafSet(self.GUID, cfg.LeafSet, false),
		table:    table{me: self.GUID},
		bucket:   ring.Bucket{Every: cfg.RepairEvery, Burst: cfg.RepairBurst},
		flights:  make(map[uint32]*flight),
		seen:     make(map[kbr.ReqID]struct{}),
		exchange: cfg.ExchangeFar,
		gossip:   cfg.GossipMin,
		estimate: 1,
	}
	n.rnd = *rand.New(&n.pcg)
	n.flightNo = n.rnd.Uint32()
	return n
}

// Register adds an application. Call it before Start.
func (n *Node) Register(num uint16, up kbr.Upcalls) { n.apps = append(n.apps, app{num, up}) }

func (n *Node) upcalls(num uint16) kbr.Upcalls {
	for _, a := range n.apps {
		if a.num == num {
			return a.up
		}
	}
	return nil
}

// enter begins an entry point of the machine; the function it returns ends it.
// Entry points may nest: an upcall may call Route.
func (n *Node) enter(now machine.Time, out []machine.Effect) (outer []machine.Effect) {
	outer = n.out
	n.now, n.out = now, out
	return outer
}

func (n *Node) leave(outer []machine.Effect) (out []machine.Effect) {
	out, n.out = n.out, outer
	return out
}

// Step handles one event.
func (n *Node) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	outer := n.enter(now, out)
	n.wall = ev.Wall
	if due := n.timers.Next(); due != machine.Never && now.Sub(due) > stall {
		n.stalled()
	}
	switch ev.Kind {
	case machine.Receive:
		n.receive(ev.From, ev.Msg)
	case machine.Tick:
		n.tick()
	}
	n.settleUp()
	return n.leave(outer)
}

// Wake is when the next Tick is due.
func (n *Node) Wake() machine.Time { return n.timers.Next() }

func (n *Node) receive(from *id.Handle, msg machine.Message) {
	if n.state == Cold || n.state == Left {
		return
	}
	r := n.hear(from)
	if r == 0 {
		return
	}
	switch m := msg.(type) {
	case *Hop:
		n.onHop(r, m)
	case *HopAck:
		n.onHopAck(r, m)
	case *Probe:
		n.send(r, &ProbeAck{Nonce: m.Nonce, Ready: n.state == Ready})
	case *ProbeAck:
		n.onProbeAck(r, m)
	case *PingReq:
		n.onPingReq(r, m)
	case *PingRep:
		n.onPingRep(r, m)
	case *Beat:
		n.onBeat(r, &m.BeatBody, false)
	case *BeatAck:
		n.onBeat(r, &m.BeatBody, true)
	case *Join:
		n.onJoin(r, m)
	case *AdmitReq:
		n.onAdmitReq(r, m)
	case *AdmitRep:
		n.onAdmitRep(r, m)
	case *JoinReply:
		n.onJoinReply(r, m)
	case *JoinBusy:
		n.onJoinBusy(r, m)
	case *Joined:
		n.onJoined(r, m)
	case *JoinedAck:
		n.onJoinedAck(r, m)
	case *LSProbe:
		n.onLSProbe(r, m)
	case *RowReq:
		n.onRowReq(r, m)
	case *RowRep:
		n.onRowRep(r, m)
	case *HandlesReq:
		n.onHandlesReq(r, m)
	case *Handles:
		n.onHandles(r, m)
	case *Leave:
		n.onLeave(r, m)
	case *Rtt:
		if p := n.peer(r); !p.rtt.Known() && m.RTT > 0 {
			p.rtt.Sample(m.RTT)
		}
	}
	switch m := msg.(type) {
	case *Probe:
	case *Join:
		if m.Look {
			n.stranger(r)
		}
	default:
		n.stranger(r)
	}
}

func (n *Node) tick() {
	for {
		t, ok := n.timers.Pop(n.now)
		if !ok {
			return
		}
		n.fire(t)
	}
}

func (n *Node) fire(t timer) {
	switch t.kind {
	case tAcks:
		n.flushAcks()
	case tHop:
		n.hopTimeout(t.of)
	case tProof:
		n.proofStep(t.of)
	case tAsk:
		n.askTimeout(t.of)
	case tFetch:
		n.fetchTimeout(t.of)
	case tPing:
		n.pingTimeout(t.of)
	case tBeat:
		n.beat()
	case tBeatWait:
		n.beatTimeout(t.of)
	case tSilence:
		n.silence()
	case tGrant:
		n.grantDue(0)
	case tJoin:
		n.joinAttempt()
	case tSettle:
		n.settle()
	case tJoined:
		n.joinedTimeout()
	case tAdmit:
		n.admitTimeout()
	case tRepair:
		n.drainCandidates()
	case tExchange:
		n.exchangeLeaves()
	case tGossip:
		n.gossipRows()
	case tTable:
		n.probeTable()
	case tHeal:
		n.heal()
	case tWait:
		n.retryWaiting()
	case tSweep:
		n.tidy()
	case tSave:
		n.save()
	case tAlone:
		n.alone()
	case tLeave:
		n.leaveStep()
	}
}

func (n *Node) set(k timerKind, of uint32, d machine.Duration) {
	n.timers.Set(timer{k, of}, n.now.Add(d))
}

func (n *Node) armed(k timerKind, of uint32) bool {
	return n.timers.When(timer{k, of}) != machine.Never
}

func (n *Node) stop(k timerKind, of uint32) { n.timers.Stop(timer{k, of}) }

func (n *Node) send(r uint32, m machine.Message) {
	n.out = append(n.out, machine.Effect{Kind: machine.Send, To: n.peer(r).handle(), Msg: m})
}

// trace emits an event; its kinds are listed in doc.go.
func (n *Node) trace(kind string, peer, key id.GUID, v int64, note string) {
	n.out = append(n.out, machine.Effect{
		Kind: machine.Trace, Body: trace.Event{Kind: kind, Peer: peer, Key: key, N: v, Note: note},
	})
}

// count traces an oddity that a peer caused.
func (n *Node) count(kind string, peer id.GUID) { n.trace(kind, peer, id.GUID{}, 1, "") }

// nonce returns a number that nobody else can foretell, never 0.
func (n *Node) nonce() uint64 { return n.rnd.Uint64() | 1 }

// settleUp runs at the end of every entry point: it tells applications what
// changed and lets waiting messages try again.
func (n *Node) settleUp() {
	for len(n.updates) > 0 {
		u := n.updates[0]
		n.updates = n.updates[1:]
		if len(n.updates) == 0 {
			n.updates = nil
		}
		for _, a := range n.apps {
			n.out = a.up.Update(n.now, u.h, u.joined, n.out)
		}
	}
	if n.changed && n.state == Ready && !n.armed(tSave, 0) {
		wait := machine.Duration(0)
		if n.everSaved {
			wait = max(0, n.saved.Add(n.cfg.SaveEvery).Sub(n.now))
		}
		n.set(tSave, 0, wait)
	}
}

// tidy runs once a minute: it forgets old peers and request ids.
func (n *Node) tidy() {
	n.set(tSweep, 0, machine.Minute)
	n.forgetSeen()
	n.sweep()
}
