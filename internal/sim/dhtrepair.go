package sim

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
)

// The trace of dht-repair. How long a node is away is PlanetLab's, as Carbonite
// has it (Chun et al., NSDI 2006, recalled): a median of 1,208 s, a tenth over
// 14,242 s; the log-normal distribution of these two stands for it. There a host
// was away about once in eleven days, and one failure in 98 cost its disk: here
// it is twice a day and one in 40, so that a day shows both.
const (
	carboniteShare = 0.5 // of the bytes of a system that copies at each timeout and drops
	repairTarget   = 0.5 // of those of our own eager mode, at most

	awayMedian    = 1208 // s
	awayDeviation = 2777 // in thousandths of an octave
	awayLeast     = 30   // s
	awayMost      = 8 * 3600
	awayPerDay    = 2 // failures of a node
	lostOf        = 40
	replacedAfter = machine.Hour // a new node comes for one whose disk died, which is revoked
)

// departure is one line of the trace: the node that a slot holds then is away
// for a while, or for ever.
type departure struct {
	at, away machine.Duration
	slot     int
	lost     bool
}

// RepairRun is what one mode did with the trace.
type RepairRun struct {
	GraceS     float64 `json:"grace_s"`
	Bytes      int64   `json:"repair_bytes"` // of blocks that came to disks after they had been put
	Copies     int64   `json:"repair_copies"`
	ToNew      int64   `json:"bytes_to_new_nodes"` // of these, on nodes that took a dead one's place
	LostBytes  int64   `json:"bytes_on_lost_disks"`
	OfAbsent   int64   `json:"bytes_of_absent"`  // of blocks in whose set a node was that went away, each time
	PerBlock   float64 `json:"copies_per_block"` // at the end
	Reads      int64   `json:"reads"`
	Unanswered int64   `json:"reads_unanswered"` // unavailable: all copies were away
	LeastW     int     `json:"fewest_copies"`    // on disks, of any block, at any time
}

// RepairResult compares lazy with eager repair.
type RepairResult struct {
	Measured
	Nodes  int       `json:"nodes"`
	Blocks int       `json:"blocks"`
	Hours  float64   `json:"hours"`
	Away   int       `json:"transient_failures"`
	Longer int       `json:"longer_than_grace"`
	Dead   int       `json:"permanent_failures"`
	Lazy   RepairRun `json:"lazy"`
	Eager  RepairRun `json:"eager"`
	Share  float64   `json:"lazy_over_eager"`
	Forget float64   `json:"lazy_over_forgetful"` // over one that copies at each absence and knows nobody again
}

const repairBlock = 8 << 10

// RunRepair plays one trace of failures to a pool that waits for nodes to
// return, and to one that copies at once.
func RunRepair(ctx context.Context, seed uint64, o Options, progress func(Progress)) (*RepairResult, error) {
	began := time.Now()
	res := &RepairResult{Measured: newMeasured("dht-repair", seed, o), Nodes: 40, Blocks: 2000, Hours: 36}
	if o.Quick {
		res.Nodes, res.Blocks, res.Hours = 20, 200, 8
	}
	trace := res.trace(seed)
	for _, mode := range []struct {
		run   *RepairRun
		grace machine.Duration
	}{{&res.Lazy, dht.LAN().Grace}, {&res.Eager, 0}} {
		if err := res.play(ctx, seed, o, mode.run, mode.grace, trace, progress); err != nil {
			return nil, err
		}
	}
	if res.Eager.Bytes > 0 {
		res.Share = float64(res.Lazy.Bytes) / float64(res.Eager.Bytes)
		res.Forget = float64(res.Lazy.Bytes) / float64(max(1, res.Lazy.OfAbsent))
	}
	res.Reached = res.Eager.Bytes > 0 && res.Share <= repairTarget
	res.RealS = time.Since(began).Seconds()
	return res, nil
}

// trace draws the failures: all nodes are back by its end.
func (r *RepairResult) trace(seed uint64) (trace []departure) {
	rnd := New(Config{Seed: seed}).Rand("trace")
	end := machine.Duration(r.Hours * float64(machine.Hour))
	back := make([]machine.Duration, r.Nodes)
	gap := 24 * machine.Hour / machine.Duration(awayPerDay*r.Nodes)
	for at := expDuration(rnd, gap); at < end; at += expDuration(rnd, gap) {
		d := departure{at: at, slot: rnd.IntN(r.Nodes), lost: rnd.IntN(lostOf) == 0}
		d.away = machine.Duration(max(awayLeast, logNormal(rnd, awayMedian, awayDeviation, awayMost))) * machine.Second
		if d.lost {
			d.away = replacedAfter
		}
		d.away = min(d.away, end-at)
		if at < back[d.slot] {
			continue // away already
		}
		back[d.slot] = at + d.away
		trace = append(trace, d)
		switch {
		case d.lost:
			r.Dead++
		default:
			r.Away++
			if d.away > dht.LAN().Grace {
				r.Longer++
			}
		}
	}
	return trace
}

