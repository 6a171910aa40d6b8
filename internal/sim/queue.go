package sim

import (
	"math/bits"

	"atoll.example/atoll/internal/machine"
)

// Shape of the timing wheel (10-overlay §6): 4,096 buckets of 1 ms, a small
// heap in the bucket that is being emptied, and one heap for what is due later
// than the wheel reaches.
const (
	wheelSize = 4096
	wheelTick = int64(machine.Millisecond)
)

// item is the key of an event: pointer-free, so that sifting it costs the
// garbage collector nothing. Events are ordered by (at, dst, src, seq), an
// order that no insertion history can change.
type item struct {
	at   int64 // µs
	seq  uint64
	dst  Ref
	src  Ref
	slot uint32 // where the queue keeps the event itself
}

func (a *item) less(b *item) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	if a.dst != b.dst {
		return a.dst < b.dst
	}
	if a.src != b.src {
		return a.src < b.src
	}
	return a.seq < b.seq
}

// queue is the event queue: push in any order not before the last pop, pop in
// order. The zero queue is empty at time 0.
type queue struct {
	cur    []item // heap: the bucket of tick `tick`
	tick   int64  // every event of earlier ticks has been popped
	wheel  [wheelSize][]item
	filled [wheelSize / 64]uint64 // bit per bucket of the wheel
	far    []item                 // heap: ticks ≥ tick + wheelSize
	n      int

	slab []event
	free []uint32
}

// Len returns the number of queued events.
func (q *queue) Len() int { return q.n }

func (q *queue) push(it item, ev event) {
	if k := len(q.free); k > 0 {
		it.slot = q.free[k-1]
		q.free = q.free[:k-1]
		q.slab[it.slot] = ev
	} else {
		it.slot = uint32(len(q.slab))
		q.slab = append(q.slab, ev)
	}
	q.n++
	q.place(it)
}

func (q *queue) place(it item) {
	t := it.at / wheelTick
	switch {
	case t <= q.tick:
		heapPush(&q.cur, it)
	case t < q.tick+wheelSize:
		b := t % wheelSize
		q.wheel[b] = append(q.wheel[b], it)
		q.filled[b/64] |= 1 << (b % 64)
	default:
		heapPush(&q.far, it)
	}
}

// peek returns the time of the next event, Never if there is none.
func (q *queue) peek() machine.Time {
	for len(q.cur) == 0 {
		if !q.advance() {
			return machine.Never
		}
	}
	return machine.Time(q.cur[0].at)
}

// pop takes the next event. It must not be called on an empty queue.
func (q *queue) pop() (item, event) {
	q.peek()
	it := heapPop(&q.cur)
	ev := q.slab[it.slot]
	q.slab[it.slot] = event{}
	q.free = append(q.free, it.slot)
	q.n--
	return it, ev
}

// advance moves to the next tick that has events and makes its bucket the
// current heap.
func (q *queue) advance() bool {
	next := int64(-1)
	if b, ok := q.nextBucket(); ok {
		next = q.tick + (b-q.tick%wheelSize+wheelSize)%wheelSize
	}
	if len(q.far) > 0 {
		if t := q.far[0].at / wheelTick; next < 0 || t < next {
			next = t
		}
	}
	if next < 0 {
		return false
	}
	q.tick = next
	b := next % wheelSize
	q.cur, q.wheel[b] = q.wheel[b], q.cur[:0]
	q.filled[b/64] &^= 1 << (b % 64)
	for i := len(q.cur)/2 - 1; i >= 0; i-- {
		heapDown(q.cur, i)
	}
	for len(q.far) > 0 && q.far[0].at/wheelTick < q.tick+wheelSize {
		q.place(heapPop(&q.far))
	}
	return true
}

// nextBucket finds the first filled bucket at or after the current one, going
// round.
func (q *queue) nextBucket() (int64, bool) {
	const words = wheelSize / 64
	start := q.tick % wheelSize
	w := start / 64
	if m := q.filled[w] >> (start % 64) << (start % 64); m != 0 {
		return w*64 + int64(bits.TrailingZeros64(m)), true
	}
	for i := int64(1); i <= words; i++ {
		v := (w + i) % words
		if m := q.filled[v]; m != 0 {
			return v*64 + int64(bits.TrailingZeros64(m)), true
		}
	}
	return 0, false
}

func heapPush(h *[]item, it item) {
	s := append(*h, it)
	i := len(s) - 1
	for i > 0 {
		p := (i - 1) / 2
		if !s[i].less(&s[p]) {
			break
		}
		s[i], s[p] = s[p], s[i]
		i = p
	}
	*h = s
}

func heapPop(h *[]item) item {
	s := *h
	top := s[0]
	last := len(s) - 1
	s[0] = s[last]
	s = s[:last]
	heapDown(s, 0)
	*h = s
	return top
}

func heapDown(s []item, i int) {
	for {
		c := 2*i + 1
		if c >= len(s) {
			return
		}
		if c+1 < len(s) && s[c+1].less(&s[c]) {
			c++
		}
		if !s[c].less(&s[i]) {
			return
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
}
