package diskstore

import (
	"errors"
	"fmt"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// reviveEvery is the least time between two attempts, readersWait how long one
// waits for readers, such as the collection of a segment, to let go of the table.
const (
	reviveEvery = 200 * time.Millisecond
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
	if !s.lastProbe.IsZero() && time.Since(s.lastProbe) < s.opts.reviveEvery {
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
	next, err := s.openTable()
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
	s.lastProbe = time.Time{}
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

// probe writes as much as a new log and a flush of the old one may need.
func (s *Store) probe() error {
	f := s.opts.FS
	path := s.folder.path("probe" + tempSuffix)
	file, err := f.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	chunk := make([]byte, 1<<20)
	for n := 0; n < 2*s.opts.MemTable && err == nil; n += len(chunk) {
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
