package ring

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// DriftPpm is ρ: the bound on the drift between two monotonic clocks, in parts
// per million (10-overlay §3.5).
const DriftPpm = 20_000

// LeaseEnd returns when a lease ends for its holder. The holder sent the nonce
// at sent; the granter granted hold after it had received that nonce, so
// sent + hold precedes the moment of granting in any clock. Both spans are
// shortened by ρ.
func LeaseEnd(sent machine.Time, hold, grant machine.Duration) machine.Time {
	return sent.Add(hold.Scale(1_000_000-DriftPpm, 1_000_000)).Add(grant.Scale(1_000_000-DriftPpm, 1_000_000))
}

// maxGrants bounds the outstanding grants on one side. A side at the bound
// grants nothing new until one ends.
const maxGrants = 8

// Held is a lease that a neighbour gave to this node.
type Held struct {
	Peer  id.GUID
	Epoch uint32
	Until machine.Time
	// Carried: the neighbour that gave it has been replaced by a joiner which
	// both admitted. It counts until the joiner's own lease arrives.
	Carried bool
}

// Grant is a lease that this node gave away. Until it ends this node claims no
// key past the border with its holder.
type Grant struct {
	Peer  id.GUID
	Epoch uint32
	Seq   uint32 // number of the latest
	Until machine.Time
	// For is the joiner for whose sake the grant no longer stands in the way
	// of another; zero if there is none.
	For    id.GUID
	Passed bool
}

// Ledger is a node's account of delivery leases, by side: what its neighbours
// gave it, and what it gave them.
type Ledger struct {
	held    [2]Held
	granted [2][]Grant
}

// Take records a lease given by the neighbour on side s. It never shortens one
// that the same neighbour gave before.
func (l *Ledger) Take(s Side, peer id.GUID, epoch uint32, until machine.Time) {
	h := &l.held[s]
	if h.Peer == peer && h.Epoch == epoch && !h.Carried && h.Until >= until {
		return
	}
	*h = Held{Peer: peer, Epoch: epoch, Until: until}
}

// Held returns the lease held on side s; its Until is 0 if there is none.
func (l *Ledger) Held(s Side) Held { return l.held[s] }

// Give up the lease held on side s; it returns what was held.
func (l *Ledger) Drop(s Side) Held {
	h := l.held[s]
	l.held[s] = Held{}
	return h
}

// Carry lets the lease held on side s count although a joiner now stands
// between this node and the one that gave it.
func (l *Ledger) Carry(s Side) { l.held[s].Carried = true }

// HeldUntil returns until when the lease on side s counts, given the present
// neighbour there; 0 if it does not.
func (l *Ledger) HeldUntil(s Side, neighbour id.GUID, epoch uint32) machine.Time {
	h := &l.held[s]
	if h.Carried || h.Peer == neighbour && h.Epoch == epoch {
		return h.Until
	}
	return 0
}

// prune forgets grants that have ended.
func (l *Ledger) prune(now machine.Time, s Side) {
	g := l.granted[s]
	for i := 0; i < len(g); {
		if g[i].Until > now {
			i++
			continue
		}
		g[i] = g[len(g)-1]
		g = g[:len(g)-1]
	}
	l.granted[s] = g
}

// BlockedUntil returns when a grant to peer on side s may start: now or
// earlier if nothing stands in its way.
func (l *Ledger) BlockedUntil(now machine.Time, s Side, peer id.GUID) machine.Time {
	l.prune(now, s)
	var until machine.Time
	mine := false
	for _, g := range l.granted[s] {
		if g.Peer == peer {
			mine = true
		} else if !g.Passed || g.For != peer {
			until = max(until, g.Until)
		}
	}
	if !mine && len(l.granted[s]) >= maxGrants {
		for _, g := range l.granted[s] {
			until = max(until, g.Until)
		}
	}
	return until
}

// Grant records lease number seq given to peer on side s. Numbers rise.
func (l *Ledger) Grant(s Side, peer id.GUID, epoch, seq uint32, until machine.Time) {
	for i := range l.granted[s] {
		if g := &l.granted[s][i]; g.Peer == peer {
			g.Epoch, g.Seq = epoch, seq
			g.Until = max(g.Until, until)
			return
		}
	}
	l.granted[s] = append(l.granted[s], Grant{Peer: peer, Epoch: epoch, Seq: seq, Until: until})
}

// Admit lets joiner be granted on side s beside the grant to other, the node
// on the joiner's far side: it has admitted the joiner too, and has shrunk for
// it. So have those that admitted an earlier joiner here; a grant to anybody
// else, such as a node evicted by error, goes on to stand in the way.
func (l *Ledger) Admit(s Side, joiner, other id.GUID) {
	for i := range l.granted[s] {
		if g := &l.granted[s][i]; g.Peer == other || g.Passed {
			g.For, g.Passed = joiner, true
		}
	}
}

// Returned ends what was granted to peer on side s up to number seq. A grant
// renewed since stands: the return was under way when its holder got another.
func (l *Ledger) Returned(s Side, peer id.GUID, seq uint32) {
	l.drop(s, func(g *Grant) bool { return g.Peer == peer && g.Seq <= seq })
}

// Gone ends every grant to peer: it has said that it owns nothing any more.
func (l *Ledger) Gone(peer id.GUID) {
	for _, s := range Sides {
		l.drop(s, func(g *Grant) bool { return g.Peer == peer })
	}
}

// Rebooted voids what an older process of peer held and gave: it is dead.
func (l *Ledger) Rebooted(peer id.GUID, epoch uint32) {
	for _, s := range Sides {
		l.drop(s, func(g *Grant) bool { return g.Peer == peer && g.Epoch < epoch })
		if h := &l.held[s]; h.Peer == peer && h.Epoch < epoch {
			*h = Held{}
		}
	}
}

func (l *Ledger) drop(s Side, which func(*Grant) bool) {
	g := l.granted[s]
	for i := 0; i < len(g); {
		if !which(&g[i]) {
			i++
			continue
		}
		g = append(g[:i], g[i+1:]...)
	}
	l.granted[s] = g
}

// Outstanding returns the grants on side s that have not ended. It is the
// ledger's own slice.
func (l *Ledger) Outstanding(now machine.Time, s Side) []Grant {
	l.prune(now, s)
	return l.granted[s]
}
