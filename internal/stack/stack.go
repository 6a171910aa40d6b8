// Package stack joins the protocols of one member into one machine: the roster
// (who is a member), the overlay (Pastry), the DHT on it, and route probes. Both
// hosts run this very machine: package node in real time, package sim in virtual
// time.
//
// Parts call each other directly where they are layered (kbr.Router and
// kbr.Upcalls); the stack hands each event to the part it is for: messages by
// their kind, completions by the top byte of their ID, commands by type.
//
// A guard stands in front: see Guard. It traces stack.flood, stack.bad and
// stack.shutout, with the peer and a count.
//
//	kinds   1–31 pastry · 64–95 dht · 96–103 roster · 104–111 stack
//	IDs     2<<56 … dht
package stack

import (
	"errors"
	"fmt"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/wire"
)

// Config is what a stack is made of. The parts' own settings are complete but
// for what the stack knows better: the pool, the own handle, each other.
type Config struct {
	Self    *id.Handle
	Seed    uint64
	Roster  *roster.Roster
	Overlay pastry.Config
	DHT     dht.Config
	// ReadyEntry makes this node's signed word that it has joined; seq orders
	// its words within one boot epoch.
	ReadyEntry func(seq uint32) []byte
}

// Node is the stack of one member.
type Node struct {
	self   *id.Handle
	ring   *pastry.Node
	dht    *dht.Node
	roster *roster.Roster
	probe  *probe
	guard  guard
	bad    []badInput // told by the DHT in the step under way

	readyEntry func(seq uint32) []byte
	said       bool   // the roster has it that this node is ready
	seq        uint32 // of this node's last word in the roster
	kept       uint64 // version of the roster last handed to the host
}

var _ machine.Machine = (*Node)(nil)

// What a Save effect carries, by its ID.
const (
	SaveTable  = 1 // Body []byte: the overlay's table, for the next Start
	SaveRoster = 2 // Body RosterState
)

// RosterState is what a host keeps of the roster, and what it needs of it where
// links are opened.
type RosterState struct {
	Version uint64
	Entries []byte // roster.Encode
	Digest  [32]byte
	Lost    []id.GUID // revoked since the last such effect: their links must go
}

// New makes a stack. The roster may already hold entries.
func New(cfg Config) (*Node, error) {
	if err := cfg.Overlay.Validate(); err != nil {
		return nil, err
	}
	n := &Node{self: cfg.Self, roster: cfg.Roster, readyEntry: cfg.ReadyEntry, guard: newGuard(cfg.Self.GUID)}
	cfg.Overlay.Member = n.roster.Handle(cfg.Self.GUID) != nil // it has said that it is ready
	n.ring = pastry.New(&cfg.Overlay, cfg.Self, cfg.Seed)
	cfg.DHT.Self = cfg.Self
	cfg.DHT.Seed = cfg.Seed
	cfg.DHT.RosterDiffers = n.roster.Met
	cfg.DHT.BadInput = func(peer id.GUID, what string) { n.bad = append(n.bad, badInput{peer, what}) }
	if err := cfg.DHT.Validate(); err != nil {
		return nil, err
	}
	n.dht = dht.New(cfg.DHT, n.ring, n.roster)
	n.probe = newProbe(n.ring)
	n.ring.Register(kbr.AppDHT, n.dht)
	n.ring.Register(kbr.AppProbe, n.probe)
	return n, nil
}

// Ring, DHT and Roster give the host and the checkers a look inside, between
// two Steps.
func (n *Node) Ring() *pastry.Node     { return n.ring }
func (n *Node) DHT() *dht.Node         { return n.dht }
func (n *Node) Roster() *roster.Roster { return n.roster }

// Start begins: seeds are members to join through, saved is the body of the
// last SaveTable, creator is set for the first node of a pool.
func (n *Node) Start(now machine.Time, wall int64, seeds []*id.Handle, saved []byte, creator bool, out []machine.Effect) []machine.Effect {
	out = n.roster.Start(now, out)
	out = n.dht.Start(now, wall, out)
	out = n.ring.Start(now, seeds, saved, creator, out)
	n.acquaint()
	return n.after(now, out)
}

// Leave begins to hand the ring over to the neighbours; the DHT is drained
// before (dht.DrainCmd).
func (n *Node) Leave(now machine.Time, out []machine.Effect) []machine.Effect {
	return n.after(now, n.ring.Leave(now, out))
}

// Step implements machine.Machine. A Receive without a message stands for a frame
// that Decode refused: it counts against its sender.
func (n *Node) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	switch ev.Kind {
	case machine.Receive:
		out = n.receive(now, ev, out)
	case machine.Tick:
		if n.roster.Wake() <= now {
			out = n.roster.Step(now, ev, out)
		}
		if n.ring.Wake() <= now {
			out = n.ring.Step(now, ev, out)
		}
		if n.dht.Wake() <= now {
			out = n.dht.Step(now, ev, out)
		}
		out = n.probe.tick(now, out)
	case machine.Command:
		if c, ok := ev.Body.(ProbeCmd); ok {
			out = n.probe.command(now, ev.ID, c, out)
		} else {
			out = n.dht.Step(now, ev, out)
		}
	case machine.Done:
		out = n.dht.Step(now, ev, out)
	}
	return n.after(now, out)
}

// Guard returns the counts of what was refused.
func (n *Node) Guard() Guard { return n.guard.Guard }

// Offenders are the peers of which something was refused in the last hour, 16 at most.
func (n *Node) Offenders(now machine.Time) []Offender { return n.guard.offenders(now) }

