package stack

import (
	"slices"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
	"atoll.example/atoll/internal/trace"
)

// What a peer may send (10-overlay §3.10, 20-dht §10): 200 control messages a
// second on average. The burst is ours: ten seconds' worth, so that a link that
// was stuck may deliver what it held. Ten bad inputs within a minute shut a peer
// out for five.
const (
	controlEvery = machine.Second / 200
	controlBurst = 2000
	maxStrikes   = 10
	strikeWindow = machine.Minute
	shutTime     = 5 * machine.Minute
	reportEvery  = machine.Minute // a flood is traced so often
	offenceKept  = machine.Hour   // a peer is told of so long after it was refused something
	maxOffenders = 16             // told of at once
)

// Guard counts what a stack has refused of its peers.
type Guard struct {
	Flood   int64 // control messages above the rate
	Shut    int64 // messages of peers that were shut out
	Strikes int64 // bad inputs
	ShutOut int64 // times that a peer was shut out
}

// Offender is a peer of which this node refused something in the last hour.
type Offender struct {
	Peer  id.GUID
	Bad   int64  // inputs that no honest node sends
	What  string // the last of these
	Flood int64  // control messages above the rate
	Shut  bool   // nothing of it is taken now
}

// guard stands where messages enter the stack. It keeps a record of every peer
// that sent lately: only members can, so there are as many as those.
type guard struct {
	Guard
	self  id.GUID
	peers map[id.GUID]*watched
	sweep int // records at which idle ones are forgotten
}

// badInput is what a part of the stack told of a peer.
type badInput struct {
	peer id.GUID
	what string
}

// watched is the record of one peer.
type watched struct {
	control  ring.Bucket
	last     machine.Time // last message
	reported machine.Time // last trace of a flood, 0: none
	dropped  int64        // since then
	strikes  int
	window   machine.Time // when the first of these strikes was
	shut     machine.Time // out until then

	offence    machine.Time // the last time that something was refused, 0: never
	bad, flood int64        // refused until then, with no hour between
	what       string       // the last that was bad
}

func newGuard(self id.GUID) guard {
	return guard{self: self, peers: make(map[id.GUID]*watched), sweep: 1024}
}

func (g *guard) peer(now machine.Time, from id.GUID) *watched {
	w := g.peers[from]
	if w == nil {
		if len(g.peers) >= g.sweep {
			for k, v := range g.peers {
				if now.Sub(v.last) > strikeWindow && v.shut <= now && !v.offends(now) {
					delete(g.peers, k)
				}
			}
			g.sweep = max(1024, 2*len(g.peers))
		}
		w = &watched{control: ring.Bucket{Every: controlEvery, Burst: controlBurst}}
		g.peers[from] = w
	}
	w.last = now
	return w
}

// admit reports whether a message of that kind may enter. Blocks and questions
// for them are not control messages: the DHT admits them by what they cost.
func (g *guard) admit(now machine.Time, from id.GUID, kind uint8, out []machine.Effect) ([]machine.Effect, bool) {
	if from == g.self {
		return out, true
	}
	w := g.peer(now, from)
	if w.shut > now {
		g.Shut++
		return out, false
	}
	if dht.Owns(kind) || w.control.Take(now) {
		return out, true
	}
	g.Flood++
	w.dropped++
	w.refused(now)
	w.flood++
	if w.reported == 0 || now.Sub(w.reported) >= reportEvery {
		out = append(out, guardTrace("stack.flood", from, w.dropped, "more than 200 control messages a second"))
		w.reported, w.dropped = now, 0
	}
	return out, false
}

// strike notes bad input that no honest node sends.
func (g *guard) strike(now machine.Time, from id.GUID, what string, out []machine.Effect) []machine.Effect {
	if from == g.self {
		return out
	}
	g.Strikes++
	w := g.peer(now, from)
	w.refused(now)
	w.bad++
	w.what = what
	if w.shut > now {
		return out
	}
	if w.strikes == 0 || now.Sub(w.window) > strikeWindow {
		w.window, w.strikes = now, 0
	}
	out = append(out, guardTrace("stack.bad", from, 1, what))
	if w.strikes++; w.strikes >= maxStrikes {
		g.ShutOut++
		w.shut, w.strikes = now.Add(shutTime), 0
		out = append(out, guardTrace("stack.shutout", from, int64(shutTime), what))
	}
	return out
}

// offends reports whether the peer is to be told of.
func (w *watched) offends(now machine.Time) bool {
	return w.offence != 0 && now.Sub(w.offence) <= offenceKept
}

// refused notes that something of the peer is refused now.
func (w *watched) refused(now machine.Time) {
	if !w.offends(now) {
		w.bad, w.flood, w.what = 0, 0, ""
	}
	w.offence = max(now, 1)
}

// offenders are the peers to be told of, those that are shut out before the others.
func (g *guard) offenders(now machine.Time) []Offender {
	var os []Offender
	for p, w := range g.peers {
		if w.offends(now) {
			os = append(os, Offender{Peer: p, Bad: w.bad, What: w.what, Flood: w.flood, Shut: w.shut > now})
		}
	}
	slices.SortFunc(os, func(a, b Offender) int {
		if a.Shut != b.Shut {
			if a.Shut {
				return -1
			}
			return 1
		}
		return a.Peer.Cmp(b.Peer)
	})
	return os[:min(len(os), maxOffenders)]
}

func guardTrace(kind string, peer id.GUID, v int64, note string) machine.Effect {
	return machine.Effect{Kind: machine.Trace, Body: trace.Event{Kind: kind, Peer: peer, N: v, Note: note}}
}
