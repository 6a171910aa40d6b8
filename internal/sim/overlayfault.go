package sim

import "atoll.example/atoll/internal/machine"

// startChurn gives every node a session and lets new ones arrive.
func (r *overlayRun) startChurn() {
	if r.churn.Mean == 0 {
		return
	}
	r.churning = true
	for n := Ref(1); int(n) < len(r.peers); n++ {
		if r.e.Alive(n) || r.peers[n].absent {
			r.session(n)
		}
	}
	r.scheduleArrival()
}

func (r *overlayRun) session(n Ref) {
	inc := r.peers[n].inc
	r.e.After(expDuration(r.rnd.churn, r.churn.Mean), func() {
		absent := r.peers[n].absent
		if !r.churning || r.peers[n].inc != inc || !r.e.Alive(n) && !absent {
			return
		}
		leaves := chance(r.rnd.churn, int64(r.cfg.Leave*million))
		switch {
		case absent || !r.parts.fault(Episode{Kind: "depart", N: int(n)}):
		case leaves:
			r.leave(n)
		default:
			r.crash(n)
			r.e.Forget(n)
		}
	})
}

func (r *overlayRun) leave(n Ref) {
	r.e.Faults.Add(FaultLeave)
	p := &r.peers[n]
	r.e.Do(n, p.node.Leave)
	r.afterStep(n)
	inc := p.inc
	r.e.After(10*machine.Second, func() {
		if r.peers[n].inc == inc && r.e.Alive(n) {
			r.e.Crash(n)
			r.ended(n, "left")
			r.e.Forget(n)
		}
	})
}

func (r *overlayRun) scheduleArrival() {
	gap := expDuration(r.rnd.churn, r.churn.Mean/machine.Duration(r.cfg.Nodes))
	r.e.After(gap, func() {
		if !r.churning {
			return
		}
		r.e.Faults.Add(FaultJoin)
		r.session(r.addNode())
		r.scheduleArrival()
	})
}

// startFaults schedules the single faults.
func (r *overlayRun) startFaults(span machine.Duration) {
	middle := r.e.Now().Add(span / 2)
	if r.cfg.Split > 0 {
		r.e.At(middle, func() { r.split(machine.Duration(r.cfg.Split.Microseconds())) })
	}
	if r.cfg.Kill > 0 {
		r.e.At(middle, func() {
			r.e.Faults.Add(FaultMassKill)
			r.check.upset(r.e.Now())
			for n := Ref(1); int(n) < len(r.peers); n++ {
				if (r.e.Alive(n) || r.peers[n].absent) && chance(r.rnd.fault, int64(r.cfg.Kill*million)) &&
					!r.peers[n].absent && r.parts.fault(Episode{Kind: "kill", N: int(n)}) {
					r.crash(n)
				}
			}
		})
	}
	if r.cfg.Flash > 0 {
		r.e.At(middle, func() {
			r.check.upset(r.e.Now())
			for range int(r.cfg.Flash * float64(r.cfg.Nodes)) {
				r.e.Faults.Add(FaultJoin)
				r.addNode()
			}
		})
	}
	if r.cfg.Freeze > 0 {
		r.scheduleFreeze()
	}
}

// startLinkFaults begins what happens to messages for the whole of the run.
func (r *overlayRun) startLinkFaults() {
	var f LinkFaults
	if r.cfg.Loss > 0 && r.parts.lasting("loss") {
		f.Loss = int64(r.cfg.Loss * million)
	}
	if r.cfg.Spikes > 0 && r.parts.lasting("spike") {
		f.Spike = int64(r.cfg.Spikes * million)
	}
	r.e.SetLinkFaults(f)
}

func (r *overlayRun) split(d machine.Duration) {
	for n := Ref(1); int(n) < len(r.peers); n++ {
		r.e.SetGroup(n, uint8(r.rnd.fault.IntN(2)))
	}
	if !r.parts.episode("split") {
		return
	}
	r.e.Faults.Add(FaultSplit)
	r.check.upset(r.e.Now().Add(d))
	r.e.Cut(0, 1)
	r.e.Cut(1, 0)
	r.e.After(d, func() {
		r.check.healing()
		r.e.Heal()
	})
}

func (r *overlayRun) scheduleFreeze() {
	mean := machine.Duration(float64(machine.Hour) / r.cfg.Freeze / float64(r.cfg.Nodes))
	r.e.After(max(1, expDuration(r.rnd.fault, mean)), func() {
		if !r.measuring {
			return
		}
		if r.ring.len() > 0 {
			n := r.ring.at[r.rnd.fault.IntN(r.ring.len())].n
			until := r.e.Now().Add(machine.Second + machine.Duration(r.rnd.fault.Int64N(int64(39*machine.Second))))
			if r.parts.episode("freeze") {
				r.e.Faults.Add(FaultFreeze)
				r.e.Freeze(n, until)
				r.check.upset(until)
				r.peers[n].unsettled = until.Add(machine.Minute)
			}
		}
		r.scheduleFreeze()
	})
}
