package sim

import (
	"math/rand/v2"

	"atoll.example/atoll/internal/machine"
)

const million = 1_000_000

// LinkFaults are probabilities, in ppm, of what may happen to a message.
type LinkFaults struct {
	Loss      int64 // lost, each on its own
	Duplicate int64 // arrives twice
	Reorder   int64 // held for up to 100 ms, so that later ones overtake it
	Spike     int64 // held for 0.5–3 s
	Corrupt   int64 // bits flip: the secure channel throws it away
}

// maxGroups is how many sides a partition may have.
const maxGroups = 8

// network carries messages between nodes.
type network struct {
	topo   Topology
	faults LinkFaults
	cut    [maxGroups]uint8 // bit g of cut[f] set: nothing passes from group f to g
	used   uint8            // groups that nodes were ever put in, but 0
}

// carry decides what happens to a message: it fills due with the delays of its
// copies and returns their number, 0–2.
func (w *network) carry(from, to *node, bulk bool, fc *FaultCounts, due *[2]machine.Duration) int {
	if w.cut[from.group]&(1<<to.group) != 0 {
		fc.Add(FaultPartition)
		return 0
	}
	r, f := rand.New(&from.rnd), &w.faults
	if chance(r, f.Loss) {
		fc.Add(FaultLoss)
		return 0
	}
	if chance(r, f.Corrupt) {
		fc.Add(FaultCorrupt)
		return 0
	}
	copies := 1
	if chance(r, f.Duplicate) {
		fc.Add(FaultDuplicate)
		copies = 2
	}
	base := w.topo.base(from.where, to.where)
	if bulk {
		base += base // a block does not fit one packet
	}
	for i := range copies {
		d := base + machine.Duration(r.Int64N(w.topo.spread()+1))
		if chance(r, f.Reorder) {
			fc.Add(FaultReorder)
			d += machine.Duration(r.Int64N(int64(100 * machine.Millisecond)))
		}
		if chance(r, f.Spike) {
			fc.Add(FaultSpike)
			d += 500*machine.Millisecond + machine.Duration(r.Int64N(int64(2500*machine.Millisecond)))
		}
		if s := max(from.slow, to.slow); s > 1 {
			fc.Add(FaultSlowLink)
			d *= machine.Duration(s)
		}
		due[i] = d
	}
	return copies
}

// chance is true with a probability of ppm millionths. It draws only if ppm is
// not 0, so that a fault switched off leaves the other streams alone.
func chance(r *rand.Rand, ppm int64) bool { return ppm > 0 && r.Int64N(million) < ppm }

// SetLinkFaults changes what happens to messages from now on.
func (e *Engine) SetLinkFaults(f LinkFaults) { e.net.faults = f }

// SetGroup puts n on a side of partitions; all start in group 0.
func (e *Engine) SetGroup(n Ref, g uint8) {
	e.nodes[n].group = g
	e.net.used |= 1 << g
}

// Group returns the side n is on.
func (e *Engine) Group(n Ref) uint8 { return e.nodes[n].group }

// Cut blocks messages from group f to group g.
func (e *Engine) Cut(f, g uint8) { e.net.cut[f] |= 1 << g }

// Hears reports whether no partition stops messages from m to n.
func (e *Engine) Hears(n, m Ref) bool {
	return e.net.cut[e.nodes[m].group]&(1<<e.nodes[n].group) == 0
}

// Heal takes all cuts away.
func (e *Engine) Heal() { e.net.cut = [maxGroups]uint8{} }

// SetSlow multiplies the delays of n's links by factor.
func (e *Engine) SetSlow(n Ref, factor int64) { e.nodes[n].slow = factor }

// components labels groups: two have the same label iff each can reach the
// other, over third groups if need be.
func (w *network) components() (label [maxGroups]uint8) {
	var reach [maxGroups]uint8
	for i := range reach {
		reach[i] = ^w.cut[i] & (w.used | 1)
	}
	for k := range reach { // Warshall; only groups in use carry anything over
		if (w.used|1)&(1<<k) == 0 {
			continue
		}
		for i := range reach {
			if reach[i]&(1<<k) != 0 {
				reach[i] |= reach[k]
			}
		}
	}
	for i := range label {
		for j := range i + 1 {
			if i == j || reach[i]&(1<<j) != 0 && reach[j]&(1<<i) != 0 {
				label[i] = uint8(j)
				break
			}
		}
	}
	return label
}

// oneWay reports whether some pair of groups hears only in one direction.
func (w *network) oneWay() bool {
	for i := range w.cut {
		for j := range w.cut {
			if w.cut[i]&(1<<j) != 0 && w.cut[j]&(1<<i) == 0 {
				return true
			}
		}
	}
	return false
}

// Direct is the mean one-way delay from a to b without faults.
func (e *Engine) Direct(a, b Ref) machine.Duration {
	return e.net.topo.direct(e.nodes[a].where, e.nodes[b].where)
}
