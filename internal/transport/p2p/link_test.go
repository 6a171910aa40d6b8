package p2p

import (
	"sync"
	"testing"

	"atoll.example/atoll/internal/id"
)

// TestTurns: a peer goes back and forth between two links, and the frames of each
// wait for the end of the other's turn. The race detector watches.
func TestTurns(t *testing.T) {
	p := &remote{}
	var readers sync.WaitGroup
	for range 2 {
		l := &link{p: p, h: &id.Handle{}, done: make(chan struct{}), moved: make(chan struct{})}
		readers.Go(func() {
			for range 10_000 {
				if p.takeTurn(l) != l.h {
					t.Error("the frame is another link's")
				}
				p.mu.Lock()
				p.movedOn(l)
				p.mu.Unlock()
			}
		})
	}
	readers.Wait()
}
