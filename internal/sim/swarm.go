package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// swarmFaults are the names a DHT run's faults are switched by. A swarm seed
// enables each with one half: runs that lack a fault reach states that it
// would hide (Groce et al., ISSTA 2012).
var swarmFaults = []string{
	"loss", "duplicate", "reorder", "spike", "corrupt", "slow",
	"partition", "oneway", "freeze", "skew", "jump", "drift",
	"crash", "crashstep", "blackout", "table", "join", "leave", "kill", "amnesia",
	"diskslow", "fsync", "torn", "full", "bitrot",
}

// lastingFaults are those of them that last the whole run; the others come in
// episodes.
var lastingFaults = []string{
	"loss", "duplicate", "reorder", "spike", "corrupt", "skew", "drift", "table", "diskslow", "torn",
}

// faultSet is which of them are on.
type faultSet map[string]bool

func newFaultSet(names []string, r *rand.Rand) (faultSet, error) {
	on := make(faultSet)
	if names == nil {
		for _, f := range swarmFaults {
			if r.IntN(2) == 0 {
				on[f] = true
			}
		}
		return on, nil
	}
	for _, f := range names {
		switch {
		case f == "none":
		case f == "all":
			for _, g := range swarmFaults {
				on[g] = true
			}
		case slices.Contains(swarmFaults, f):
			on[f] = true
		default:
			return nil, fmt.Errorf("unknown fault %q", f)
		}
	}
	return on, nil
}

func (s faultSet) names() []string {
	var ns []string
	for _, f := range swarmFaults {
		if s[f] {
			ns = append(ns, f)
		}
	}
	return ns
}

// episodes of the faults that come and go, in the mean one per gap.
const (
	gapPartition = 6 * machine.Minute
	gapFreeze    = 2 * machine.Minute
	gapCrash     = machine.Minute
	gapJoin      = 4 * machine.Minute
	gapLeave     = 6 * machine.Minute
	gapDestroy   = 3 * machine.Minute
	gapDisk      = 2 * machine.Minute
	gapJump      = 4 * machine.Minute
	gapBlackout  = 10 * machine.Minute
)

// maxPeers bounds the nodes that join, with those that were there.
const maxPeers = 120

// every runs f again and again, exponential gaps of the given mean apart,
// while the faults last.
func (r *dhtRun) every(on string, mean machine.Duration, f func()) {
	if !r.faults[on] {
		return
	}
	rnd := r.e.Rand("fault/" + on)
	var again func()
	again = func() {
		r.e.After(max(1, expDuration(rnd, mean/machine.Duration(max(1, r.cfg.Intensity)))), func() {
			if r.phase != "faults" {
				return
			}
			if r.takesPlace(on) {
				f()
			}
			again()
		})
	}
	again()
}

// takesPlace reports whether the next episode of a kind does, and if so lets it
// draw what it draws when nothing is left out.
func (r *dhtRun) takesPlace(kind string) bool {
	if !r.parts.episode(kind) {
		return false
	}
	if r.parts.only == nil {
		node := 0
		if kind == "join" {
			node = len(r.peers)
		}
		r.parts.place(r.drawn.drawn, node)
		return true
	}
	f := r.parts.faults[episodeID{kind, r.parts.counted[kind]}]
	for len(r.peers) < min(f.Node, maxPeers) {
		n, _ := r.newNode() // which joins in an episode that is left out
		r.peers[n].absent = true
	}
	r.drawn.seek(f.Draws)
	return true
}

// startFaults begins phase one.
func (r *dhtRun) startFaults() {
	rnd, on := r.rnd.fault, r.faults
	ppm := func(name string, limit int64) int64 {
		if !on[name] {
			return 0
		}
		if v := 1 + rnd.Int64N(limit); r.lasts[name] {
			return v
		}
		return 0
	}
	r.e.SetLinkFaults(LinkFaults{
		Loss: ppm("loss", 100_000), Duplicate: ppm("duplicate", 50_000), Reorder: ppm("reorder", 100_000),
		Spike: ppm("spike", 5_000), Corrupt: ppm("corrupt", 10_000),
	})
	r.disks = DiskFaults{Slow: ppm("diskslow", 3_000), Torn: ppm("torn", million)}
	for n := range r.peers {
		if n > 0 {
			r.setDisk(Ref(n))
		}
	}
	r.every("slow", gapFreeze, func() {
		if n := r.pickRunning(); n != World {
			r.e.SetSlow(n, 2+rnd.Int64N(20))
			r.e.After(machine.Minute, func() { r.e.SetSlow(n, 1) })
		}
	})
	r.every("partition", gapPartition, func() { r.partition(true) })
	r.every("oneway", gapPartition, func() { r.partition(false) })
	r.every("freeze", gapFreeze, func() {
		if n := r.pickRunning(); n != World {
			r.e.Faults.Add(FaultFreeze)
			until := r.e.Now().Add(machine.Second + machine.Duration(rnd.Int64N(int64(39*machine.Second))))
			r.e.Freeze(n, until)
			r.peers[n].thawed = until
		}
	})
	r.every("jump", gapJump, func() {
		if n := r.pickRunning(); n != World {
			r.e.Faults.Add(FaultWallJump)
			ms := rnd.Int64N(7_200_001) - 3_600_000
			r.e.JumpWall(n, ms)
			r.e.After(2*machine.Minute, func() { r.e.JumpWall(n, -ms) })
		}
	})
	r.every("crash", gapCrash, func() {
		if n := r.pickRunning(); n != World && r.mayCrash() {
			r.e.Faults.Add(FaultCrash)
			r.e.Crash(n)
			r.crashed(n, "crash")
		}
	})
	r.every("crashstep", gapCrash, func() {
		if n := r.pickRunning(); n != World && r.mayCrash() {
			r.e.CrashInStep(n, []crashPoint{crashAtAny, crashAtStore, crashAtStored}[rnd.IntN(3)])
		}
	})
	r.every("blackout", gapBlackout, func() {
		r.e.Faults.Add(FaultMassKill)
		for n := 1; n < len(r.peers); n++ {
			if r.peers[n].state == running && !r.peers[n].leaving {
				r.e.Crash(Ref(n))
				r.crashed(Ref(n), "blackout")
			}
		}
	})
	r.every("join", gapJoin, func() {
		more := 1
		if rnd.IntN(4) == 0 { // a flash of newcomers
			more = (r.count(running) + r.countAbsent()) / 3
		}
		for range min(more, maxPeers-len(r.peers)) {
			r.e.Faults.Add(FaultJoin)
			r.addNode()
		}
	})
	r.every("leave", gapLeave, r.leave)
	r.every("kill", gapDestroy, func() { r.destroy(true) })
	r.every("amnesia", gapDestroy, func() { r.destroy(false) })
	r.every("fsync", gapDisk, func() {
		if n := r.pickRunning(); n != World && r.mayCrash() {
			r.e.diskOf(n).faults.Fsync = million // the next batch
		}
	})
	r.every("full", gapDisk, func() {
		if n := r.pickRunning(); n != World {
			d := r.e.diskOf(n)
			d.limit = max(1<<16, d.used+d.used/8)
			r.e.After(2*machine.Minute, func() { d.limit = 0 })
		}
	})
	r.every("bitrot", gapDestroy, r.rot)
}

