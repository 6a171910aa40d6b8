package node

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// Workers of a disk. Many batches at once are what lets the store group its
// commits; a shard keeps the order of what concerns one GUID.
const (
	storeShards = 32
	loadWorkers = 4
)

// disk performs Store and Load effects against a store.Store.
type disk struct {
	st       store.Store
	complete func(machine.Event)
	shards   [storeShards]*workQueue
	loads    *workQueue
	wg       sync.WaitGroup
	cancel   context.CancelFunc
}

func newDisk(st store.Store, complete func(machine.Event)) *disk {
	ctx, cancel := context.WithCancel(context.Background())
	d := &disk{st: st, complete: complete, loads: newWorkQueue(), cancel: cancel}
	for i := range d.shards {
		d.shards[i] = newWorkQueue()
		d.wg.Add(1)
		go d.apply(ctx, d.shards[i])
	}
	for range loadWorkers {
		d.wg.Add(1)
		go d.fetch(ctx)
	}
	return d
}

// close waits for batches already queued, then ends the workers. The store
// stays open.
func (d *disk) close() {
	for _, q := range d.shards {
		q.close()
	}
	d.loads.close()
	d.wg.Wait()
	d.cancel()
}

func (d *disk) store(e machine.Effect) {
	d.shards[shardOf(e.Shard)].push(e)
}

func shardOf(g id.GUID) int { return int(binary.BigEndian.Uint32(g[4:8]) % storeShards) }

func (d *disk) load(e machine.Effect) { d.loads.push(e) }

func (d *disk) apply(ctx context.Context, q *workQueue) {
	defer d.wg.Done()
	for {
		e, ok := q.pop()
		if !ok {
			return
		}
		err := d.st.Apply(ctx, e.Body.(store.Batch))
		d.complete(machine.Event{Kind: machine.Done, ID: e.ID, Err: err})
	}
}

func (d *disk) fetch(ctx context.Context) {
	defer d.wg.Done()
	for {
		e, ok := d.loads.pop()
		if !ok {
			return
		}
		keys := e.Body.([]store.Key)
		values := make([][]byte, len(keys))
		var failed error
		for i, k := range keys {
			v, err := d.st.Get(ctx, k)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				failed = err
				break
			}
			values[i] = v
		}
		d.complete(machine.Event{Kind: machine.Done, ID: e.ID, Body: values, Err: failed})
	}
}

// workQueue is an unbounded queue of effects; the machine bounds how many it
// has in flight.
type workQueue struct {
	mu     sync.Mutex
	filled *sync.Cond
	items  []machine.Effect
	closed bool
}

func newWorkQueue() *workQueue {
	q := &workQueue{}
	q.filled = sync.NewCond(&q.mu)
	return q
}

func (q *workQueue) push(e machine.Effect) {
	q.mu.Lock()
	q.items = append(q.items, e)
	q.mu.Unlock()
	q.filled.Signal()
}

func (q *workQueue) pop() (machine.Effect, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		if q.closed {
			return machine.Effect{}, false
		}
		q.filled.Wait()
	}
	e := q.items[0]
	q.items[0] = machine.Effect{}
	q.items = q.items[1:]
	return e, true
}

func (q *workQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.filled.Broadcast()
}
