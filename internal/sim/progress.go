package sim

import (
	"time"

	"atoll.example/atoll/internal/machine"
)

// Progress is told about twice a real second.
type Progress struct {
	Phase      string
	At, End    time.Duration // virtual time, and where the phase ends; 0: not of one run, or not known
	Nodes      int           // ready nodes
	Real       time.Duration // since the run began
	EventsPerS float64       // in this phase so far
	Memory     uint64        // bytes the process holds
	Left       time.Duration // real time until the phase ends at this speed; 0: not known
}

// teller tells how far a run is.
type teller struct {
	progress func(Progress) // may be nil
	began    time.Time
	told     time.Time

	phase  string
	since  time.Time // when the phase was first seen
	from   machine.Time
	events uint64 // before
}

func newTeller(progress func(Progress)) teller { return teller{progress: progress, began: time.Now()} }

// tell is called often; end is where the phase ends, 0 if that is not known.
func (t *teller) tell(e *Engine, phase string, nodes int, end machine.Time) {
	if t.progress == nil {
		return
	}
	now := time.Now()
	if phase != t.phase {
		t.phase, t.since, t.from, t.events = phase, now, e.Now(), e.Events
	}
	if now.Sub(t.told) < 500*time.Millisecond {
		return
	}
	t.told = now
	p := Progress{
		Phase: phase, At: virtual(e.Now()), End: virtual(end), Nodes: nodes,
		Real: now.Sub(t.began), Memory: processMemory(),
	}
	if took := now.Sub(t.since); took > 0 {
		p.EventsPerS = float64(e.Events-t.events) / took.Seconds()
		if done := e.Now().Sub(t.from); done > 0 && end > e.Now() {
			p.Left = time.Duration(float64(took) / float64(done) * float64(end.Sub(e.Now())))
		}
	}
	t.progress(p)
}

func virtual(t machine.Time) time.Duration { return time.Duration(t) * time.Microsecond }
