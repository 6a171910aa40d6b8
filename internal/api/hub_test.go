package api_test

import (
	"context"
	"errors"
	"testing"

	"atoll.example/atoll/internal/api"
)

// A watcher too slow for its queue loses events, which are counted; the
// publisher never waits.
func TestHubDrops(t *testing.T) {
	var h api.Hub
	h.Publish(api.TraceEvent{}) // nobody watches
	ctx, cancel := context.WithCancel(t.Context())
	busy, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	seen := 0
	go func() {
		done <- h.Watch(ctx, func(api.TraceEvent) error {
			if seen++; seen == 1 {
				close(busy)
				<-free
			}
			if seen == 1025 {
				cancel()
			}
			return nil
		})
	}()
	wait(t, h.Watched)
	h.Publish(api.TraceEvent{})
	<-busy
	for range 2000 {
		h.Publish(api.TraceEvent{})
	}
	if h.Dropped() != 2000-1024 {
		t.Errorf("%d dropped", h.Dropped())
	}
	close(free)
	if err := <-done; !errors.Is(err, context.Canceled) || seen != 1025 {
		t.Errorf("%d seen, %v", seen, err)
	}
	if h.Watched() {
		t.Error("still watched")
	}
}
