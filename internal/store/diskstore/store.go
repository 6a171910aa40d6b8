// Package diskstore keeps a node's records on disk: small values in Pebble,
// blocks from 1 KiB up in segments that many share, and from 256 KiB up in a
// file each (20-dht §6, docs/adr/0011). It implements store.Store.
//
// # Durability
//
// Apply returns nil only after an fsync of Pebble's log that began after the
// batch was written to it; block files and segments, and their names, are
// fsynced before the record that names them is written. Many callers share
// each fsync: see appender and committer. The first fsync that fails stops the store for good: see guard.
//
// # Integrity
//
// Every value, in Pebble, a segment or a file, carries the pool's tag, its own key,
// its length and its BLAKE3, so that torn and misdirected writes and flipped
// bits show as store.ErrCorrupt.
//
// # Space
//
// Used is the sum of store.Cost over the records. It is written with each
// group of batches and so survives a crash exactly. What the disk holds beyond
// it (Pebble's log, tables not yet compacted, garbage in segments, block files
// not yet deleted) is what the reserve is for.
//
// # Deviations
//
// Block files are named by a running number, not by GUID: the record says
// which. So a file never changes once it has its name, an overwrite is as
// atomic as any batch, and one fsync of a folder serves all who write at the
// time. 20-dht §6 speaks of a 64 MiB ballast; it is part of the reserve, not a
// file.
package diskstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2"
)

// Store is an open store. Make one with Open.
type Store struct {
	opts     Options
	tag      tag
	folder   *folder
	blocks   *blockFiles
	segments *segments
	space    *space
	calls    gate

	guard atomic.Pointer[guard] // that of the current table

	tableMu sync.RWMutex // held to read while table is in use, to write only by TryLock or with no calls inside
	table   *table

	queue    chan *request // to appender
	groups   chan *group   // appender to committer
	acks     chan *group   // committer to acker
	victims  chan uint64   // segments to empty, committer to compactor
	trash    chan func()   // deletions, acker to remover
	inflight sync.WaitGroup
	done     struct{ appender, committer, acker, compactor, remover chan struct{} }

	// Owned by the committer.
	counters   counters
	lastProbe  time.Time
	reviveSlow time.Duration       // factor of the time between attempts; 0 is 1
	segs       map[uint64]*segment // with something in them, or open
	unchecked  []uint64            // sealed ones to be looked at by the next group
	freed      int64               // bytes that became garbage since the last look for a victim

	another atomic.Bool // the compactor will be free for another segment

	undecidedMu sync.Mutex
	undecided   []uint64 // files of batches whose fate only a reopened log tells

	failOnce    sync.Once
	failed      chan struct{}
	failure     error // set before failed is closed
	corruptions atomic.Int64
	missing     int // records whose block file, and segments that, were missing at Open
}

var _ store.Store = (*Store)(nil)

// Open opens the store in dir, and makes one if dir is new or empty. Errors:
// store.ErrInUse, store.ErrFormat (not ours, another pool, a newer format),
// ErrNotAccepted, ErrDamaged, store.ErrFull (no room for a store); each wrapped
// with what a user should know.
func Open(dir string, o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	f, err := openFolder(o.FS, dir, &o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts:    o,
		folder:  f,
		queue:   make(chan *request, queueLength),
		groups:  make(chan *group, 1),
		acks:    make(chan *group, pipelineDepth),
		victims: make(chan uint64, 1),
		trash:   make(chan func(), trashLength),
		failed:  make(chan struct{}),
	}
	copy(s.tag[:], o.Pool)
	g := &guard{FS: o.FS, blocks: true, tolerant: o.planted.ignoreSyncError, onError: s.fail}
	s.blocks = newBlockFiles(g, f.path(blocksName), s.tag, o.planted)
	s.segments = newSegments(g, f.path(segmentsName), &o, s.tag)
	s.space = newSpace(o.FS, dir)
	if err := s.start(); err != nil {
		_ = f.close()
		if pebble.IsCorruptionError(err) && !errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil, fmt.Errorf("diskstore: %w", explain(dir, err))
	}
	s.run()
	return s, nil
}

