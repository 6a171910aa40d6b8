// Package ring is what an overlay needs to agree on one root for every key:
// the leaf set, the border between two neighbours, the ledger of delivery
// leases, the admission lock, round-trip estimates and the token bucket that
// paces repair. It holds state and arithmetic only; overlay/pastry holds the
// conversation.
//
// Papers: Rowstron and Druschel, "Pastry" (Middleware 2001), §2.3 for the leaf
// set; Castro et al., MSPastry (DSN 2004), for round trips; Lu, Merz and
// Weidenbach, "Towards verification of the Pastry protocol using TLA+"
// (FORTE 2011), whose lease on joins the Lock is. Delivery leases are ours
// (10-overlay §3.5).
package ring

import "atoll.example/atoll/internal/id"

// Side is one of the two directions on the ring.
type Side uint8

// Left is counter-clockwise (smaller GUIDs), Right is clockwise.
const (
	Left Side = iota
	Right
)

// Sides lists both, for loops.
var Sides = [2]Side{Left, Right}

// Other is the opposite direction.
func (s Side) Other() Side { return 1 - s }

func (s Side) String() string { return [...]string{"left", "right"}[s] }

// Border returns the first key, clockwise from a, whose root is b when a and b
// are neighbours in this order: keys before it are nearer to a. A key halfway
// belongs to the smaller GUID, as id.CmpDist has it. Border(a, a) is a, so
// that the arc of a lone node is the whole ring.
func Border(a, b id.GUID) id.GUID {
	if a == b {
		return a
	}
	gap := b.Sub(a)
	m := a.Add(gap.Half())
	if gap[id.Size-1]&1 == 0 && b.Less(a) {
		return m // halfway exists, and b is the smaller
	}
	return m.Add(one)
}

var one = id.GUID{id.Size - 1: 1}
