package api

import (
	"context"
	"sync"
	"sync/atomic"
)

// Hub passes trace events from a node to whoever watches: what Node.Events is
// made of. Publish never blocks; a watcher too slow for its queue of 1,024
// loses events, which are counted. The zero Hub is ready.
type Hub struct {
	mu       sync.Mutex // guards watchers
	watchers map[*watcher]struct{}
	watched  atomic.Int32
	dropped  atomic.Int64
}

type watcher struct{ queue chan TraceEvent }

const hubQueue = 1024

// Watched reports whether anybody would see a published event: publishers may
// spare themselves the work of making one.
func (h *Hub) Watched() bool { return h.watched.Load() > 0 }

// Dropped counts events that a watcher was too slow for.
func (h *Hub) Dropped() int64 { return h.dropped.Load() }

// Publish passes ev on.
func (h *Hub) Publish(ev TraceEvent) {
	if !h.Watched() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		select {
		case w.queue <- ev:
		default:
			h.dropped.Add(1)
		}
	}
}

// Watch calls emit for each event from now on, until ctx is done or emit fails.
func (h *Hub) Watch(ctx context.Context, emit func(TraceEvent) error) error {
	w := &watcher{queue: make(chan TraceEvent, hubQueue)}
	h.mu.Lock()
	if h.watchers == nil {
		h.watchers = make(map[*watcher]struct{})
	}
	h.watchers[w] = struct{}{}
	h.mu.Unlock()
	h.watched.Add(1)
	defer func() {
		h.watched.Add(-1)
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-w.queue:
			if err := emit(ev); err != nil {
				return err
			}
		}
	}
}
