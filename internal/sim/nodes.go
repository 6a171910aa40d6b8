package sim

import (
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
)

// overlayNode is what the overlay workload asks of an engine.
type overlayNode interface {
	machine.Machine
	kbr.Router
	Start(now machine.Time, seeds []*id.Handle, saved []byte, creator bool, out []machine.Effect) []machine.Effect
	Adopt(now machine.Time, others []*id.Handle, whole bool, rtt func(id.GUID) machine.Duration, out []machine.Effect) []machine.Effect
	Leave(now machine.Time, out []machine.Effect) []machine.Effect
	LeafSet() (left, right []*id.Handle) // nearest first
}

// nodeMaker makes the nodes of one engine.
type nodeMaker struct {
	leaf   int // h: leaves a side
	make   func(h *id.Handle, up kbr.Upcalls) overlayNode
	decode func(frame []byte) (machine.Message, error)
	name   map[uint8]string // of message kinds
	lookup map[uint8]bool   // kinds that are lookups, their replies or hop acks: no control traffic
}

// handle makes the handle of a simulated node. Its key is no key: nothing in
// the overlay verifies signatures.
func (m *nodeMaker) handle(g id.GUID, epoch uint32) *id.Handle {
	return &id.Handle{GUID: g, Key: g, Epoch: epoch, Addrs: []string{"sim:" + g.Short()}}
}

func (m *nodeMaker) kind(k uint8) string {
	if s, ok := m.name[k]; ok {
		return s
	}
	return fmt.Sprintf("kind %d", k)
}

func (m *nodeMaker) control(k uint8) bool { return !m.lookup[k] }
