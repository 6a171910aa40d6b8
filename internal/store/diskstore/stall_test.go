package diskstore

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// slowTables lets no table be begun until free is closed. The first file of the kind
// full that is written then meets the end of the disk.
type slowTables struct {
	fault
	full string
	free chan struct{}
}

func newSlowTables(full string, times int64) *slowTables {
	s := &slowTables{full: full, free: make(chan struct{})}
	s.fault = fault{match: s.hold, from: 1, until: 1 + times, err: syscall.ENOSPC}
	return s
}

func (s *slowTables) hold(op errorfs.Op) bool {
	if op.Kind == errorfs.OpCreate && fileKind(op) == ".sst" {
		<-s.free
	}
	return fileKind(op) == s.full && needsSpace(op)
}

// Writers wait until memtables have been flushed. If the disk is full by then, be
// it for the table or for the manifest that is to name it, they do not wait for
// ever: they are refused, or taken by a Pebble that has been opened anew.
func TestNoSpaceWhileWritersWait(t *testing.T) {
	for full, times := range map[string]int64{".sst": 1 << 60, "MANIFEST": 1} {
		t.Run(full, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			h := newHistory(6)
			synctest.Test(t, func(t *testing.T) {
				slow := newSlowTables(full, times)
				o := testOptions(faulty(disk, slow))
				o.MemTable = 128 << 10
				s := mustOpen(t, "/store", o)
				slow.on.Store(true)
				answers := make(chan error, 200)
				go func() {
					defer close(answers)
					for i := range cap(answers) {
						answers <- h.step(t, s, i%6)
					}
				}()
				synctest.Wait()
				if n := len(answers); n == 0 || n == cap(answers) {
					t.Errorf("%d batches were answered before one waits", n)
				}
				close(slow.free)
				for err := range answers {
					if err != nil && !errors.Is(err, store.ErrFull) {
						t.Error(err)
					}
				}
				if slow.hits.Load() == 0 {
					t.Error("the disk was never full")
				}
				slow.on.Store(false)
				for i := range h.objects {
					eventually(t, "room again", func() error { return h.step(t, s, i) })
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			reopened(t, clone(disk, randomly(t), 0), h, false)
		})
	}
}

// The log met the end of the disk; there was room for a moment, and none when
// Pebble was to be opened anew. The store reads on, and goes on once there is room.
func TestNoSpaceToReopen(t *testing.T) {
	t.Parallel()
	for _, full := range []string{".sst", "MANIFEST"} {
		t.Run(full, func(t *testing.T) {
			t.Parallel()
			disk := vfs.NewCrashableMem()
			h := newHistory(6)
			kind := ".log"
			f := &fault{from: 1, until: 1 << 60, err: syscall.ENOSPC, match: func(op errorfs.Op) bool {
				return fileKind(op) == kind && needsSpace(op)
			}}
			s := mustOpen(t, "/store", testOptions(faulty(disk, f)))
			for i := range h.objects {
				if err := h.step(t, s, i); err != nil {
					t.Fatal(err)
				}
			}
			f.on.Store(true)
			if err := h.step(t, s, 0); !errors.Is(err, store.ErrFull) {
				t.Errorf("the log is full: %v", err)
			}
			f.on.Store(false)
			kind = full
			f.on.Store(true)
			if err := h.step(t, s, 0); !errors.Is(err, store.ErrFull) {
				t.Errorf("the disk is full again: %v", err)
			}
			now := h.snapshot()
			for n := range now {
				block, _ := objectKeys(n)
				if b, err := s.Get(t.Context(), block); err != nil || len(b) != blockSize(n, now[n].acked) {
					t.Errorf("get: %d bytes, %v", len(b), err)
				}
			}
			f.on.Store(false)
			for i := range h.objects {
				eventually(t, "room again", func() error { return h.step(t, s, i) })
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			reopened(t, clone(disk, randomly(t), 0), h, false)
		})
	}
}