// setDisk gives a node's disk the faults of the phase and the checker's ear.
func (r *dhtRun) setDisk(n Ref) {
	d := r.e.diskOf(n)
	d.faults = r.disks
	d.changed = func(g idGUID, has bool) { r.set.onDisk(n, g, has, false) }
	d.signed = func(g idGUID, record []byte) { r.reg.onDisk(n, g, record) }
}

// partition splits the pool for 5–90 s, in halves or with one direction open.
func (r *dhtRun) partition(symmetric bool) {
	rnd := r.rnd.fault
	if r.cut {
		return
	}
	r.cut = true
	share := 1 + rnd.IntN(4) // of 8 nodes, left out or not
	for n := 1; n < len(r.peers); n++ {
		g := uint8(0)
		if rnd.IntN(8) < share {
			g = 1
		}
		r.e.SetGroup(Ref(n), g)
	}
	r.e.Cut(0, 1)
	if symmetric {
		r.e.Faults.Add(FaultSplit)
		r.e.Cut(1, 0)
	} else {
		r.e.Faults.Add(FaultOneWay)
	}
	r.log("partition, symmetric %v", symmetric)
	r.e.After(5*machine.Second+machine.Duration(rnd.Int64N(int64(85*machine.Second))), func() {
		r.e.Heal()
		r.log("partition healed")
		r.cut = false
	})
}

// mayCrash bounds how many nodes are down, or about to be, at a time: a fifth.
func (r *dhtRun) mayCrash() bool {
	up, down := 0, 0
	for n := 1; n < len(r.peers); n++ {
		switch r.peers[n].state {
		case running:
			up++
			if r.e.nodes[n].dying != crashNever {
				down++
			}
		case crashed:
			down++
		}
	}
	return down*5 < up
}

// destroy takes a disk for ever: the node with it (and the admin revokes it),
// or the disk alone, and the node returns empty. The promise is k−1 losses
// once repair has reached k, W−1 at any time: so one at a time, and only when
// everything acknowledged is back on W disks.
func (r *dhtRun) destroy(node bool) {
	n := r.pickRunning()
	if n == World || node && r.count(running) < 12 || !r.mayCrash() || !r.safe() {
		return
	}
	r.excuseOps(nil)
	r.wipe(n)
	if r.e.Alive(n) {
		r.e.Crash(n)
	}
	if !node {
		r.e.Faults.Add(FaultAmnesia)
		r.crashed(n, "amnesia")
		return
	}
	r.e.Faults.Add(FaultDestroyed)
	p := &r.peers[n]
	p.state, p.node = dead, nil
	r.e.After(30*machine.Second+machine.Duration(r.rnd.fault.Int64N(int64(2*machine.Minute))), func() { r.revoke(n) })
}

func (r *dhtRun) wipe(n Ref) {
	r.log("disk of %s wiped", r.name(n))
	d := r.e.diskOf(n)
	for _, k := range d.keys('b') {
		r.set.onDisk(n, k.GUID, false, true)
	}
	r.excuseSigned()
	fresh := newDisk()
	r.e.nodes[n].disk = fresh
	r.e.nodes[n].saved, r.e.nodes[n].older, r.pool.saved[n] = nil, nil, nil
	r.setDisk(n)
}

// rot spoils one copy, if the block has W others.
func (r *dhtRun) rot() {
	n := r.pickRunning()
	if n == World || !r.safe() {
		return
	}
	if k, ok := r.e.diskOf(n).rot(r.rnd.fault, &r.e.Faults); ok {
		r.log("%c %s rots at %s", k.Family, k.GUID.Short(), r.name(n))
		r.excuseOps(&k.GUID)
		if k.Family == store.Block {
			r.set.onDisk(n, k.GUID, false, true)
		}
	}
}