func (n *Node) receive(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if n.roster.Revoked(ev.From.GUID) {
		return out // its links are being closed
	}
	if ev.Msg == nil { // a frame that Decode refused
		return n.guard.strike(now, ev.From.GUID, "frame that does not decode", out)
	}
	out, ok := n.guard.admit(now, ev.From.GUID, ev.Msg.Kind(), out)
	if !ok {
		return out
	}
	switch k := ev.Msg.Kind(); {
	case pastry.Owns(k):
		return n.ring.Step(now, ev, out)
	case dht.Owns(k):
		return n.dht.Step(now, ev, out)
	case roster.Owns(k):
		return n.roster.Step(now, ev, out)
	case k == KindProbeAnswer:
		if a, ok := ev.Msg.(*ProbeAnswer); ok {
			return n.probe.answer(now, a, out)
		}
	}
	return out
}

// after follows up what a Step may have changed in the roster: those thrown out
// leave the overlay at once, and the host keeps the new entries.
func (n *Node) after(now machine.Time, out []machine.Effect) []machine.Effect {
	for _, b := range n.bad {
		out = n.guard.strike(now, b.peer, b.what, out)
	}
	n.bad = n.bad[:0]
	if !n.said && n.ring.Ready() {
		n.said = true
		if _, err := n.roster.Add(n.readyEntry(n.NextSeq())); err != nil {
			return append(out, machine.Effect{Kind: machine.Halt, Err: err})
		}
	}
	if n.roster.Version() == n.kept {
		return out
	}
	n.kept = n.roster.Version()
	if h := n.roster.Handle(n.self.GUID); h != nil && h.Epoch > n.self.Epoch {
		out = append(out, machine.Effect{Kind: machine.Halt, Err: &EpochError{Seen: h.Epoch}})
	}
	n.acquaint()
	lost := n.roster.TakeRevoked()
	for _, g := range lost {
		if g == n.self.GUID {
			out = append(out, machine.Effect{Kind: machine.Halt, Err: ident.ErrRevoked})
			continue
		}
		out = n.ring.Forget(now, g, out)
		out = n.dht.Forget(now, g, out)
	}
	out = n.dht.RosterChanged(now, out)
	s := RosterState{Version: n.kept, Entries: n.roster.Encode(), Digest: n.roster.SetDigest(), Lost: lost}
	return append(out, machine.Effect{Kind: machine.Save, ID: SaveRoster, Body: s})
}

// acquaintances are as many members as the overlay is told of; a node that has
// not found the ring may need to try them all.
const (
	acquaintances = 64
	allOfThem     = 1024
)

// acquaint tells the overlay of the members nearest on the ring, as the roster
// knows them: two groups whose common acquaintances are all gone find each other
// so.
func (n *Node) acquaint() {
	var hs []*id.Handle
	most := acquaintances
	if !n.ring.Ready() {
		most = allOfThem
	}
	for _, g := range n.roster.Nearest(n.self.GUID, most) {
		if h := n.roster.Handle(g); h != nil {
			hs = append(hs, h)
		}
	}
	n.ring.Remember(hs)
}

// EpochError ends a stack whose node has run before under a higher boot epoch, as
// the others remember: its disk was restored from a copy. The host starts it
// again past that epoch (10-overlay §1).
type EpochError struct{ Seen uint32 }

func (e *EpochError) Error() string {
	return fmt.Sprintf("others remember boot epoch %d of this node", e.Seen)
}

// Moved tells the others that this node has other addresses: h differs from its
// handle so far in these only.
func (n *Node) Moved(now machine.Time, h *id.Handle, out []machine.Effect) []machine.Effect {
	n.self = h
	n.ring.Moved(h)
	if n.said {
		if _, err := n.roster.Add(n.readyEntry(n.NextSeq())); err != nil {
			return append(out, machine.Effect{Kind: machine.Halt, Err: err})
		}
	}
	return n.after(now, out)
}

// NextSeq numbers this node's next word in the roster.
func (n *Node) NextSeq() uint32 {
	n.seq++
	return n.seq
}

// RosterChanged follows up entries that the host has added.
func (n *Node) RosterChanged(now machine.Time, out []machine.Effect) []machine.Effect {
	return n.after(now, out)
}

// Met tells the stack that a link to a member was opened.
func (n *Node) Met(now machine.Time, h *id.Handle, out []machine.Effect) []machine.Effect {
	n.roster.Saw(h)
	return n.after(now, n.roster.Met(now, h, out))
}

// Wake implements machine.Machine.
func (n *Node) Wake() machine.Time {
	return min(n.roster.Wake(), n.ring.Wake(), n.dht.Wake(), n.probe.timers.Next())
}

// ErrKind is the error of Decode for a message that no part knows.
var ErrKind = errors.New("message of an unknown kind")

// Decode decodes a frame of any part. It checks what the bytes alone can show,
// and runs on the goroutines that read from the network.
func Decode(frame []byte) (machine.Message, error) {
	if len(frame) < 2 {
		return nil, wire.ErrShort
	}
	switch k := frame[0]; {
	case pastry.Owns(k):
		return pastry.Decode(frame)
	case dht.Owns(k):
		return dht.Decode(frame)
	case roster.Owns(k):
		return roster.Decode(frame)
	case k == KindProbeAnswer && frame[1] == machine.Version:
		r := wire.NewReader(frame[2:])
		a := decodeProbeAnswer(r)
		return a, r.Close()
	}
	return nil, ErrKind
}
