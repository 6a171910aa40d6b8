package sim

import (
	"math/bits"

	"atoll.example/atoll/internal/machine"
)

// Shape of the queue: two timing wheels, a small heap for the bucket that is
// being emptied, and a heap for what is due later than the wheels reach. Every
// event so costs the same, however many are pending: 10-overlay §6 has one wheel
// of 1 ms ticks and a heap from 4 s on, where all heartbeats would lie.
const (
	tickBits   = 8  // a tick is 256 µs: about a thousand events of a million nodes
	wheelBits  = 12 // the fine wheel has the ticks of one turn, 1.05 s; the coarse one 4,096 turns, 72 min
	wheelSize  = 1 << wheelBits
	wheelWords = wheelSize / 64
)

// item is the key of an event: pointer-free, so that sifting it costs the
// garbage collector nothing. Events are ordered by (at, dst, src, seq), an
// order that no insertion history can change.
type item struct {
	at   int64 // µs
	seq  uint64
	dst  Ref
	src  Ref
	slot uint32 // of its record; in a record, that of the next in the bucket, 0: none
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

// record keeps an event while it is pending, and its key while that is in a
// wheel.
type record struct {
	item
	ev event
}

// wheel is buckets of records, each a list.
type wheel struct {
	head   [wheelSize]uint32 // 0: empty
	filled [wheelWords]uint64
}

// next returns the first filled bucket from b on.
func (w *wheel) next(b int64) (int64, bool) {
	if b >= wheelSize {
		return 0, false
	}
	i := b / 64
	if m := w.filled[i] >> (b % 64) << (b % 64); m != 0 {
		return i*64 + int64(bits.TrailingZeros64(m)), true
	}
	for i++; i < wheelWords; i++ {
		if m := w.filled[i]; m != 0 {
			return i*64 + int64(bits.TrailingZeros64(m)), true
		}
	}
	return 0, false
}

func (w *wheel) take(b int64) (head uint32) {
	head, w.head[b] = w.head[b], 0
	w.filled[b/64] &^= 1 << (b % 64)
	return head
}

// pageSize is how many records are allocated at a time: a slice of all would
// be copied as it grows, and stand half empty.
const pageSize = 1 << 12

// queue is the event queue: push in any order not before the last pop, pop in
// order. The zero queue is empty at time 0.
type queue struct {
	cur    []item // heap: what is due up to tick's end
	tick   int64  // every event of earlier ticks has been popped
	fine   wheel  // later ticks of tick's turn
	coarse wheel  // later turns, up to wheelSize ahead
	far    []item // heap: turns after that
	n      int

	pages []*[pageSize]record // the first record stands for none
	free  uint32              // list of free records
	used  uint32              // records from here on were never used
}

// Len returns the number of queued events.
func (q *queue) Len() int { return q.n }

func (q *queue) at(slot uint32) *record { return &q.pages[slot/pageSize][slot%pageSize] }

func (q *queue) push(it item, ev event) {
	if q.free != 0 {
		it.slot = q.free
		q.free = q.at(it.slot).slot
	} else {
		if q.used++; q.used >= uint32(len(q.pages))*pageSize {
			q.pages = append(q.pages, new([pageSize]record))
		}
		it.slot = q.used
	}
	q.at(it.slot).ev = ev
	q.n++
	q.place(it)
}

func (q *queue) place(it item) {
	t := it.at >> tickBits
	turn, now := t>>wheelBits, q.tick>>wheelBits
	switch {
	case t <= q.tick:
		heapPush(&q.cur, it)
	case turn == now:
		q.link(&q.fine, t, it)
	case turn < now+wheelSize:
		q.link(&q.coarse, turn, it)
	default:
		heapPush(&q.far, it)
	}
}

func (q *queue) link(w *wheel, t int64, it item) {
	b := t % wheelSize
	slot := it.slot
	it.slot = w.head[b]
	q.at(slot).item = it
	w.head[b] = slot
	w.filled[b/64] |= 1 << (b % 64)
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
	r := q.at(it.slot)
	ev := r.ev
	*r = record{item: item{slot: q.free}}
	q.free = it.slot
	q.n--
	return it, ev
}

// advance moves to the next tick that has events and makes its bucket the
// current heap.
func (q *queue) advance() bool {
	b, ok := q.fine.next(q.tick%wheelSize + 1)
	for !ok {
		if !q.turn() {
			return false
		}
		if len(q.cur) > 0 {
			return true
		}
		b, ok = q.fine.next(q.tick%wheelSize + 1)
	}
	q.tick += b - q.tick%wheelSize
	for s := q.fine.take(b); s != 0; {
		it := q.at(s).item
		s, it.slot = it.slot, s
		q.cur = append(q.cur, it)
	}
	for i := len(q.cur)/2 - 1; i >= 0; i-- {
		heapDown(q.cur, i)
	}
	return true
}

// turn moves to the first tick of the next turn that has events, and places
// them.
func (q *queue) turn() bool {
	now := q.tick >> wheelBits
	next := int64(-1)
	if b, ok := q.coarse.next(now%wheelSize + 1); ok {
		next = now - now%wheelSize + b
	} else if b, ok := q.coarse.next(0); ok {
		next = now - now%wheelSize + wheelSize + b
	}
	if len(q.far) > 0 {
		if t := q.far[0].at >> tickBits >> wheelBits; next < 0 || t < next {
			next = t
		}
	}
	if next < 0 {
		return false
	}
	q.tick = next << wheelBits
	for s := q.coarse.take(next % wheelSize); s != 0; {
		it := q.at(s).item
		s, it.slot = it.slot, s
		q.place(it)
	}
	for len(q.far) > 0 && q.far[0].at>>tickBits>>wheelBits < next+wheelSize {
		q.place(heapPop(&q.far))
	}
	return true
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
