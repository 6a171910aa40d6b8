package diskstore

import (
	"errors"
	"sync"
	"syscall"
	"testing"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// underLoad lets many callers write while a fault strikes, and returns their
// answers, in the order of each caller.
func underLoad(t *testing.T, disk *vfs.MemFS, f *fault, h *history) (answers [][]error, s *Store) {
	o := testOptions(faulty(disk, f))
	o.MemTable = 128 << 10
	s = mustOpen(t, "/store", o)
	f.on.Store(true)
	answers = make([][]error, len(h.objects))
	var wg sync.WaitGroup
	for n := range h.objects {
		wg.Go(func() {
			for range 15 {
				answers[n] = append(answers[n], h.step(t, s, n))
			}
		})
	}
	wg.Wait()
	f.on.Store(false)
	return answers, s
}

// Many callers wait for one fsync that fails: each is answered, none is told
// that its batch is safe, and none after it.
func TestSyncFailsUnderLoad(t *testing.T) {
	r := randomly(t)
	for n := int64(1); n < 60; n += 3 {
		disk := vfs.NewCrashableMem()
		h := newHistory(12)
		f := &fault{match: isSync, from: n, until: n + 1, err: syscall.EIO}
		answers, s := underLoad(t, disk, f, h)
		if f.hits.Load() == 0 {
			t.Fatalf("fsync %d never came", n)
		}
		<-s.Failed()
		for _, a := range answers {
			if err := stoppedAfter(a, true); err != nil {
				t.Errorf("fsync %d: %v", n, err)
			}
		}
		if err := h.step(t, s, 0); !errors.Is(err, store.ErrFailed) {
			t.Errorf("fsync %d: put afterwards: %v", n, err)
		}
		if err := s.Close(); !errors.Is(err, store.ErrFailed) {
			t.Errorf("close: %v", err)
		}
		reopened(t, clone(disk, r, 0), h, true)
		reopened(t, clone(disk, r, 50), h, true)
	}
}

// The log runs out of space under many callers, again and again.
func TestNoSpaceUnderLoad(t *testing.T) {
	r := randomly(t)
	match := func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate }
	for n := int64(1); n < 90; n += 4 {
		disk := vfs.NewCrashableMem()
		h := newHistory(12)
		f := &fault{match: match, from: n, until: n + 6, err: syscall.ENOSPC}
		answers, s := underLoad(t, disk, f, h)
		for _, a := range answers {
			for _, err := range a {
				if err != nil && !errors.Is(err, store.ErrFull) {
					t.Errorf("write %d: %v", n, err)
				}
			}
		}
		for i := range h.objects {
			eventually(t, "room again", func() error { return h.step(t, s, i) })
		}
		if err := s.Close(); err != nil {
			t.Errorf("write %d: close: %v", n, err)
		}
		reopened(t, clone(disk, r, 0), h, false)
		if t.Failed() {
			t.FailNow()
		}
	}
}
