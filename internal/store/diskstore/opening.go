package diskstore

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"atoll.example/atoll/internal/store"
)

// openPatience is how long Open waits for room to write what Pebble's log holds
// to a table: the file system may be full for a moment only.
const openPatience = 2 * time.Second

// opening is a pebble.Open under way. It writes the records of the log to a
// table, and tries that again without end where the folder cannot be written or
// the disk is full. Nobody can end it; so it is left where it is, without a way to
// the disk, and its caller is told.
type opening struct {
	done     chan error // what pebble.Open returned
	hopeless chan error // why it will never return
	ended    atomic.Bool
	since    time.Time // of the first failure; under Pebble's lock
}

// failed hears of a table that Pebble could not write. It does not return once
// that is hopeless: the goroutine that would try again ends.
func (op *opening) failed(s *Store, g *guard, err error) {
	if isNoSpace(err) {
		if op.since.IsZero() {
			op.since = time.Now()
		}
		if time.Since(op.since) < openPatience {
			return // the guard has slowed it down
		}
	}
	g.stopped.Store(true)
	switch {
	case g.logFull.Load():
		err = store.ErrFull
	case !isTransient(err):
		s.fail(fmt.Errorf("pebble: %w", err))
		err = s.failure
	}
	select {
	case op.hopeless <- err:
	default: // said already
	}
	runtime.Goexit()
}
