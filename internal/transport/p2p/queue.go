package p2p

import "time"

// queue is a first-in first-out of frames, bounded by bytes by its user.
type queue struct {
	items []item
	head  int
	bytes int
}

type item struct {
	parts [][]byte
	size  int
	at    int64 // when it was queued, in ns since base
}

// base makes times fit an int64 and compare without a wall clock.
var base = time.Now()

func since() int64 { return int64(time.Since(base)) }

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(f item) {
	if q.head > 64 && q.head*2 > len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, f)
	q.bytes += f.size
}

func (q *queue) pop() item {
	f := q.items[q.head]
	q.items[q.head] = item{}
	q.head++
	q.bytes -= f.size
	if q.head == len(q.items) {
		q.head = 0
		if cap(q.items) > 1024 {
			q.items = nil
		} else {
			q.items = q.items[:0]
		}
	}
	return f
}

// expire drops frames queued before limit and returns how many and how large.
func (q *queue) expire(limit int64) (n, bytes int) {
	for q.len() > 0 && q.items[q.head].at < limit {
		bytes += q.pop().size
		n++
	}
	return n, bytes
}
