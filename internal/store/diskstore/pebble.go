package diskstore

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// Numbers of our own, chosen by BenchmarkPut with 100,000 blocks of 4 KiB: with
// Pebble's defaults (4, 12, 64 MiB, 2 MiB) tables were written 5.5 times over,
// with these 3.3 times, at 84 instead of 107 µs of CPU a put. More of level 0
// would cost reads.
const (
	l0Compact      = 16 // sublevels of level 0 that start a compaction
	l0Stop         = 64 // sublevels that stop writers, see room
	memTables      = 4  // memtables of full size that stop writers, see room
	never          = 1 << 20
	baseLevelBytes = 128 << 20
	tableBytes     = 8 << 20
	tableBlock     = 16 << 10
)

// table is one open Pebble with the guard it writes through. When its log runs
// out of space it is replaced by a new one; see revive.
type table struct {
	*pebble.DB
	guard *guard
	stuck bool          // a panic left its commit lock held: it cannot be closed
	grown atomic.Bool   // a memtable was begun since room looked
	moved chan struct{} // capacity 1: a flush or a compaction has ended
}

// openTable opens Pebble in DIR/meta. Whatever it reports goes to s. One that is
// opened readOnly writes nothing, and counts as one whose log is full.
func (s *Store) openTable(readOnly bool) (*table, error) {
	g := &guard{FS: s.folder.fs, tolerant: s.opts.planted.ignoreSyncError, onError: s.fail}
	g.stopped.Store(readOnly)
	g.logFull.Store(readOnly)
	t := &table{guard: g, moved: make(chan struct{}, 1)}
	s.guard.Store(g)
	op := &opening{done: make(chan error, 1), hopeless: make(chan error, 1)}
	go t.open(s, op, readOnly)
	var err error
	select {
	case err = <-op.done:
	case err = <-op.hopeless:
		return nil, err
	}
	if err != nil {
		if serr := t.sound(); serr != nil && !readOnly {
			return nil, fmt.Errorf("%w: %w", serr, err)
		}
		if !isTransient(err) && !errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil, err
	}
	if err := t.sound(); err != nil && !readOnly {
		_ = t.close() // the first error says more
		return nil, err
	}
	return t, nil
}

// open is pebble.Open with our options. It says in op what came of it, unless op
// is hopeless before.
func (t *table) open(s *Store, op *opening, readOnly bool) {
	defer func() {
		if p := recover(); p != nil {
			op.done <- fmt.Errorf("%w: pebble: %v", ErrDamaged, p)
		}
	}()
	cache := pebble.NewCache(s.opts.Cache)
	defer cache.Unref()
	o := s.pebbleOptions(t, op)
	o.Cache, o.ReadOnly = cache, readOnly
	var err error
	t.DB, err = pebble.Open(s.folder.path(metaName), o)
	op.ended.Store(true)
	op.done <- err
}

func (s *Store) pebbleOptions(t *table, op *opening) *pebble.Options {
	o := &pebble.Options{
		FS:                          t.guard,
		Logger:                      &logger{s: s, g: t.guard},
		EventListener:               s.listener(t, op),
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                uint64(s.opts.MemTable),
		MemTableStopWritesThreshold: never,
		L0CompactionThreshold:       l0Compact,
		L0StopWritesThreshold:       never,
		LBaseMaxBytes:               baseLevelBytes,
		MaxOpenFiles:                256,
		DisableTableStats:           true, // background reads we have no use for
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
	}
	o.TargetFileSizes[0] = tableBytes          // doubles from level to level
	o.Experimental.ReadSamplingMultiplier = -1 // no compactions for the sake of reads
	// Blocks are ciphertext and records are hashes and signatures: nothing
	// compresses.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = tableBlock
	}
	return o
}

// isTransient reports that opening Pebble failed for a cause outside its files.
// Of what is inside them it has too many errors, of no common kind.
func isTransient(err error) bool {
	return isNoSpace(err) || isReadOnly(err) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// sound returns why what Pebble reported as done may not be, if so.
func (t *table) sound() error {
	switch {
	case t.guard.logFull.Load():
		return store.ErrFull
	case t.guard.stopped.Load():
		return store.ErrFailed
	}
	return nil
}

// close closes Pebble, unless a panic made that impossible: then it is left
// alone, and its guard sees to it that it writes no more.
func (t *table) close() (err error) {
	if t.stuck {
		t.guard.stopped.Store(true)
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pebble: %v", p)
		}
	}()
	return t.DB.Close()
}

// listener hears of what happens in Pebble's background. Pebble's lock is held.
func (s *Store) listener(t *table, op *opening) *pebble.EventListener {
	g := t.guard
	return &pebble.EventListener{
		WALCreated:    func(pebble.WALCreateInfo) { t.grown.Store(true) }, // each memtable has a log
		FlushEnd:      func(pebble.FlushInfo) { t.hasMoved() },
		CompactionEnd: func(pebble.CompactionInfo) { t.hasMoved() },
		BackgroundError: func(err error) {
			switch {
			case !op.ended.Load() && !pebble.IsCorruptionError(err):
				op.failed(s, g, err)
			case g.stopped.Load(), isNoSpace(err), errors.Is(err, errStopped):
			case pebble.IsCorruptionError(err):
				s.corruptions.Add(1)
			default:
				s.fail(fmt.Errorf("pebble: %w", err))
			}
		},
		// Those who read the record get ErrCorrupt.
		DataCorruption: func(pebble.DataCorruptionInfo) { s.corruptions.Add(1) },
	}
}

// logger is quiet; what matters comes by the listener. Pebble calls Fatalf
// where it would kill the process. Ours stops the store and returns: the guard
// refuses all writes from then on, so nothing that Pebble does next can reach
// the disk, and Apply asks for stopped before it believes Pebble.
type logger struct {
	s *Store
	g *guard
}

func (*logger) Infof(string, ...any)  {}
func (*logger) Errorf(string, ...any) {}

func (l *logger) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			if isNoSpace(err) {
				l.g.runOut()
				return
			}
			if l.g.logFull.Load() {
				return // a consequence
			}
		}
	}
	l.s.fail(fmt.Errorf("pebble: %s", fmt.Sprintf(format, args...)))
}
