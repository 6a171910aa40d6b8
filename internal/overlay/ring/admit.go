package ring

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// Lock is a node's promise to help one joiner only: it stands between Left and
// Right, which are its future neighbours, until the time by the node's own
// clock. A node has at most one. Published Pastry has none, and two concurrent
// joins can split its ring for ever (Lu et al.).
type Lock struct {
	ID     uint64
	Joiner id.GUID
	Epoch  uint32
	Peer   id.GUID // the neighbour on the joiner's other side; self if alone
	Side   Side    // where the joiner stands as seen from here
	Until  machine.Time
}

// Stands reports whether the lock is in force.
func (l *Lock) Stands(now machine.Time) bool { return l != nil && now < l.Until }