// run starts the goroutines. shutDown ends them.
func (s *Store) run() {
	for _, done := range []*chan struct{}{
		&s.done.appender, &s.done.committer, &s.done.acker, &s.done.compactor, &s.done.remover,
	} {
		*done = make(chan struct{})
	}
	go s.appender()
	go s.committer()
	go s.acker()
	go s.compactor()
	go s.remover()
}

// start opens Pebble and reads what a restart must know.
func (s *Store) start() (err error) {
	if s.table, err = s.openTable(false); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = s.failureNow()
		}
		if err != nil {
			_ = s.table.close() // the first error says more
		}
	}()
	limit, err := s.limit()
	if err != nil {
		return err
	}
	live, err := s.readCounters()
	if err != nil {
		return err
	}
	s.space.set(limit, s.counters)
	if s.missing, err = s.blocks.sweep(s.liveFiles); err != nil {
		return err
	}
	lost, err := s.sweepSegments(live)
	if err != nil {
		return err
	}
	s.missing += lost
	return nil
}

// Accept lets a store that stopped after a disk error, and was opened with
// Options.AcceptFailed, be opened without from now on. It is called once every
// record has been read back; until then an interruption leaves the store failed.
func (s *Store) Accept() error {
	if err := s.failureNow(); err != nil {
		return err
	}
	if err := s.folder.forget(); err != nil {
		return fmt.Errorf("diskstore: %w", explain(s.folder.dir, err))
	}
	return nil
}

// limit returns the limit in force and remembers it.
func (s *Store) limit() (int64, error) {
	var was int64
	b, closer, err := s.table.Get(limitKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return 0, err
	default:
		if len(b) == 8 {
			was = int64(binary.BigEndian.Uint64(b))
		}
		if err := closer.Close(); err != nil {
			return 0, err
		}
	}
	limit := s.opts.Limit
	if was == 0 {
		// The limit is the first thing a store keeps. If blocks are there
		// without it, Pebble has lost its state, and a sweep would take them
		// for orphans.
		for _, count := range []func() (int, error){s.blocks.count, s.segments.count} {
			if n, err := count(); err != nil {
				return 0, err
			} else if n > 0 {
				return 0, fmt.Errorf("%w: %w: %d files of blocks are there, their records are gone", ErrDamaged, store.ErrFormat, n)
			}
		}
	}
	if limit == 0 {
		limit = was
	}
	if limit == 0 {
		free, known := s.space.sample()
		if !known {
			return 0, errors.New("the free space is unknown here; a limit must be given")
		}
		limit = free / 10 * 8
		if store.CheckLimit(limit) != nil {
			return 0, fmt.Errorf("%w: 80 %% of the %d MiB free here is below the least limit of %d MiB",
				store.ErrFull, free>>20, store.MinLimit>>20)
		}
	}
	if limit == was {
		return limit, nil
	}
	if err := s.table.Set(limitKey, binary.BigEndian.AppendUint64(nil, uint64(limit)), pebble.Sync); err != nil {
		return 0, err
	}
	return limit, s.table.sound()
}

