package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
)

// PAST's figures (Rowstron and Druschel, SOSP 2001, §5.1, recalled): 2,250
// nodes, k = 5, t_pri 0.1, t_div 0.05. Capacities are drawn from a truncated
// normal distribution (d1: mean 27 MB, deviation 10.8, 2 to 51), sizes are those
// of a web proxy's log (median 1,312 bytes, mean 10,517), which the log-normal
// distribution of that median and mean stands for here.
const (
	pastUtilised      = 95   // percent used, with under 5 % of the inserts failed
	pastPlainUtilised = 60.8 // without diversion
	pastPlainFailed   = 51.1

	fillMedian    = 1312
	fillDeviation = 2943 // in thousandths of an octave: ln(mean/median) = σ²/2
	fillMean      = 27_000_000
	fillDev       = 10_800_000
	fillLeast     = 2_000_000
	fillMost      = 51_000_000
)

// Our own: what dht-fill offers and aims at.
const (
	fillTarget   = 97  // percent used, with …
	fillFailing  = 5   // … under so many percent of the inserts failed
	fillOffered  = 150 // percent of the room, in bytes of all k copies
	fillSettle   = 1000
	fillBlock    = 1 << 20 // no block is larger
	maxDiversion = 3       // other names that a client tries, as package files
)

// FillPoint is how things stood when the disks were used to some percent.
type FillPoint struct {
	Used     float64 `json:"used"` // percent of the room
	Inserts  int64   `json:"inserts"`
	Failed   float64 `json:"failed"`         // percent of the inserts
	Renamed  float64 `json:"file_diverted"`  // percent of them acknowledged under another name
	OfLimits float64 `json:"used_of_limits"` // percent, the reserve included
}

// FillResult is how full a pool gets.
type FillResult struct {
	Measured
	Nodes    int         `json:"nodes"`
	Room     int64       `json:"room_bytes"` // of all disks, without the reserve
	Inserts  int64       `json:"inserts"`
	Failed   Rate        `json:"failed"`
	Points   []FillPoint `json:"points"`
	AtLimit  FillPoint   `json:"at_5_percent_failed"` // when 5 % of the inserts had failed; the end, if they never did
	AtTarget FillPoint   `json:"at_97_percent_used"`  // zero: never that full
	End      FillPoint   `json:"end"`
	Diverted int64       `json:"copies_diverted"`
	Copies   int64       `json:"copies"`
	Short    Rate        `json:"below_k"` // acknowledged blocks with fewer than k copies at the end
	Waste    float64     `json:"waste"`   // percent of the room taken by blocks that were refused, at the end
	SizeMean float64     `json:"mean_block_bytes"`
}

// fill is a run under way.
type fill struct {
	*dhtRun
	res     *FillResult
	sizes   map[*blockModel]int64
	acked   map[*blockModel]bool
	inserts map[*dhtOp]*insert
	stored  int64 // bytes of copies of acknowledged blocks
	others  int64 // of the other ones
	records int64 // bytes on all disks beside blocks, when they were added up last
	offered int64
	done    int64
	failed  int64
	renamed int64
}

// insert is one block on its way in.
type insert struct {
	block []byte
	node  Ref
	salt  byte
	given []*blockModel // names given up
}

// RunFill inserts blocks into a pool of unequal disks until half as much again
// has been offered as they have room for.
func RunFill(ctx context.Context, seed uint64, o Options, progress func(Progress)) (*FillResult, error) {
	began := time.Now()
	res := &FillResult{Measured: newMeasured("dht-fill", seed, o), Nodes: 64}
	share, rate := int64(2), machine.Duration(100) // capacities are half of PAST's, 10 inserts a second
	if o.Quick {
		res.Nodes, share = 40, 20
	}
	r, err := calmPool(ctx, seed, o, res.Nodes, LAN, pastry.LAN(), dht.LAN(), progress)
	if err != nil {
		return nil, err
	}
	f := &fill{
		dhtRun: r, res: res, sizes: make(map[*blockModel]int64), acked: make(map[*blockModel]bool),
		inserts: make(map[*dhtOp]*insert),
	}
	rnd := r.e.Rand("fill")
	for n := 1; n < len(r.peers); n++ {
		d := r.e.diskOf(Ref(n))
		d.limit = truncatedNormal(rnd, fillMean, fillDev, fillLeast, fillMost) / share
		res.Room += d.limit - d.limit/20
	}
	r.set.moved = func(b *blockModel, by int) { f.count(b, int64(by)) }
	r.onReply(f.answered)
	f.insertAll(rnd, rate*machine.Millisecond)
	r.pass("settle", 20*machine.Minute)
	f.end()
	r.readAll(2 * machine.Millisecond)
	res.add(r)
	res.RealS = time.Since(began).Seconds()
	return res, nil
}

// insertAll offers blocks, one every gap in the mean, until enough was offered.
func (f *fill) insertAll(rnd *rand.Rand, gap machine.Duration) {
	for f.offered*int64(f.cfg.K)*100 < f.res.Room*fillOffered && !f.over() {
		size := int(logNormal(rnd, fillMedian, fillDeviation, fillBlock))
		if n := f.pickReady(f.rnd.op); n != World {
			b := f.blockOf(size)
			f.offered += int64(len(b))
			f.res.Inserts++
			f.try(&insert{block: b, node: n})
		}
		f.pass("fill", max(1, expDuration(rnd, gap)))
	}
	f.pass("fill", machine.Minute)
}

