package machine

// Timers is a machine's set of pending timers, each under a key of the
// machine's own; setting a key again moves it. Hosts see only the earliest
// (Machine.Wake), so a node costs a host one timer. The zero value is empty.
// Timers due at the same time fire in the order in which they were set.
type Timers[K comparable] struct {
	heap []timer[K]
	at   map[K]int // index into heap; nil while there are few
	seq  uint64
}

// few is up to how many timers are found by looking at all of them: quicker
// than a map, and most machines have no more.
const few = 32

type timer[K comparable] struct {
	when Time
	seq  uint64
	key  K
}

// Set arms or moves the timer of key.
func (t *Timers[K]) Set(key K, when Time) {
	t.seq++
	e := timer[K]{when, t.seq, key}
	if i := t.find(key); i >= 0 {
		t.heap[i] = e
		if !t.up(i) {
			t.down(i)
		}
		return
	}
	t.heap = append(t.heap, e)
	switch i := len(t.heap) - 1; {
	case t.at != nil:
		t.at[key] = i
	case i == few:
		t.at = make(map[K]int, 2*few)
		for i := range t.heap {
			t.at[t.heap[i].key] = i
		}
	}
	t.up(len(t.heap) - 1)
}

// find returns the index of key in the heap, -1 if it is not armed.
func (t *Timers[K]) find(key K) int {
	if t.at != nil {
		if i, ok := t.at[key]; ok {
			return i
		}
		return -1
	}
	for i := range t.heap {
		if t.heap[i].key == key {
			return i
		}
	}
	return -1
}

// Stop disarms the timer of key, if armed.
func (t *Timers[K]) Stop(key K) {
	if i := t.find(key); i >= 0 {
		t.remove(i)
	}
}

// When returns the time of key's timer, Never if it is not armed.
func (t *Timers[K]) When(key K) Time {
	if i := t.find(key); i >= 0 {
		return t.heap[i].when
	}
	return Never
}

// Next returns the earliest time, Never if no timer is armed.
func (t *Timers[K]) Next() Time {
	if len(t.heap) == 0 {
		return Never
	}
	return t.heap[0].when
}

// Pop disarms and returns the earliest timer if it is due at now.
func (t *Timers[K]) Pop(now Time) (key K, ok bool) {
	if len(t.heap) == 0 || t.heap[0].when > now {
		return key, false
	}
	key = t.heap[0].key
	t.remove(0)
	return key, true
}

// Len returns the number of armed timers.
func (t *Timers[K]) Len() int { return len(t.heap) }

func (t *Timers[K]) remove(i int) {
	last := len(t.heap) - 1
	if t.at != nil {
		delete(t.at, t.heap[i].key)
		if i != last {
			t.at[t.heap[last].key] = i
		}
		if last <= few/2 {
			t.at = nil
		}
	}
	t.heap[i] = t.heap[last]
	t.heap[last] = timer[K]{}
	t.heap = t.heap[:last]
	if cap(t.heap) > few && last < few/4 {
		t.heap = append(make([]timer[K], 0, few/2), t.heap...) // there were many once
	}
	if i < last {
		if !t.up(i) {
			t.down(i)
		}
	}
}

func (t *Timers[K]) less(i, j int) bool {
	a, b := &t.heap[i], &t.heap[j]
	return a.when < b.when || a.when == b.when && a.seq < b.seq
}

func (t *Timers[K]) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	if t.at != nil {
		t.at[t.heap[i].key], t.at[t.heap[j].key] = i, j
	}
}

func (t *Timers[K]) up(i int) (moved bool) {
	for i > 0 {
		p := (i - 1) / 2
		if !t.less(i, p) {
			break
		}
		t.swap(i, p)
		i, moved = p, true
	}
	return moved
}

func (t *Timers[K]) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(t.heap) {
			return
		}
		if c+1 < len(t.heap) && t.less(c+1, c) {
			c++
		}
		if !t.less(c, i) {
			return
		}
		t.swap(i, c)
		i = c
	}
}