// play runs one mode.
func (r *RepairResult) play(ctx context.Context, seed uint64, o Options, run *RepairRun, grace machine.Duration, trace []departure, progress func(Progress)) error {
	run.GraceS = float64(grace) / float64(machine.Second)
	c := dht.LAN()
	c.Grace = grace
	p, err := calmPool(ctx, seed, o, r.Nodes, LAN, pastry.LAN(), c, progress)
	if err != nil {
		return err
	}
	p.load(r.Blocks, repairBlock, 100*machine.Millisecond)
	run.LeastW = p.cfg.K
	p.set.moved = func(b *blockModel, by int) {
		if by > 0 {
			run.Copies++
			run.Bytes += int64(len(b.bytes))
		}
		run.LeastW = min(run.LeastW, len(b.disks))
	}
	slots := make([]Ref, r.Nodes)
	for i := range slots {
		slots[i] = Ref(i + 1)
	}
	for _, d := range trace {
		p.e.After(d.at, func() { p.depart(slots, d, run) })
	}
	p.onReply(func(op *dhtOp, err error) {
		if op.kind == opGet && op.final == nil {
			run.Reads++
			if err != nil {
				run.Unanswered++
			}
		}
	})
	p.readOften(10 * machine.Second)
	p.pass("churn", machine.Duration(r.Hours*float64(machine.Hour)))
	p.phase = "settle"
	p.whole(2 * machine.Hour)
	for n := r.Nodes + 1; n < len(p.peers); n++ {
		run.ToNew += p.e.diskOf(Ref(n)).blocks * repairBlock
	}
	copies := 0
	for _, b := range p.set.order {
		copies += len(b.disks)
	}
	run.PerBlock = float64(copies) / float64(max(1, len(p.set.order)))
	p.readAll(5 * machine.Millisecond)
	r.add(p)
	return nil
}

// depart takes the node of a slot away and brings it back, or another in its
// place.
func (r *dhtRun) depart(slots []Ref, d departure, run *RepairRun) {
	n := slots[d.slot]
	p := &r.peers[n]
	if p.state != running {
		r.fail("trace", fmt.Sprintf("%s is not there to leave", r.name(n)))
		return
	}
	for _, b := range r.set.order {
		if slices.Contains(r.nearest(b.guid, r.cfg.K), r.e.Handle(n).GUID) {
			run.OfAbsent += int64(len(b.bytes))
		}
	}
	if d.lost {
		r.e.Faults.Add(FaultDestroyed)
		for _, k := range r.e.diskOf(n).keys('b') {
			run.LostBytes += int64(len(r.e.diskOf(n).data[k]))
		}
		r.wipe(n)
	}
	r.e.Faults.Add(FaultCrash)
	r.e.Crash(n)
	p.node, p.state = nil, crashed
	if !d.lost {
		r.e.After(d.away, func() { r.restart(n) })
		return
	}
	p.state = dead
	r.e.After(d.away, func() {
		r.revoke(n)
		slots[d.slot] = r.addNode()
	})
}

// readOften reads a block somewhere, again and again, while nodes come and go.
func (r *dhtRun) readOften(gap machine.Duration) {
	r.e.After(expDuration(r.rnd.op, gap), func() {
		if r.phase != "churn" && r.phase != "load" {
			return
		}
		if n := r.pickReady(r.rnd.op); n != World {
			r.get(n, r.set.order[r.rnd.op.IntN(len(r.set.order))], nil)
		}
		r.readOften(gap)
	})
}

// Print writes the result as a table for people.
func (r *RepairResult) Print(out io.Writer) {
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	r.table(out, func(row func(string, string, ...any)) {
		row("run", "%d nodes, %d blocks of %d KiB, k = 3, the same %.0f h of failures twice, seed %d", r.Nodes, r.Blocks, repairBlock>>10, r.Hours, r.Seed)
		row("trace", "%d absences (median %d s, a tenth over 4 h, at most %d h), %d of them longer than the grace; %d disks lost for ever",
			r.Away, awayMedian, awayMost/3600, r.Longer, r.Dead)
		for _, m := range []struct {
			name string
			run  *RepairRun
		}{{"lazy", &r.Lazy}, {"eager", &r.Eager}} {
			row(m.name, "grace %.0f s: %.1f MiB copied, %.1f of them to new nodes; %.2f copies a block at the end, never under %d; %d of %d reads unanswered",
				m.run.GraceS, mib(m.run.Bytes), mib(m.run.ToNew), m.run.PerBlock, m.run.LeastW, m.run.Unanswered, m.run.Reads)
		}
		row("  on the lost disks", "%.1f MiB: what one who knew the future would copy", mib(r.Lazy.LostBytes))
		row("lazy over eager", "%.2f, at most %.1f is the target: %s", r.Share, repairTarget, target(r.Reached))
		row("lazy over forgetful", "%.2f of the %.1f MiB that are copied if no copy counts again after an absence; Carbonite about %.1f",
			r.Forget, mib(r.Lazy.OfAbsent), carboniteShare)
	})
}

var _ Report = (*RepairResult)(nil)
