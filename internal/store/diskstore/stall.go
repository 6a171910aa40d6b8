package diskstore

import "atoll.example/atoll/internal/store"

// room waits until Pebble may take another group: until it has flushed and
// compacted enough of what it took before. Pebble would wait for that itself, in
// the middle of a commit. But on a full disk it tries the flush again without end,
// and once its log or manifest met the end of the disk the guard refuses every
// flush: the committer would never come back. So Pebble's own bounds are out of
// reach, and the committer waits here, where it can give up.
func (s *Store) room() error {
	t := s.table
	for t.grown.Load() {
		m := t.Metrics()
		if m.MemTable.Size <= uint64(memTables*s.opts.MemTable) && m.Levels[0].Sublevels < l0Stop {
			t.grown.Store(false) // until the next memtable
			return nil
		}
		switch {
		case t.guard.stopped.Load():
			return nil // the caller says why
		case t.guard.full.Load():
			return store.ErrFull
		}
		select {
		case <-t.moved:
		case <-s.failed:
		}
	}
	return nil
}

// hasMoved says that the answer of room may be another now.
func (t *table) hasMoved() {
	select {
	case t.moved <- struct{}{}:
	default: // said already
	}
}
