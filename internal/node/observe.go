package node

import (
	"context"
	"sync"
	"sync/atomic"

	"atoll.example/atoll/internal/trace"
)

// observerQueue is how many trace events wait for a slow observer; more are
// dropped and counted.
const observerQueue = 1024

// observers pass on what the machine traces.
type observers struct {
	mu    sync.Mutex
	all   map[chan trace.Event]struct{}
	drops atomic.Int64
	kinds sync.Map // kind → *atomic.Int64, for metrics
}

// tell is called by the loop.
func (o *observers) tell(ev trace.Event) {
	n, ok := o.kinds.Load(ev.Kind)
	if !ok {
		n, _ = o.kinds.LoadOrStore(ev.Kind, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.all {
		select {
		case c <- ev:
		default:
			o.drops.Add(1)
		}
	}
}

// Observe calls f for each trace event from now on, until ctx ends or f fails.
func (n *Node) Observe(ctx context.Context, f func(trace.Event) error) error {
	c := make(chan trace.Event, observerQueue)
	n.observers.mu.Lock()
	if n.observers.all == nil {
		n.observers.all = make(map[chan trace.Event]struct{})
	}
	n.observers.all[c] = struct{}{}
	n.observers.mu.Unlock()
	defer func() {
		n.observers.mu.Lock()
		delete(n.observers.all, c)
		n.observers.mu.Unlock()
	}()
	for {
		select {
		case ev := <-c:
			if err := f(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-n.loop.stop:
			return errStopped
		}
	}
}

// TraceCounts are the numbers of trace events so far, by kind.
func (n *Node) TraceCounts() map[string]int64 {
	counts := make(map[string]int64)
	n.observers.kinds.Range(func(k, v any) bool {
		counts[k.(string)] = v.(*atomic.Int64).Load()
		return true
	})
	return counts
}
