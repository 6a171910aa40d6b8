package diskstore

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// Numbers of our own.
const (
	compactBytes = 1 << 20     // of values moved in one batch
	compactAgain = time.Minute // a segment that could not be emptied is left alone for so long
)

// errEnough ends a scan.
var errEnough = errors.New("enough")

// settle books what a group changed in the segments, names in its batch what
// is live now, and lists those that the group, once durable, empties.
func (s *Store) settle(g *group) error {
	check := append([]uint64(nil), s.unchecked...)
	for number, n := range g.live {
		check = append(check, number)
		if n != 0 && s.segs[number] == nil {
			s.segs[number] = &segment{}
		}
	}
	seen := make(map[uint64]bool, len(check))
	for _, number := range check {
		seg := s.segs[number]
		if seg == nil || seen[number] {
			continue
		}
		seen[number] = true
		var err error
		switch live := seg.live + g.live[number]; {
		case live <= 0 && seg.sealed:
			g.emptied = append(g.emptied, number)
			if s.opts.planted.dropEarly {
				s.segments.remove(number)
				_ = syncDir(s.segments.fs, s.segments.dir)
			}
			err = g.batch.Delete(segmentKey(number), nil)
		case g.live[number] != 0:
			err = g.batch.Set(segmentKey(number), appendInt64(nil, live), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settled is called when the batch of a group is in Pebble.
func (s *Store) settled(g *group) {
	for number, n := range g.live {
		if seg := s.segs[number]; seg != nil {
			seg.live += n
			s.freed += max(0, -n)
		}
	}
	for _, number := range g.emptied {
		delete(s.segs, number)
	}
	s.unchecked = nil
	if s.freed >= s.opts.segment/4 || s.another.Swap(false) {
		s.freed = 0
		s.pickVictim()
	}
}

// seal takes note of segments that will not grow. All their values are in
// groups up to this one.
func (s *Store) seal(sealed []sealedSegment) {
	for _, x := range sealed {
		seg := s.segs[x.number]
		if seg == nil { // nothing in it was ever acknowledged
			seg = &segment{}
			s.segs[x.number] = seg
		}
		seg.sealed, seg.size = true, x.size
		s.freed += seg.dead()
		s.unchecked = append(s.unchecked, x.number)
	}
}

// pickVictim hands the sealed segment with most garbage to the compactor: if
// half of it is garbage, or if all garbage together takes half of the reserve,
// which is there for this.
func (s *Store) pickVictim() {
	var victim uint64
	var worst *segment
	var garbage int64
	for number, seg := range s.segs {
		if !seg.sealed {
			continue
		}
		garbage += seg.dead()
		if time.Since(seg.tried) > s.opts.compactAgain && (worst == nil || seg.dead() > worst.dead() ||
			(seg.dead() == worst.dead() && number < victim)) {
			victim, worst = number, seg
		}
	}
	if worst == nil || worst.dead() <= 0 {
		return
	}
	if 2*worst.dead() < worst.size && 2*garbage < s.space.now().Reserve() {
		return
	}
	select {
	case s.victims <- victim:
		worst.tried = time.Now()
	default: // it has one
	}
}

// compactor moves what lives in one segment after another to the open one. The
// committer deletes a segment when nothing lives in it.
func (s *Store) compactor() {
	defer close(s.done.compactor)
	for number := range s.victims {
		s.compact(number)
	}
}

// compact moves the live values of a segment. Damaged ones stay: a read of
// them says so, and a put replaces them. So does what comes behind a damaged
// length.
func (s *Store) compact(number uint64) {
	r := &request{}
	move := func() error {
		if len(r.changes) == 0 {
			return nil
		}
		err := s.move(r)
		r = &request{}
		return err
	}
	err := s.segments.scan(number, func(offset uint32, key []byte, rec *record, value []byte) error {
		here := record{form: formSegment, file: number, offset: offset}
		now, _, err := s.lookup(key)
		if err != nil || !now.sameFile(&here) || !now.sameValue(rec.length, &rec.sum) || rec.verify(value) != nil {
			return nil
		}
		to := record{form: formSegment, length: rec.length, sum: rec.sum}
		r.changes = append(r.changes, change{
			key: bytes.Clone(key), block: true, from: now, rec: to, value: bytes.Clone(value),
		})
		r.bytes += len(value)
		r.appended += len(value)
		if r.bytes < compactBytes {
			return nil
		}
		return move()
	})
	if err == nil {
		s.another.Store(true) // for the commit of this move, or the next
		_ = move()            // what could not be moved is tried again later
	}
}

// move submits changes that move values, and waits.
func (s *Store) move(r *request) error {
	if !s.calls.enter() {
		return errEnough
	}
	defer s.calls.leave()
	r.ctx, r.urgent, r.done = context.Background(), true, make(chan error, 1)
	select {
	case s.queue <- r:
	case <-s.failed:
		return errEnough
	}
	select {
	case err := <-r.done:
		return err
	case <-s.failed:
		return errEnough
	}
}
