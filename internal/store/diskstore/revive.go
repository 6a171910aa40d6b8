package diskstore

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// reviveEvery is the least time between two attempts. Others may fill the disk
// between a probe and the reopening, and a Pebble that does not open can leave its
// memory behind: so each such failure doubles the time, up to slowest times.
// readersWait is how long an attempt waits for readers, such as the collection of a
// segment, to let go of the table.
const (
	reviveEvery = 200 * time.Millisecond
	slowest     = 1 << 10
	readersWait = 100 * time.Millisecond
)

// revive replaces a Pebble whose log or manifest met the end of the disk. Such
// a Pebble still reads, but can write nothing more: its guard sees to that, so
// batches that were refused cannot become durable behind our back. Until there
// is room for a new log, every batch gets store.ErrFull. Opening Pebble anew
// in place is what a restart would do: the log is replayed up to the torn end.
//
// Only the committer calls it.
func (s *Store) revive() error {
	s.inflight.Wait()
	if err := s.failureNow(); err != nil {
		return err
	}
	if !s.lastProbe.IsZero() && time.Since(s.lastProbe) < s.opts.reviveEvery*time.Duration(max(1, s.reviveSlow)) {
		return store.ErrFull
	}
	s.lastProbe = time.Now()
	if err := s.probe(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	if !s.withoutReaders() {
		return store.ErrFull
	}
	defer s.tableMu.Unlock()
	_ = s.table.close() // its writes are lost already
	next, err := s.openTable(false)
	if isNoSpace(err) || errors.Is(err, store.ErrFull) {
		full := err
		if next, err = s.openTable(true); err == nil { // for reads
			s.table = next
			s.reviveSlow = min(max(2, 2*s.reviveSlow), slowest)
			return fmt.Errorf("%w: %w", store.ErrFull, full)
		}
	}
	if err != nil {
		s.fail(fmt.Errorf("reopen after the disk was full: %w", err))
		return s.failure
	}
	s.table = next
	live, err := s.readCounters()
	if err == nil {
		err = s.decide()
	}
	if err != nil {
		s.fail(fmt.Errorf("reopen after the disk was full: %w", err))
		return s.failure
	}
	s.reloadSegments(live)
	s.space.set(s.space.limit.Load(), s.counters)
	s.lastProbe, s.reviveSlow = time.Time{}, 0
	return nil
}

// withoutReaders takes the table's lock, and gives up soon: a caller of Range may
// be waiting for an Apply, which would wait for the caller.
func (s *Store) withoutReaders() bool {
	for until := time.Now().Add(readersWait); !s.tableMu.TryLock(); {
		if time.Now().After(until) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

func (s *Store) failureNow() error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

// probe writes as much as a new log, which is preallocated, and the flush of the
// old ones may need.
func (s *Store) probe() error {
	f := s.opts.FS
	need, err := s.logBytes()
	if err != nil {
		return err
	}
	need += 2 * int64(s.opts.MemTable)
	path := s.folder.path("probe" + tempSuffix)
	file, err := f.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	chunk := make([]byte, 1<<20)
	for n := int64(0); n < need && err == nil; n += int64(len(chunk)) {
		_, err = file.Write(chunk)
	}
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if rerr := f.Remove(path); err == nil {
		err = rerr
	}
	return err
}

// logBytes is the size of Pebble's logs, those included that it will use again.
func (s *Store) logBytes() (n int64, err error) {
	f, dir := s.opts.FS, s.folder.path(metaName)
	names, err := f.List(dir)
	for _, name := range names {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		info, err := f.Stat(f.PathJoin(dir, name))
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, err
}

// decide deletes the block files of refused batches, unless their records were
// in the log after all.
func (s *Store) decide() error {
	s.undecidedMu.Lock()
	defer s.undecidedMu.Unlock()
	for _, number := range s.undecided {
		_, closer, err := s.table.Get(fileKey(number))
		switch {
		case errors.Is(err, pebble.ErrNotFound):
			s.blocks.remove(number)
		case err != nil:
			return err
		default:
			if err := closer.Close(); err != nil {
				return err
			}
		}
	}
	s.undecided = nil
	return nil
}
