package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2"
)

// Numbers of our own.
const (
	queueLength   = 256     // batches waiting; beyond it Apply waits
	groupRequests = 256     // batches in a group
	groupBytes    = 2 << 20 // of values not in files, unless one batch has more
	pipelineDepth = 4       // groups written but not yet synced
	trashLength   = 1024    // files waiting to be deleted
)

// errStale says that a record changed between the look at it in Apply and the
// commit, so that a block file taken for known is needed after all.
var errStale = errors.New("record changed meanwhile")

// change is one operation, made ready by Apply.
type change struct {
	key   []byte
	block bool
	del   bool
	rec   record
	value []byte  // nil if it is in a file
	known bool    // the file rec.file holds this very value already
	from  *record // the value moves from here, or not at all if it is elsewhere by now
}

// request is one batch on its way to disk.
type request struct {
	ctx      context.Context
	changes  []change
	urgent   bool
	bytes    int   // of values not in files
	appended int   // of those, in segments
	reserved int64 // claimed from space
	files    []uint64
	done     chan error // capacity 1; answered exactly once
}

// group is what one write to Pebble's log holds.
type group struct {
	batch    *pebble.Batch
	table    *table
	old      *pebble.Iterator // over the records before the group; closed before it is written
	requests []*request
	sealed   []sealedSegment  // no later group has values in these
	replaced []uint64         // block files that no record names once it is durable
	live     map[uint64]int64 // changes to the live bytes of segments
	emptied  []uint64         // segments in which nothing lives once it is durable
}

// Apply implements store.Store. An error other than store.ErrFull from a
// batch that was on its way leaves open whether it is stored; store.ErrFull
// after the file system ran out of space in the middle of a write, too, but
// then the batch is seen again, if at all, only after the next Open.
func (s *Store) Apply(ctx context.Context, b store.Batch) error {
	if err := store.CheckOps(b.Ops); err != nil {
		return err
	}
	if !s.calls.enter() {
		return store.ErrClosed
	}
	defer s.calls.leave()
	if len(b.Ops) == 0 {
		return s.ready(ctx)
	}
	for trust := true; ; trust = false {
		if err := s.ready(ctx); err != nil {
			return fmt.Errorf("diskstore: apply: %w", err)
		}
		err := s.try(ctx, &b, trust)
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			return fmt.Errorf("diskstore: apply: %w", err)
		}
		return nil
	}
}

// try makes a request of b and waits for its answer. With trust, block files
// already there are not written again.
func (s *Store) try(ctx context.Context, b *store.Batch, trust bool) error {
	r := &request{ctx: ctx, urgent: b.Urgent, done: make(chan error, 1)}
	if err := s.prepare(r, b, trust); err != nil {
		s.drop(r)
		return err
	}
	select {
	case s.queue <- r:
	case <-ctx.Done():
		s.drop(r)
		return ctx.Err()
	case <-s.failed:
		s.drop(r)
		return s.failure
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.failed:
		return s.failure
	}
}

