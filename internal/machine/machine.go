// Package machine is the contract between protocols and their hosts.
//
// A protocol is a pure machine: it is handed the time and one event, changes
// its own state, and appends the effects it wants to a slice of the caller's.
// package node performs the effects with sockets and disks, package sim in
// virtual time. A machine has no goroutine, lock, clock, socket or disk, and
// the same events at the same times give the same effects, always.
//
// Rules for machines:
//   - Randomness comes from a Rand made for (run seed, node GUID, purpose).
//   - A map is ranged over only where order cannot reach an effect.
//   - No floating point in a decision: it differs between processors.
//   - Every queue and map keyed by something a peer chose is bounded.
//   - Messages are immutable once emitted or received: the simulator hands the
//     same pointer to the receiver.
//
// Rules for hosts:
//   - Step is called by one goroutine, with now never going back.
//   - Wake is read after each Step; a Tick is due at that time.
//   - A Send to oneself comes back as an ordinary Receive, without the network,
//     and is never lost. Any other Send may be lost, late, doubled, reordered.
//   - Each Store or Load is answered by exactly one Done with its ID, unless
//     the process dies. Stores of one Shard are applied in order; others may
//     finish in any order.
//
// The idea is that of etcd's raft: see github.com/etcd-io/raft, "Design".
package machine

import (
	"math"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Time is a monotonic point in time in µs. It goes on while the computer
// sleeps. Its zero is arbitrary and differs between nodes.
type Time int64

// Duration is a span of time in µs.
type Duration int64

const (
	Microsecond Duration = 1
	Millisecond          = 1000 * Microsecond
	Second               = 1000 * Millisecond
	Minute               = 60 * Second
	Hour                 = 60 * Minute
)

// Never is later than any other time.
const Never = Time(math.MaxInt64)

func (t Time) Add(d Duration) Time               { return t + Time(d) }
func (t Time) Sub(u Time) Duration               { return Duration(t - u) }
func (t Time) Before(u Time) bool                { return t < u }
func (d Duration) Milliseconds() int64           { return int64(d / Millisecond) }
func (d Duration) Scale(num, den int64) Duration { return Duration(int64(d) * num / den) }

// Message is what machines send each other. Its wire form is
// Kind u8 · Version u8 · what AppendBody writes.
type Message interface {
	Kind() uint8
	AppendBody(w *wire.Writer)
}

// Version is the version byte of every message so far.
const Version = 1

// AppendMessage encodes m.
func AppendMessage(w *wire.Writer, m Message) {
	w.U8(m.Kind())
	w.U8(Version)
	m.AppendBody(w)
}

// EventKind says which fields of an Event are set.
type EventKind uint8

const (
	Tick    EventKind = iota + 1 // Wake was reached
	Receive                      // From, Msg
	Command                      // ID, Body: a client of this node asks for something
	Done                         // ID, Body, Err: a Store, Load or other effect ended
)

// Event is one input of a machine.
type Event struct {
	Kind EventKind
	From *id.Handle // Receive: authenticated sender, a member of the pool
	Msg  Message    // Receive
	ID   uint64     // Command: echoed by Reply. Done: that of the effect
	Body any        // Command: the request. Done: the result
	Err  error      // Done
	Wall int64      // wall clock in Unix ms, on every event; data, never a timer
}

// EffectKind says which fields of an Effect are set.
type EffectKind uint8

const (
	Send  EffectKind = iota + 1 // To, Msg, Bulk
	Store                       // ID, Shard, Body (a store.Batch): make durable, then Done
	Load                        // ID, Body (a []store.Key): Done brings [][]byte, nil for absent
	Save                        // Body ([]byte): keep the routing state for the next start; no Done
	Reply                       // ID, Body, Err: answer to a Command; last one for that ID
	Note                        // ID, Body: progress of a Command, a Reply follows
	Trace                       // Body (a trace.Event)
	Halt                        // Err: the machine must not go on; the host stops the node
)

// Effect is one output of a machine.
type Effect struct {
	Kind  EffectKind
	Bulk  bool       // Send: large, goes by a bulk stream
	To    *id.Handle // Send
	Msg   Message    // Send
	ID    uint64
	Shard id.GUID // Store: effects of one shard keep their order
	Body  any
	Err   error
}

// Machine is a protocol, or a stack of them.
type Machine interface {
	// Step appends the effects of one event to out and returns it: same
	// state, same event, same effects.
	Step(now Time, ev Event, out []Effect) []Effect
	// Wake is the time at which a Tick is due; Never if none is.
	Wake() Time
}
