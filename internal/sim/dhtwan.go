package sim

import (
	"context"
	"io"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
)

// What the reads of dht-wan are to take, in round trips to the nearest replica.
const (
	wanTargetP50 = 1.2
	wanTargetP95 = 1.5
)

// wanBlock is the size of the blocks: DHash++'s. In the simulated network it
// takes no longer than a small message; one above 32 KiB takes half a round trip
// more, whoever sends it.
const wanBlock = 8 << 10

// WANResult is how long blocks take to come in a wide network.
type WANResult struct {
	Measured
	Nodes    int  `json:"nodes"`
	Blocks   int  `json:"blocks"`
	Reads    int  `json:"reads"`
	Stretch  Dist `json:"get_over_rtt"` // from Located to the block, over the round trip to the nearest replica
	Near     Dist `json:"get_over_rtt_known"`
	Far      Dist `json:"get_over_rtt_unknown"`
	GetMS    Dist `json:"get_ms"`
	LocateMS Dist `json:"locate_ms"` // of the reads that had to ask
	RTTMS    Dist `json:"nearest_rtt_ms"`
	Nearest  Rate `json:"asked_nearest_first"`
	Known    Rate `json:"nearest_rtt_known"` // when the read began
}

// read of the scenario, the only one under way.
type wanRead struct {
	op      *dhtOp
	rtt     machine.Duration // to the nearest replica
	nearest map[Ref]bool     // those within 1 ms of it
	known   bool
	located machine.Time
	first   Ref // asked first
}

// Kinds of the dht's messages that a read is timed by (dht/message.go).
const (
	kindLocated = 65
	kindGet     = 70
)

// RunWAN reads blocks one at a time, each at a random node that does not hold
// it, in a pool on a sphere.
func RunWAN(ctx context.Context, seed uint64, o Options, progress func(Progress)) (*WANResult, error) {
	began := time.Now()
	res := &WANResult{Measured: newMeasured("dht-wan", seed, o), Nodes: 100, Blocks: 1000, Reads: 5000}
	if o.Quick {
		res.Nodes, res.Blocks, res.Reads = 80, 100, 400
	}
	r, err := calmPool(ctx, seed, o, res.Nodes, Sphere, pastry.WAN(), dht.LAN(), progress)
	if err != nil {
		return nil, err
	}
	r.load(res.Blocks, wanBlock, 200*machine.Millisecond)
	r.pass("settle", 15*machine.Minute)
	var stretch, near, far, get, locate, rtt []float64
	var nearest, known int64
	var now *wanRead
	r.e.cfg.OnMessage = chain(r.e.cfg.OnMessage, func(from, to Ref, m machine.Message) {
		switch {
		case now == nil:
		case m.Kind() == kindLocated && to == now.op.node && now.located == 0:
			now.located = r.e.Now()
		case m.Kind() == kindGet && from == now.op.node && now.first == World:
			now.first = to
		}
	})
	r.onReply(func(op *dhtOp, err error) {
		if now == nil || op != now.op {
			return
		}
		d := now
		now = nil
		if err != nil {
			return
		}
		took := r.e.Now().Sub(max(op.asked, d.located))
		if d.located > 0 {
			locate = append(locate, float64(d.located.Sub(op.asked))/1e3)
		}
		ratio := float64(took) / float64(d.rtt)
		stretch = append(stretch, ratio)
		get, rtt = append(get, float64(took)/1e3), append(rtt, float64(d.rtt)/1e3)
		if d.nearest[d.first] {
			nearest++
		}
		if d.known {
			known++
			near = append(near, ratio)
		} else {
			far = append(far, ratio)
		}
	})
	for i := range res.Reads {
		r.e.After(machine.Duration(i)*500*machine.Millisecond, func() {
			if n := r.pickReady(r.rnd.op); n != World && now == nil {
				b := r.set.order[r.rnd.op.IntN(len(r.set.order))]
				if d := r.farRead(n, b); d != nil {
					now = d
				}
			}
		})
	}
	r.pass("read", machine.Duration(res.Reads)*500*machine.Millisecond+machine.Minute)
	res.Reads = len(stretch)
	res.Stretch, res.Near, res.Far = dist(stretch), dist(near), dist(far)
	res.GetMS, res.LocateMS, res.RTTMS = dist(get), dist(locate), dist(rtt)
	res.Nearest, res.Known = rate(nearest, int64(res.Reads)), rate(known, int64(res.Reads))
	res.Reached = res.Reads > 0 && res.Stretch.P50 <= wanTargetP50 && res.Stretch.P95 <= wanTargetP95
	res.add(r)
	res.RealS = time.Since(began).Seconds()
	return res, nil
}

// farRead asks for b at n, unless n has it.
func (r *dhtRun) farRead(n Ref, b *blockModel) *wanRead {
	if b.disks[n] || len(b.disks) == 0 {
		return nil
	}
	d := &wanRead{rtt: machine.Hour, nearest: make(map[Ref]bool)}
	for m := range b.disks {
		d.rtt = min(d.rtt, 2*r.e.Direct(n, m))
	}
	for m := range b.disks {
		if 2*r.e.Direct(n, m) <= d.rtt+machine.Millisecond {
			d.nearest[m] = true
			d.known = d.known || r.peers[n].node.Ring().RTT(r.e.Handle(m).GUID) > 0
		}
	}
	r.get(n, b, nil)
	d.op = r.ops[r.nextOp]
	return d
}

// chain calls both hooks; the first may be nil.
func chain(f, g func(from, to Ref, m machine.Message)) func(from, to Ref, m machine.Message) {
	if f == nil {
		return g
	}
	return func(from, to Ref, m machine.Message) {
		f(from, to, m)
		g(from, to, m)
	}
}

// Print writes the result as a table for people.
func (r *WANResult) Print(out io.Writer) {
	r.table(out, func(row func(string, string, ...any)) {
		row("run", "%d nodes on a sphere (up to 300 ms of round trip), %d blocks of %d KiB, k = 3, seed %d", r.Nodes, r.Blocks, wanBlock>>10, r.Seed)
		row("reads", "%d, one at a time, at nodes that do not hold the block", r.Reads)
		row("block get after Locate", "p50 %.2f, p95 %.2f round trips to the nearest replica", r.Stretch.P50, r.Stretch.P95)
		row("  target", "p50 %.1f, p95 %.1f: %s", wanTargetP50, wanTargetP95, target(r.Reached))
		row("  nearest known", "p50 %.2f, p95 %.2f in %d reads that had measured the way to it", r.Near.P50, r.Near.P95, r.Near.N)
		row("  nearest not known", "p50 %.2f, p95 %.2f in %d", r.Far.P50, r.Far.P95, r.Far.N)
		row("  nearest asked first", "%.1f %%", 100*r.Nearest.Rate)
		row("  in ms", "p50 %.0f, p95 %.0f; round trip to the nearest p50 %.0f, p95 %.0f", r.GetMS.P50, r.GetMS.P95, r.RTTMS.P50, r.RTTMS.P95)
		row("Locate", "%d of them asked first: p50 %.0f, p95 %.0f ms", r.LocateMS.N, r.LocateMS.P50, r.LocateMS.P95)
	})
}

var _ Report = (*WANResult)(nil)
