package node

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"atoll.example/atoll/internal/trace"
)

// An observer too slow for its queue loses events, which are counted; the loop
// never waits.
func TestSlowObserver(t *testing.T) {
	n := &Node{loop: &loop{stop: make(chan struct{})}}
	n.observers.tell(trace.Event{Kind: "nobody looks"})
	ctx, cancel := context.WithCancel(t.Context())
	busy, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	seen := 0
	go func() {
		done <- n.Observe(ctx, func(trace.Event) error {
			if seen++; seen == 1 {
				close(busy)
				<-free
			}
			if seen == 1+observerQueue {
				cancel()
			}
			return nil
		})
	}()
	for !watched(n) {
		runtime.Gosched()
	}
	n.observers.tell(trace.Event{Kind: "the first"})
	<-busy
	for range 2 * observerQueue {
		n.observers.tell(trace.Event{Kind: "the rest"})
	}
	if got := n.observers.drops.Load(); got != observerQueue {
		t.Errorf("%d dropped", got)
	}
	close(free)
	if err := <-done; !errors.Is(err, context.Canceled) || seen != 1+observerQueue {
		t.Errorf("%d seen, %v", seen, err)
	}
	if watched(n) {
		t.Error("still watched")
	}
	if c := n.TraceCounts(); c["nobody looks"] != 1 || c["the rest"] != 2*observerQueue {
		t.Errorf("counted: %v", c)
	}
}

func watched(n *Node) bool {
	n.observers.mu.Lock()
	defer n.observers.mu.Unlock()
	return len(n.observers.all) > 0
}
