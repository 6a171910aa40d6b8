package files

import (
	"context"
	"sync"

	"atoll.example/atoll/internal/seal"
)

// places is how many chunks all transfers of a client hold at once, beside one that
// each may hold by itself. Chosen by us: one transfer alone does not come to it, and
// of 64 at once, each with a chunk of 1 MiB as plaintext and as block, 200 MiB are
// the most.
const places = 32

// zeros is a chunk of them. Nobody writes to it, so it takes no memory.
var zeros [seal.MaxPlain]byte

// share is what one transfer holds of the places.
type share struct {
	all chan struct{} // of the client: places
	own chan struct{} // of this transfer: one

	mu   sync.Mutex // guards held
	held int        // of all
}

func (c *Client) newShare() *share {
	return &share{all: c.places, own: make(chan struct{}, 1)}
}

// enter waits for a place for a chunk. Whoever holds one waits for nothing but the
// pool and the transfer's own end, and each transfer has one: none waits for ever
// for others that are stuck.
func (s *share) enter(ctx context.Context) error {
	select {
	case s.own <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.own <- struct{}{}:
		return nil
	case s.all <- struct{}{}:
		s.mu.Lock()
		s.held++
		s.mu.Unlock()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives one place back, those that others wait for before the own.
func (s *share) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held > 0 {
		s.held--
		<-s.all
		return
	}
	<-s.own
}

// close gives back what a transfer that was cut short still holds of all.
func (s *share) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.held > 0; s.held-- {
		<-s.all
	}
}
