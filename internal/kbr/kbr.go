// Package kbr is the contract between a routing overlay and what is built on
// it: the key-based routing API of Dabek et al., "Towards a Common API for
// Structured Peer-to-Peer Overlays" (IPTPS 2003), with delivery leases added.
// Coulouris et al., Figure 10.3, is what an implementation does; overlay/pastry
// is one.
//
// Overlay and application are pure machines on one node, and call each other
// directly: an overlay may call Deliver from inside Route when the node itself
// is the root. Every call appends its effects to out and returns it.
package kbr

import (
	"errors"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// Sentinels of Route, in the Err of the Drop upcall.
var (
	ErrTooLarge = errors.New("message body over 64 KiB")
	ErrNoApp    = errors.New("no such application on the receiving node")
	ErrIsolated = errors.New("no route: this node has lost its neighbours")
	ErrNoLease  = errors.New("the root has no delivery lease at the moment")
	ErrDeadline = errors.New("deadline passed on the way")
	ErrHops     = errors.New("hop cap reached")
	ErrBusy     = errors.New("too many messages under way")
)

// MaxBody is the largest body of a Message in bytes.
const MaxBody = 64 << 10

// Class says what a delivery promises.
type Class uint8

const (
	BestEffort Class = 0 // the answer verifies itself, or the effect is idempotent
	Owned      Class = 1 // lease-gated: one owner at a time within a component
	Control    Class = 2 // the overlay's own
)

// Rule names the branch of the routing algorithm (Figure 10.9) that chose a
// hop. It is local to the node that chose, and not sent.
type Rule uint8

const (
	RuleRoot  Rule = iota // self is the root
	RuleLeaf              // line 2: the closest member of the leaf set
	RuleTable             // line 6: R[p,i]
	RuleRare              // line 8: any node no shorter in prefix and nearer
)

func (r Rule) String() string { return [...]string{"root", "leaf set", "table", "rare case"}[r] }

// ReqID tells messages apart; random.
type ReqID [16]byte

// Message is what Route carries. Fields as in 10-overlay §2.
type Message struct {
	Key      id.GUID
	App      uint16
	ReqID    ReqID
	Class    Class
	Origin   *id.Handle       // who may be answered directly
	Deadline machine.Duration // time left
	Hops     uint8
	Flags    uint8
	BestDist id.GUID // set iff Flags has FlagLeaf
	Body     []byte  // at most MaxBody; immutable, replaced as a whole by Forward

	Rule Rule // how the next hop was chosen; not sent
}

// Flags of a Message.
const (
	FlagLeaf      uint8 = 1 << iota // the leaf phase has begun: BestDist must fall from here on
	FlagHedge                       // reserved
	FlagRedundant                   // reserved
	FlagSafe                        // reserved
)

// Ownership is the lease under which a key is owned: this node may act as the
// one owner of the keys on Arc until Until, if OK. Without a lease OK is
// false, and the node may still be the root as far as it knows.
type Ownership struct {
	OK    bool
	Arc   id.Arc
	Until machine.Time
}

// Router is what an overlay offers. Returned slices belong to the caller;
// handles are shared and immutable.
type Router interface {
	// Self is this node's handle.
	Self() *id.Handle
	// Ready reports whether this node has joined: it delivers only then.
	Ready() bool
	// Route sends m towards the root of m.Key. A zero ReqID is replaced by a
	// random one. hint, if not nil, is taken as the first hop.
	Route(now machine.Time, m Message, hint *id.Handle, out []machine.Effect) []machine.Effect
	// LocalLookup returns up to num next hops towards k, best first; empty if
	// self is the root.
	LocalLookup(k id.GUID, num int) []*id.Handle
	// NeighborSet returns up to num members of the leaf set, nearest first,
	// without self.
	NeighborSet(num int) []*id.Handle
	// ReplicaSet returns the rank live nodes nearest to k, root first, self
	// among them where it belongs; fewer if the ring is smaller. False: k is
	// too far from this node for it to know them all.
	ReplicaSet(k id.GUID, rank int) ([]*id.Handle, bool)
	// Range returns the arc of keys for which n is among the rank nearest
	// nodes. False: n is unknown here or its arc is not fully known.
	Range(n id.GUID, rank int) (id.Arc, bool)
	// Owns returns the lease under which this node owns k now, for requests
	// that came directly.
	Owns(now machine.Time, k id.GUID) Ownership
	// Lookup returns the freshest known handle of a node in the leaf set or
	// routing table, nil if unknown.
	Lookup(n id.GUID) *id.Handle
	// RTT is the smoothed round-trip time to n, 0 if unknown.
	RTT(n id.GUID) machine.Duration
}

// Upcalls is what an application on the overlay offers.
type Upcalls interface {
	// Forward runs at every node on the way, origin and root included, before
	// m goes to next (nil at the root). It may replace fields of m; returning
	// false ends m here. It may see a message twice.
	Forward(now machine.Time, m *Message, next *id.Handle, out []machine.Effect) ([]machine.Effect, bool)
	// Deliver runs at the root. For class Owned, own is a valid lease.
	Deliver(now machine.Time, m *Message, own Ownership, out []machine.Effect) []machine.Effect
	// Update tells of every change of the leaf set: n joined it or left it.
	// It also runs with n = self when this node becomes ready.
	Update(now machine.Time, n *id.Handle, joined bool, out []machine.Effect) []machine.Effect
	// Drop tells the node that originated or held m that m ended without
	// delivery, and why.
	Drop(now machine.Time, m *Message, err error, out []machine.Effect) []machine.Effect
}

// Application numbers of Message.App.
const (
	AppDHT   uint16 = 1 // package dht
	AppProbe uint16 = 2 // route probes: "atoll route"
)