// readCounters reads the counters and what lives in each segment, or counts
// both anew if there are no counters.
func (s *Store) readCounters() (live map[uint64]int64, err error) {
	if live, err = s.readLive(); err != nil {
		return nil, err
	}
	b, closer, err := s.table.Get(countersKey)
	if err == nil {
		c, ok := parseCounters(b)
		if err := closer.Close(); err != nil {
			return nil, err
		}
		if ok {
			s.counters = c
			return live, nil
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return nil, err
	}
	now, err := s.recount()
	if err != nil {
		return nil, err
	}
	s.counters = now.counters
	for number := range live {
		live[number] = 0 // its count is to go
	}
	maps.Copy(live, now.live)
	return live, s.correct(now, live)
}

// correct writes what a recount has found to be otherwise. If the power fails
// before it is durable, there are no counters either, and all is found again.
func (s *Store) correct(now tally, live map[uint64]int64) error {
	batch := s.table.NewBatch()
	for number, n := range live {
		if err := batch.Set(segmentKey(number), appendInt64(nil, n), nil); err != nil {
			return err
		}
	}
	files, err := s.liveFiles(0, 1<<63)
	if err != nil {
		return err
	}
	for _, number := range files {
		if now.files[number] {
			continue
		}
		if err := batch.Delete(fileKey(number), nil); err != nil {
			return err
		}
	}
	return s.table.Apply(batch, pebble.NoSync)
}

// tally is what the records themselves say.
type tally struct {
	counters
	live  map[uint64]int64 // bytes in each segment
	files map[uint64]bool  // block files
}

// recount adds up every record.
func (s *Store) recount() (c tally, err error) {
	it, err := s.table.NewIter(&pebble.IterOptions{LowerBound: []byte{1}})
	if err != nil {
		return c, err
	}
	c.live, c.files = make(map[uint64]int64), make(map[uint64]bool)
	for it.First(); it.Valid(); it.Next() {
		k, ok := parseKey(it.Key())
		if !ok {
			continue
		}
		r, cost := s.weigh(it.Key(), it.Value())
		c.used += cost
		switch r.form {
		case formSegment:
			c.live[r.file] += extent(it.Key(), r.length)
		case formFile:
			c.files[r.file] = true
		}
		if k.Family == store.Block {
			c.blocks++
		}
	}
	return c, it.Close()
}

// weigh parses a stored envelope and says what it was charged. A damaged one
// is charged for what is there.
func (s *Store) weigh(key, stored []byte) (*record, int64) {
	r, _, err := parseEnvelope(s.tag, key, stored)
	if err != nil {
		r = record{form: formInline, length: max(0, len(stored)-envelopeSize(key))}
	}
	return &r, costOf(key, r.length)
}

// costOf is store.Cost of an encoded key.
func costOf(key []byte, n int) int64 { return int64(len(key)+n) + store.Overhead }

// liveFiles returns the numbers in [lo, hi) of the files that records name.
func (s *Store) liveFiles(lo, hi uint64) (numbers []uint64, err error) {
	it, err := s.table.NewIter(&pebble.IterOptions{LowerBound: fileKey(lo), UpperBound: fileKey(hi)})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid(); it.Next() {
		numbers = append(numbers, binary.BigEndian.Uint64(it.Key()[2:]))
	}
	return numbers, it.Close()
}

// ready returns why no call may go on, if so.
func (s *Store) ready(ctx context.Context) error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return ctx.Err()
	}
}

// Get implements store.Store. An unreadable sector counts as corrupt: the
// remedy is the same.
func (s *Store) Get(ctx context.Context, k store.Key) ([]byte, error) {
	if !s.calls.enter() {
		return nil, store.ErrClosed
	}
	defer s.calls.leave()
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	value, err := s.get(appendKey(nil, k))
	if err == nil {
		err = s.ready(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("diskstore: get %v: %w", k, err)
	}
	return value, nil
}

func (s *Store) get(key []byte) ([]byte, error) {
	for {
		rec, value, err := s.lookup(key)
		if err != nil || rec.form == formInline {
			return value, err
		}
		if rec.form == formSegment {
			value, err = s.segments.read(key, rec)
		} else {
			value, err = s.blocks.read(key, rec)
		}
		if err == nil {
			return value, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, asCorrupt(err)
		}
		// The file went because the record changed meanwhile (compaction is
		// such a change), or it is lost.
		now, _, err := s.lookup(key)
		if err != nil {
			return nil, err
		}
		if now.sameFile(rec) {
			return nil, fmt.Errorf("%w: its file is gone", store.ErrCorrupt)
		}
	}
}

// lookup returns the record under key, and the verified value if it is inline,
// in a slice of its own.
func (s *Store) lookup(key []byte) (*record, []byte, error) {
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	b, closer, err := s.table.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, nil, store.ErrNotFound
		}
		return nil, nil, asCorrupt(err)
	}
	defer func() { _ = closer.Close() }() // releases a buffer
	r, value, err := parseEnvelope(s.tag, key, b)
	if err != nil || r.form != formInline {
		return &r, nil, err
	}
	if err := r.verify(value); err != nil {
		return nil, nil, err
	}
	own := make([]byte, len(value))
	copy(own, value)
	return &r, own, nil
}

