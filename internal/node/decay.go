package node

import (
	"log/slog"
	"sync"
	"time"
)

// decay counts the blocks that this node's disk gave back damaged or not at all.
type decay struct {
	mu    sync.Mutex
	count int64
	since time.Time // when the first was found
}

// found counts one more and warns of the 1st, 10th, 100th and so on.
func (d *decay) found(log *slog.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.count++; d.count == 1 {
		d.since = time.Now()
	}
	loud := d.count
	for loud%10 == 0 {
		loud /= 10
	}
	if loud == 1 {
		log.Warn("blocks on this disk fail their check: check the disk (dmesg, smartctl); the copies are fetched anew from other members",
			"blocks", d.count, "since", d.since.UTC().Format(time.DateTime))
	}
}

// BadBlocks is how many blocks the node has found damaged or missing on its disk
// since it started, and when the first of them.
func (n *Node) BadBlocks() (count int64, since time.Time) {
	n.decay.mu.Lock()
	defer n.decay.mu.Unlock()
	return n.decay.count, n.decay.since
}
