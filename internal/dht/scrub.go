package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// scrub re-reads every block within ScrubPeriod; the store checks it. The
// place reached is kept, so that a restart does not begin anew.
type scrub struct {
	at    id.GUID
	since int // blocks since the place was kept
}

const (
	scrubKey  = "scrub"
	scrubKeep = 64 // blocks between two notes of the place
	scrubIdle = machine.Minute
)

func (n *Node) startScrub() { n.later(machine.Jitter(n.rnd, n.scrubStep(0), 500_000), n.scrubOn) }

// scrubStep is the pause that re-reads all blocks in the period, but at most a
// tenth of the time is spent reading: took is what the last one cost.
func (n *Node) scrubStep(took machine.Duration) machine.Duration {
	blocks := machine.Duration(max(n.cfg.Usage().Blocks+n.signed, 1))
	return max(min(n.cfg.ScrubPeriod/blocks, n.cfg.ScrubPeriod/16), 9*took, machine.Millisecond)
}

func (n *Node) scrubOn() {
	var e *entry
	n.tree.walk(n.scrub.at, maxGUID, func(x *entry) bool {
		if x.have() {
			e = x
		}
		return e == nil
	})
	if e == nil {
		n.scrub.at = id.GUID{}
		n.later(max(n.scrubStep(0), scrubIdle), n.scrubOn)
		return
	}
	start := n.now
	g := e.guid
	n.scrub.at = g.Add(one)
	next := func() {
		n.stats.Scrubbed++
		if n.scrub.since++; n.scrub.since >= scrubKeep {
			n.scrub.since = 0
			at := n.scrub.at
			n.store(id.GUID{}, store.Batch{Ops: []store.Op{{
				Key: store.Key{Family: store.Meta, Sub: scrubKey}, Value: at[:],
			}}}, func(error) {})
		}
		n.later(machine.Jitter(n.rnd, n.scrubStep(n.now.Sub(start)), 100_000), n.scrubOn)
	}
	if e.signed() {
		n.proveSigned(g, func([]Signed) { next() })
		return
	}
	n.loadBlock(g, func([]byte) { next() })
}

func (n *Node) restoreMeta(k store.Key, v []byte) {
	if k.Sub == scrubKey && len(v) == id.Size {
		n.scrub.at = id.GUID(v)
	}
}
