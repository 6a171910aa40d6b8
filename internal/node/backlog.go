package node

import (
	"sync"

	"atoll.example/atoll/internal/id"
)

// Bounds of the control frames that wait for the loop, in bytes, beside their
// number. Chosen by us: what a slow machine may hold of others' words, and a
// sixteenth of it for each, so that one member that floods waits by itself. A frame
// counts for a KiB more than it has: a member that sends small ones has at most a
// quarter of the queue.
const (
	backlogBytes = 16 << 20
	memberBytes  = 1 << 20
	frameCharge  = 1 << 10
)

// backlog counts the bytes of control frames that wait, in all and by member.
type backlog struct {
	mu     sync.Mutex
	room   sync.Cond // less waits than before, or closed
	total  int
	by     map[id.GUID]int
	closed bool
}

func newBacklog() *backlog {
	b := &backlog{by: make(map[id.GUID]int)}
	b.room.L = &b.mu
	return b
}

// enter waits until a frame of size bytes, at most transport.MaxControl, may wait for
// the loop; false: the loop has ended. An urgent one waits for those of its own
// member alone.
func (b *backlog) enter(from id.GUID, size int, urgent bool) bool {
	size += frameCharge
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && (!urgent && b.total+size > backlogBytes || b.by[from]+size > memberBytes) {
		b.room.Wait()
	}
	b.total += size
	b.by[from] += size
	return !b.closed
}

// leave takes out what entered.
func (b *backlog) leave(from id.GUID, size int) {
	size += frameCharge
	b.mu.Lock()
	b.total -= size
	if left := b.by[from] - size; left > 0 {
		b.by[from] = left
	} else {
		delete(b.by, from)
	}
	b.mu.Unlock()
	b.room.Broadcast()
}

// close frees those who wait.
func (b *backlog) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.room.Broadcast()
}