func asCorrupt(err error) error {
	if errors.Is(err, store.ErrCorrupt) || (!pebble.IsCorruptionError(err) && !isIO(err)) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
}

// Range implements store.Store, on the records as they are when it begins.
// Damaged records are left out; the error returned at the end then wraps
// store.ErrCorrupt and names the first.
func (s *Store) Range(ctx context.Context, fam store.Family, lo, hi id.GUID, f func(k store.Key, value []byte) bool) error {
	if !s.calls.enter() {
		return store.ErrClosed
	}
	defer s.calls.leave()
	if err := s.ready(ctx); err != nil {
		return err
	}
	if hi.Less(lo) {
		return nil
	}
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	it, err := s.table.NewIter(&pebble.IterOptions{
		LowerBound: appendKey(nil, store.Key{Family: fam, GUID: lo}),
		UpperBound: afterGUID(fam, hi),
	})
	if err != nil {
		return fmt.Errorf("diskstore: range: %w", asCorrupt(err))
	}
	err = s.scan(ctx, it, fam, f)
	if cerr := it.Close(); cerr != nil && !errors.Is(err, store.ErrCorrupt) {
		err = asCorrupt(cerr)
	}
	if err != nil {
		return fmt.Errorf("diskstore: range: %w", err)
	}
	return nil
}

func (s *Store) scan(ctx context.Context, it *pebble.Iterator, fam store.Family, f func(k store.Key, value []byte) bool) (damaged error) {
	for it.First(); it.Valid(); it.Next() {
		if err := s.ready(ctx); err != nil {
			return err
		}
		k, ok := parseKey(it.Key())
		if !ok {
			damaged = errors.Join(store.ErrCorrupt, fmt.Errorf("key of %d bytes", len(it.Key())))
			continue
		}
		if fam == store.Block {
			if !f(k, nil) {
				return damaged
			}
			continue
		}
		r, value, err := parseEnvelope(s.tag, it.Key(), it.Value())
		if err == nil {
			err = r.verify(value)
		}
		if err != nil {
			if damaged == nil {
				damaged = fmt.Errorf("%v: %w", k, err)
			}
			continue
		}
		if !f(k, value) {
			return damaged
		}
	}
	return damaged
}

// Usage implements store.Store.
func (s *Store) Usage() store.Usage { return s.space.now().Usage() }

// Failed implements store.Store.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Damage returns how many records had lost their block file when the store was
// opened, and how many reads by Pebble itself have met damaged tables since.
func (s *Store) Damage() (missingFiles int, badTables int64) {
	return s.missing, s.corruptions.Load()
}

// fail stops the store for good.
func (s *Store) fail(cause error) {
	s.failOnce.Do(func() {
		s.blocks.fs.stopped.Store(true)
		s.guard.Load().stopped.Store(true)
		s.failure = fmt.Errorf("%w: %w", store.ErrFailed, cause)
		s.folder.markFailed(cause)
		close(s.failed)
	})
}

// closePatience bounds how long Close of a failed store waits for Pebble.
const closePatience = 2 * time.Second

// Close waits for the calls under way and closes the store. A second Close
// does nothing. A store that failed returns why.
func (s *Store) Close() error {
	if !s.calls.shutAndWait() {
		return nil
	}
	closed := make(chan error, 1)
	go s.shutDown(closed)
	var err error
	select {
	case err = <-closed:
	case <-s.failed:
		// What a failed disk was asked to do may never end.
		patience := time.NewTimer(closePatience)
		defer patience.Stop()
		select {
		case err = <-closed:
		case <-patience.C:
		}
	}
	if lerr := s.folder.close(); err == nil {
		err = lerr
	}
	select {
	case <-s.failed:
		return s.failure
	default:
	}
	if err != nil {
		return fmt.Errorf("diskstore: close: %w", err)
	}
	return nil
}

// shutDown ends the goroutines in the order in which they feed each other.
func (s *Store) shutDown(closed chan<- error) {
	close(s.queue)
	<-s.done.appender
	close(s.groups)
	<-s.done.committer
	close(s.victims)
	<-s.done.compactor
	close(s.acks)
	<-s.done.acker
	close(s.trash)
	<-s.done.remover
	closed <- s.table.close()
}