// try puts a block under its next name.
func (f *fill) try(in *insert) {
	b := bytes.Clone(in.block)
	b[6] = in.salt
	f.put(in.node, b, ownerKey(0), f.newClaim())
	op := f.ops[f.nextOp]
	f.inserts[op] = in
	f.sizes[op.block] = int64(len(b))
	op.block.bytes = nil // they are in the command, and on the disks
}

// answered goes on with an insert: acknowledged, or refused as full and given
// another name, and so another place, up to three times.
func (f *fill) answered(op *dhtOp, err error) {
	in := f.inserts[op]
	if in == nil {
		return
	}
	delete(f.inserts, op)
	switch {
	case err == nil:
		f.count(op.block, -int64(len(op.block.disks)))
		f.acked[op.block] = true
		f.count(op.block, int64(len(op.block.disks)))
		if in.salt > 0 {
			f.renamed++
		}
	case errors.Is(err, dht.ErrFull):
		in.given = append(in.given, op.block)
		if in.salt < maxDiversion {
			in.salt++
			f.e.After(0, func() { f.try(in) })
			return
		}
		f.failed++
	default:
		f.failed++
	}
	f.done++
	f.look()
	if len(in.given) > 0 { // a refused put may have left copies: the client ends their claims
		f.e.After(0, func() {
			for _, b := range in.given {
				f.removeOp(in.node, b, b.claims[0])
			}
		})
	}
}

// count follows the copies of a block.
func (f *fill) count(b *blockModel, by int64) {
	if f.acked[b] {
		f.stored += by * f.sizes[b]
	} else {
		f.others += by * f.sizes[b]
	}
}

// at is how things stand.
func (f *fill) at() FillPoint {
	if f.records == 0 || f.done%64 == 0 {
		var used int64
		for n := 1; n < len(f.peers); n++ {
			used += f.e.diskOf(Ref(n)).used
		}
		f.records = used - f.stored - f.others
	}
	percent := func(v, of int64) float64 { return 100 * float64(v) / float64(max(1, of)) }
	return FillPoint{
		Used: percent(f.stored+f.records, f.res.Room), Inserts: f.done,
		Failed: percent(f.failed, f.done), Renamed: percent(f.renamed, f.done),
		OfLimits: percent(f.stored+f.records, f.res.Room*20/19),
	}
}

// look notes the points of interest that have been passed.
func (f *fill) look() {
	p := f.at()
	for _, limit := range []float64{50, 80, 90, 95, 97, 98, 99} {
		if n := len(f.res.Points); p.Used >= limit && (n == 0 || f.res.Points[n-1].Used < limit) {
			f.res.Points = append(f.res.Points, p)
			if limit == fillTarget {
				f.res.AtTarget = p
			}
		}
	}
	if f.done >= fillSettle && p.Failed >= fillFailing && f.res.AtLimit.Inserts == 0 {
		f.res.AtLimit = p
	}
}

// end adds up.
func (f *fill) end() {
	res := f.res
	res.End, res.Failed = f.at(), rate(f.failed, f.done)
	if res.AtLimit.Inserts == 0 {
		res.AtLimit = res.End
	}
	res.Reached = res.AtLimit.Used >= fillTarget
	res.Waste = 100 * float64(f.others) / float64(res.Room)
	res.SizeMean = float64(f.offered) / float64(max(1, res.Inserts))
	for n := 1; n < len(f.peers); n++ {
		if p := f.peers[n]; p.node != nil {
			res.Diverted += p.node.DHT().Stats().Diverted
		}
	}
	var short, all int64
	for _, b := range f.set.order {
		if !b.must() {
			continue
		}
		all++
		res.Copies += int64(len(b.disks))
		if len(b.disks) < f.cfg.K {
			short++
		}
		if len(b.disks) < f.set.w {
			f.fail("copies", "block "+b.guid.Short()+" was acknowledged and is on fewer than W disks")
		}
	}
	res.Short = rate(short, all)
}

// Print writes the result as a table for people.
func (r *FillResult) Print(out io.Writer) {
	r.table(out, func(row func(string, string, ...any)) {
		row("run", "%d nodes, k = 3, room for %.0f MB beside the reserve of 5 %%, seed %d", r.Nodes, float64(r.Room)/1e6, r.Seed)
		row("inserts", "%d blocks, %.0f bytes in the mean, one and a half times the room; %d failed (%.1f %%)", r.Inserts, r.SizeMean, r.Failed.Count, 100*r.Failed.Rate)
		row("used when 5 % had failed", "%.1f %% of the room (%.1f %% of the limits); PAST %d %%; without diversion it reached %.1f %%, %.1f %% failed",
			r.AtLimit.Used, r.AtLimit.OfLimits, pastUtilised, pastPlainUtilised, pastPlainFailed)
		if r.AtTarget.Inserts > 0 {
			row("failed at 97 % used", "%.2f %%", r.AtTarget.Failed)
		} else {
			row("failed at 97 % used", "never that full: %.1f %% at the end", r.End.Used)
		}
		row("  target", "%d %% used with under %d %% failed: %s", fillTarget, fillFailing, target(r.Reached))
		for _, p := range r.Points {
			row("  used", "%.0f %%: %.2f %% failed, %.1f %% under another name, of %d", p.Used, p.Failed, p.Renamed, p.Inserts)
		}
		row("copies", "%d, %.1f %% diverted; blocks with fewer than k: %.1f %%", r.Copies, 100*float64(r.Diverted)/float64(max(1, r.Copies)), 100*r.Short.Rate)
		row("left by refused inserts", "%.2f %% of the room", r.Waste)
	})
}

var _ Report = (*FillResult)(nil)
