package sim

import (
	"errors"
	"math/rand/v2"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// disk is a simulated store: what is on it survives a crash, what is pending
// may not. It keeps the promises of store.Store (a batch is whole or absent,
// batches of one shard are applied in order, an fsync error is final) and
// breaks everything else.
type disk struct {
	data    map[store.Key][]byte
	rotten  map[store.Key]bool
	pending []pendingBatch // in order of submission
	used    int64
	blocks  int64
	limit   int64 // 0: none
	faults  DiskFaults
	slow    machine.Time              // slow until
	changed func(g id.GUID, has bool) // a block came or went
	signed  func(g id.GUID, record []byte)
	failed  bool
}

type pendingBatch struct {
	id    uint64
	inc   uint32
	shard id.GUID
	batch store.Batch
	due   machine.Time
	fate  error
}

// DiskFaults are probabilities in ppm.
type DiskFaults struct {
	Fsync int64 // a batch's sync fails: the store stops for good
	Slow  int64 // the disk is 50 times slower for 2 s
	Torn  int64 // a crash leaves half a record, which recovery throws away
}

func newDisk() *disk {
	return &disk{data: make(map[store.Key][]byte), rotten: make(map[store.Key]bool)}
}

// delay is the time of one synced write or read: 0.3–3 ms.
func (d *disk) delay(now machine.Time, r *rand.Rand) machine.Duration {
	t := 300 + machine.Duration(r.Int64N(2700))
	if d.slow > now {
		t *= 50
	}
	return t
}

// readTime is when a Load submitted now completes.
func (d *disk) readTime(now machine.Time, r *rand.Rand) machine.Time {
	return now.Add(d.delay(now, r) / 4)
}

// submit queues a batch and returns when it will be durable, or the error with
// which it fails then.
func (d *disk) submit(op uint64, shard id.GUID, b store.Batch, inc uint32, now machine.Time, r *rand.Rand, fc *FaultCounts) (machine.Time, error) {
	if d.failed {
		return now, store.ErrFailed
	}
	if chance(r, d.faults.Slow) {
		fc.Add(FaultDiskSlow)
		d.slow = now.Add(2 * machine.Second)
	}
	due := now.Add(d.delay(now, r))
	for i := range d.pending {
		if d.pending[i].shard == shard {
			due = max(due, d.pending[i].due)
		}
	}
	p := pendingBatch{id: op, inc: inc, shard: shard, batch: b, due: due}
	switch {
	case chance(r, d.faults.Fsync):
		fc.Add(FaultFsync)
		d.failed, p.fate = true, store.ErrFailed
	case d.limit > 0 && !b.Urgent && d.used+d.growth(b) > d.limit-d.limit/20:
		fc.Add(FaultFull)
		p.fate = store.ErrFull
	}
	if !errors.Is(p.fate, store.ErrFull) {
		d.pending = append(d.pending, p)
	}
	return due, p.fate
}

func (d *disk) growth(b store.Batch) (n int64) {
	for _, op := range b.Ops {
		if !op.Delete {
			n += int64(len(op.Value)) - int64(len(d.data[op.Key]))
		}
	}
	return n
}

// finish applies the batch of a completed event; false: it had been lost.
func (d *disk) finish(ev *event, alive bool) bool {
	for i := range d.pending {
		if d.pending[i].id != ev.id || d.pending[i].inc != ev.inc {
			continue
		}
		p := d.pending[i]
		d.pending = slices.Delete(d.pending, i, i+1)
		if p.fate == nil {
			d.apply(p.batch)
		}
		return alive
	}
	return alive && ev.body != nil // refused at once: never pending
}

func (d *disk) apply(b store.Batch) {
	for _, op := range b.Ops {
		old, had := d.data[op.Key]
		if had {
			d.used -= int64(len(old))
			if op.Key.Family == store.Block {
				d.blocks--
			}
			delete(d.rotten, op.Key)
		}
		if d.changed != nil && op.Key.Family == store.Block {
			d.changed(op.Key.GUID, !op.Delete)
		}
		if op.Delete {
			delete(d.data, op.Key)
			continue
		}
		if d.signed != nil && op.Key.Family == store.Signed && op.Key.Sub == "" {
			d.signed(op.Key.GUID, op.Value)
		}
		d.data[op.Key] = op.Value
		d.used += int64(len(op.Value))
		if op.Key.Family == store.Block {
			d.blocks++
		}
	}
}

// crash decides what of the pending batches reached the platter: of each shard
// a prefix, as diskstore's logs are replayed in order.
func (d *disk) crash(r *rand.Rand, fc *FaultCounts) {
	ended := make(map[id.GUID]bool)
	for _, p := range d.pending {
		switch {
		case ended[p.shard]:
			fc.Add(FaultUnsyncedLost)
		case p.fate == nil && chance(r, d.faults.Torn):
			fc.Add(FaultTorn)
			ended[p.shard] = true
		case r.IntN(2) == 0:
			fc.Add(FaultUnsyncedLost)
			ended[p.shard] = true
		default:
			fc.Add(FaultUnsyncedKept)
			d.apply(p.batch)
		}
	}
	d.pending = d.pending[:0]
}

// get answers a Load as package node does: values up to the first that fails
// its checksum, nil for what is absent.
func (d *disk) get(keys []store.Key) ([][]byte, error) {
	values := make([][]byte, len(keys))
	if d.failed {
		return values, store.ErrFailed
	}
	for i, k := range keys {
		if d.rotten[k] {
			return values, store.ErrCorrupt
		}
		values[i] = d.data[k]
	}
	return values, nil
}

// keys lists what is on the disk, of one family (0: of all), in order.
func (d *disk) keys(fam store.Family) []store.Key {
	var ks []store.Key
	for k := range d.data {
		if fam == 0 || k.Family == fam {
			ks = append(ks, k)
		}
	}
	slices.SortFunc(ks, func(a, b store.Key) int {
		if a.Family != b.Family {
			return int(a.Family) - int(b.Family)
		}
		if c := a.GUID.Cmp(b.GUID); c != 0 {
			return c
		}
		switch {
		case a.Sub < b.Sub:
			return -1
		case a.Sub > b.Sub:
			return 1
		}
		return 0
	})
	return ks
}

// rot spoils one block of the disk, content or signed, if it has any.
func (d *disk) rot(r *rand.Rand, fc *FaultCounts) (store.Key, bool) {
	ks := d.keys(store.Block)
	if signed := d.keys(store.Signed); len(signed) > 0 && (len(ks) == 0 || r.IntN(2) == 0) {
		ks = signed
	}
	if len(ks) == 0 {
		return store.Key{}, false
	}
	k := ks[r.IntN(len(ks))]
	d.rotten[k] = true
	fc.Add(FaultBitRot)
	return k, true
}

// usage is what the node's machine sees of its disk.
func (d *disk) usage() store.Usage {
	limit := d.limit
	if limit == 0 {
		limit = 1 << 40
	}
	reserve := limit / 20
	return store.Usage{
		Limit: limit, Used: d.used, Reserve: reserve, Blocks: d.blocks,
		Free: max(0, limit-d.used-reserve),
	}
}
