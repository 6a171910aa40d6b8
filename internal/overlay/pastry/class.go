package pastry

import (
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
)

// ClassOf is how much depends on a message of this package, for whoever has to drop
// some of a peer's: a routed one has its own class, and what tells that a node lives,
// holds a lease or has taken a hop is control.
func ClassOf(m machine.Message) kbr.Class {
	switch m := m.(type) {
	case *Hop:
		return m.M.Class
	case *Beat, *BeatAck, *HopAck, *Probe, *ProbeAck, *PingReq, *PingRep, *LSProbe, *AdmitReq, *AdmitRep, *Leave:
		return kbr.Control
	}
	return kbr.BestEffort
}