// prepare does what needs no order: checksums and block files.
func (s *Store) prepare(r *request, b *store.Batch, trust bool) error {
	r.changes = make([]change, len(b.Ops))
	for i := range b.Ops {
		op, c := &b.Ops[i], &r.changes[i]
		c.key = appendKey(nil, op.Key)
		c.block = op.Key.Family == store.Block
		if c.del = op.Delete; c.del {
			continue
		}
		c.rec = record{form: formInline, length: len(op.Value)}
		if op.Named {
			c.rec.sum = op.Key.GUID
		} else {
			c.rec.sum = checksum(op.Value)
		}
		if !c.block || len(op.Value) < s.opts.Threshold {
			c.value = op.Value
			r.bytes += len(op.Value)
		}
		if !c.block || len(op.Value) < min(segmentMin, s.opts.Threshold) {
			continue
		}
		if len(op.Value) < s.opts.Threshold {
			c.rec.form = formSegment
			r.appended += len(op.Value)
			if err := s.claim(r, costOf(c.key, len(op.Value))); err != nil {
				return err
			}
			continue
		}
		c.rec.form = formFile
		if trust {
			if number, ok := s.holds(c.key, &c.rec); ok {
				c.rec.file, c.known = number, true
				continue
			}
		}
		if err := s.writeBlock(r, c, op.Value); err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether a block file with this very value is there and sound.
// Reading it is cheap beside writing it, and a put is how damage is repaired.
func (s *Store) holds(key []byte, want *record) (number uint64, ok bool) {
	have, _, err := s.lookup(key)
	if err != nil || have.form != formFile || !have.sameValue(want.length, &want.sum) {
		return 0, false
	}
	_, err = s.blocks.read(key, have)
	return have.file, err == nil
}

// claim reserves room for what is written ahead of the commit.
func (s *Store) claim(r *request, cost int64) error {
	if !s.space.reserve(cost, r.urgent) {
		return store.ErrFull
	}
	r.reserved += cost
	return nil
}

// blockError sorts the errors of block files and segments.
func (s *Store) blockError(err error) error {
	if isNoSpace(err) {
		s.space.sample()
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	if ferr := s.failureNow(); ferr != nil {
		return ferr
	}
	return err
}

func (s *Store) writeBlock(r *request, c *change, value []byte) error {
	if err := s.claim(r, costOf(c.key, len(value))); err != nil {
		return err
	}
	number, err := s.blocks.write(c.key, value, c.rec.sum)
	if err != nil {
		return s.blockError(err)
	}
	s.space.written.Add(int64(len(value)))
	c.rec.file = number
	r.files = append(r.files, number)
	return nil
}

// drop undoes prepare.
func (s *Store) drop(r *request) {
	for _, number := range r.files {
		s.blocks.remove(number)
	}
	s.space.release(r.reserved)
	r.files, r.reserved = nil, 0
}

// refuse drops a request that left no trace in Pebble and answers it.
func (s *Store) refuse(r *request, err error) {
	s.drop(r)
	r.done <- err
}

// appender takes whatever waits, as one group, and makes those of its values
// durable that live in segments: one write, one fsync. While the committer has
// the group, the next is being appended.
func (s *Store) appender() {
	defer close(s.done.appender)
	defer s.segments.seal()
	for r := range s.queue {
		g := &group{requests: []*request{r}}
		bytes := r.bytes
	more:
		for len(g.requests) < groupRequests && bytes < groupBytes {
			select {
			case r, ok := <-s.queue:
				if !ok {
					break more
				}
				g.requests = append(g.requests, r)
				bytes += r.bytes
			default:
				break more
			}
		}
		s.appendValues(g)
		s.groups <- g
	}
}

// appendValues writes the values of a group into segments; if that fails, it
// refuses the requests that have some. A small value that comes alone goes into
// Pebble: pages being 4 KiB, two files to write and to sync would save no byte
// and cost an fsync of waiting.
func (s *Store) appendValues(g *group) {
	var changes []*change
	bytes := 0
	for _, r := range g.requests {
		if r.appended == 0 {
			continue
		}
		bytes += r.appended
		for i := range r.changes {
			if c := &r.changes[i]; c.rec.form == formSegment {
				changes = append(changes, c)
			}
		}
	}
	if len(changes) == 0 {
		return
	}
	if bytes <= s.opts.alone {
		for _, c := range changes {
			c.rec.form = formInline
		}
		for _, r := range g.requests {
			r.appended = 0
		}
		return
	}
	err := s.segments.append(changes)
	g.sealed = s.segments.takeSealed()
	if err == nil {
		s.space.written.Add(int64(bytes))
		return
	}
	err = s.blockError(err)
	others := g.requests[:0]
	for _, r := range g.requests {
		if r.appended > 0 {
			s.refuse(r, err)
		} else {
			others = append(others, r)
		}
	}
	g.requests = others
}

// committer is the one goroutine that writes to Pebble: one write and one
// fsync for a group. Being alone it reads old records and keeps the counters
// without locks. It does not wait for the fsync: Pebble's log syncs while the
// next group is being made, and acker answers.
//
// Rejected: Pebble's own pipeline with one commit per caller. It groups as
// well, but a commit that fails may panic with its lock held, which then would
// leave callers waiting for ever; and exact counters would need a lock per key.
func (s *Store) committer() {
	defer close(s.done.committer)
	for g := range s.groups {
		s.commit(g)
	}
}

// commit writes those requests of a group that may go on, and hands it to
// acker; the others it answers.
func (s *Store) commit(g *group) {
	s.seal(g.sealed)
	requests := g.requests
	if err := s.writable(); err != nil {
		for _, r := range requests {
			s.refuse(r, err)
		}
		return
	}
	// Most keys are new. Pebble's Get reads a data block of the lowest level to
	// find that out; an iterator can be told to ask the filter instead.
	old, err := s.table.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		for _, r := range requests {
			s.refuse(r, asCorrupt(err))
		}
		return
	}
	g.batch, g.table, g.old = s.table.NewBatch(), s.table, old
	g.requests, g.live = nil, make(map[uint64]int64)
	next := s.counters
	view := make(map[string]*record)
	for _, r := range requests {
		if err := s.add(g, r, view, &next); err != nil {
			s.refuse(r, err)
		}
	}
	_ = old.Close() // what it could not read is known
	if len(g.requests) == 0 {
		_ = g.batch.Close() // empty
		return
	}
	next.group++
	if next.lost {
		err = g.batch.Delete(countersKey, nil) // the next start counts anew
	} else {
		err = g.batch.Set(countersKey, next.append(nil), nil)
	}
	if err == nil {
		err = s.settle(g)
	}
	if err == nil {
		err = s.write(g)
	}
	if err != nil {
		s.undo(g, err)
		return
	}
	s.counters = next
	s.settled(g)
	s.space.used.Store(next.used)
	s.space.blocks.Store(next.blocks)
	for _, r := range g.requests {
		s.space.written.Add(int64(r.bytes - r.appended))
		s.space.release(r.reserved)
		r.reserved = 0
	}
	s.inflight.Add(1)
	s.acks <- g
}

// writable waits until Pebble can be written to, or returns why it cannot.
func (s *Store) writable() error {
	if err := s.room(); err != nil {
		return err
	}
	if err := s.ready(context.Background()); err != nil {
		return err
	}
	g := s.guard.Load()
	if g.logFull.Load() {
		return s.revive()
	}
	return nil
}

// step is the effect of one change.
type step struct {
	*change
	old  *record // nil if there was none
	skip bool    // the same value is there already
}

// add puts a request into a group, or returns why not, the group unchanged.
// view holds the records as this group leaves them.
func (s *Store) add(g *group, r *request, view map[string]*record, next *counters) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	steps := make([]step, 0, len(r.changes))
	mine := make(map[string]*record, len(r.changes))
	var grow, blocks int64
	for i := range r.changes {
		c := &r.changes[i]
		old, ok := mine[string(c.key)]
		if !ok {
			old, ok = view[string(c.key)]
		}
		st := step{change: c, old: old}
		if !ok {
			st.old, st.skip = s.compare(g.old, c, next)
		}
		if c.from != nil && (st.old == nil || !st.old.sameFile(c.from)) {
			continue
		}
		if st.old != nil && st.old.form != formLost {
			grow -= costOf(c.key, st.old.length)
			blocks -= st.count()
		}
		if c.known && (st.old == nil || !st.old.sameFile(&c.rec)) {
			return errStale
		}
		if c.del {
			mine[string(c.key)] = nil
		} else {
			mine[string(c.key)] = &c.rec
			grow += costOf(c.key, c.rec.length)
			blocks += st.count()
		}
		steps = append(steps, st)
	}
	full := s.guard.Load().full.Load() && !r.urgent
	if !s.space.fits(next.used-s.counters.used+grow, r.reserved, r.urgent) || (full && grow > 0) {
		return store.ErrFull
	}
	for _, st := range steps {
		if err := s.put(g, &st); err != nil {
			return err
		}
	}
	for k, rec := range mine {
		view[k] = rec
	}
	next.used += grow
	next.blocks += blocks
	g.requests = append(g.requests, r)
	return nil
}

func (c *change) count() int64 {
	if c.block {
		return 1
	}
	return 0
}

// oldValue returns what Pebble has under a key, nil if nothing. The slice is
// valid until the iterator moves.
func oldValue(it *pebble.Iterator, key []byte) ([]byte, error) {
	if !it.SeekPrefixGE(key) || !bytes.Equal(it.Key(), key) {
		return nil, it.Error()
	}
	return it.ValueAndErr()
}

// compare returns the record a change replaces, and whether it is the same
// block already: then nothing but the fsync is needed. An old record that
// cannot be read, tried twice, is replaced all the same, for that is how it is
// repaired; but what it was charged is unknown, and so the counters are lost.
func (s *Store) compare(it *pebble.Iterator, c *change, next *counters) (old *record, same bool) {
	b, err := oldValue(it, c.key)
	if err != nil {
		b, err = oldValue(it, c.key)
	}
	if err != nil {
		next.lost = true
		return &record{form: formLost}, false
	}
	if b == nil {
		return nil, false
	}
	old, _ = s.weigh(c.key, b)
	if c.block && !c.del && old.form == formInline && c.rec.form == formInline && old.sameValue(c.rec.length, &c.rec.sum) {
		r, value, err := parseEnvelope(s.tag, c.key, b)
		same = err == nil && r.verify(value) == nil
	}
	return old, same
}

// put adds one step to the batch. It fails only for batches beyond Pebble's
// bounds, which ours are not.
func (s *Store) put(g *group, st *step) error {
	if st.known || st.skip {
		return nil
	}
	if st.old != nil && st.old.form == formFile {
		if err := g.batch.Delete(fileKey(st.old.file), nil); err != nil {
			return err
		}
		g.replaced = append(g.replaced, st.old.file)
	}
	if st.old != nil && st.old.form == formSegment {
		g.live[st.old.file] -= extent(st.key, st.old.length)
	}
	if st.del {
		if st.old == nil {
			return nil
		}
		return g.batch.Delete(st.key, nil)
	}
	if st.rec.form == formFile {
		if err := g.batch.Set(fileKey(st.rec.file), st.key, nil); err != nil {
			return err
		}
	}
	size := envelopeSize(st.key) + whereSize(st.rec.form)
	switch st.rec.form {
	case formInline:
		size += len(st.value)
	case formSegment:
		g.live[st.rec.file] += extent(st.key, st.rec.length)
	}
	op := g.batch.SetDeferred(len(st.key), size)
	copy(op.Key, st.key)
	rest := appendEnvelope(op.Value[:0], s.tag, st.key, &st.rec)
	if st.rec.form == formInline {
		copy(op.Value[len(rest):], st.value)
	}
	return op.Finish()
}

// write hands the batch to Pebble's log. Pebble panics if its log cannot be
// written or rotated, and calls Fatalf (see logger) if it cannot go on.
func (s *Store) write(g *group) (err error) {
	defer func() {
		if p := recover(); p != nil {
			g.table.stuck = true
			err = fmt.Errorf("pebble: %v", p)
			if perr, ok := p.(error); ok {
				err = fmt.Errorf("pebble: %w", perr)
			}
		}
	}()
	if s.opts.planted.ackUnsynced {
		return g.table.Apply(g.batch, pebble.NoSync)
	}
	if err := g.table.ApplyNoSyncWait(g.batch, pebble.Sync); err != nil {
		return err
	}
	// Fatalf may have returned: then this batch need not be in the log, and
	// must not be waited for.
	return g.table.sound()
}

// undo ends a group that Pebble refused.
func (s *Store) undo(g *group, err error) {
	err = s.logError(g.table, err)
	for _, r := range g.requests {
		s.leave(r)
		r.done <- err
	}
}

// logError sorts the errors of Pebble's log: no space is temporary, all else
// is the end.
func (s *Store) logError(t *table, err error) error {
	if isNoSpace(err) {
		t.guard.runOut()
	}
	if t.guard.logFull.Load() {
		return fmt.Errorf("%w: in the log: %w", store.ErrFull, err)
	}
	s.fail(fmt.Errorf("log: %w", err))
	return s.failure
}

// leave gives up a request whose fate is open: its files stay until a reopened
// log tells whether a record names them.
func (s *Store) leave(r *request) {
	s.undecidedMu.Lock()
	s.undecided = append(s.undecided, r.files...)
	s.undecidedMu.Unlock()
	s.space.release(r.reserved)
	r.files, r.reserved = nil, 0
}

// acker waits for the fsync of one group after another and answers. Pebble's
// log is synced in the order of writing.
func (s *Store) acker() {
	defer close(s.done.acker)
	for g := range s.acks {
		s.answer(g)
		s.inflight.Done()
	}
}

func (s *Store) answer(g *group) {
	if !s.opts.planted.ackUnsynced {
		err := g.batch.SyncWait()
		if err == nil {
			err = g.table.sound() // the fsync may have been none
		}
		if err != nil {
			s.undo(g, err)
			return
		}
	}
	for _, r := range g.requests {
		r.done <- nil
	}
	_ = g.batch.Close() // back to Pebble's pool
	for _, number := range g.replaced {
		s.trash <- func() { s.blocks.remove(number) }
	}
	for _, number := range g.emptied {
		s.trash <- func() { s.segments.remove(number) }
	}
}

// remover deletes block files and segments that no durable record names any
// more.
func (s *Store) remover() {
	defer close(s.done.remover)
	for remove := range s.trash {
		remove()
	}
}
