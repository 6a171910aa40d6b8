package diskstore

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// fault fails chosen operations of a disk.
type fault struct {
	on    atomic.Bool
	count atomic.Int64 // operations that could have failed
	hits  atomic.Int64 // operations that did
	first atomic.Pointer[errorfs.Op]
	match func(op errorfs.Op) bool
	from  int64 // first operation to fail, counted from 1
	until int64 // first operation not to fail
	err   error
}

func (f *fault) String() string { return "fault" }

// MaybeError implements errorfs.Injector.
func (f *fault) MaybeError(op errorfs.Op) error {
	if !f.on.Load() || (f.match != nil && !f.match(op)) {
		return nil
	}
	n := f.count.Add(1)
	if n < f.from || n >= f.until {
		return nil
	}
	f.hits.Add(1)
	f.first.CompareAndSwap(nil, &op)
	return f.err
}

// faulty lets inj judge every operation on fs. errorfs alone hands out the log that
// Pebble uses again as it is, so that writes and fsyncs of it never fail.
func faulty(fs vfs.FS, inj errorfs.Injector) vfs.FS { return errorfs.Wrap(reusing{fs, inj}, inj) }

type reusing struct {
	vfs.FS
	inj errorfs.Injector
}

// ReuseForWrite implements vfs.FS.
func (r reusing) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := r.FS.ReuseForWrite(oldname, newname, c)
	if err != nil {
		return nil, err
	}
	return errorfs.WrapFile(f, named{r.inj, newname}), nil
}

// named says of which file an operation is.
type named struct {
	errorfs.Injector
	path string
}

// MaybeError implements errorfs.Injector.
func (n named) MaybeError(op errorfs.Op) error {
	op.Path = n.path
	return n.Injector.MaybeError(op)
}

func isWrite(op errorfs.Op) bool {
	return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpLock
}

func isSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
}

func needsSpace(op errorfs.Op) bool {
	return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpReuseForWrite || op.Kind == errorfs.OpMkdirAll
}

// fileKind names the part of a store that an operation is about.
func fileKind(op errorfs.Op) string {
	switch base := path.Base(op.Path); {
	case isSegment(base), isBlock(base), strings.HasSuffix(base, ".log"),
		strings.HasSuffix(base, ".sst"):
		return path.Ext(base)
	case strings.HasPrefix(base, "MANIFEST"):
		return "MANIFEST"
	}
	return "other"
}

// work is a life of a store in small: puts and removals, with reads between
// them and the compaction of segments that they cause; repairs; Pebble's flush
// and compaction; a scrub.
func work(t testing.TB, s *Store, f *fault, h *history) (answers []error) {
	read := func(k store.Key) {
		if _, err := s.Get(t.Context(), k); err != nil && !errors.Is(err, store.ErrNotFound) && f.hits.Load() == 0 {
			t.Fatalf("get %v: %v", k, err)
		}
	}
	for i := range 40 {
		answers = append(answers, h.step(t, s, i%len(h.objects)))
		block, head := objectKeys((i + 1) % len(h.objects))
		read(block)
		read(head)
	}
	for n := range h.objects {
		if err := h.repair(t, s, n); err != nil {
			answers = append(answers, err)
		}
	}
	compactTable(t, s, f)
	lo, hi := everything()
	for _, fam := range []store.Family{store.Head, store.Block} {
		var keys []store.Key
		err := s.Range(t.Context(), fam, lo, hi, func(k store.Key, _ []byte) bool {
			keys = append(keys, k)
			return true
		})
		if err != nil && f.hits.Load() == 0 {
			t.Fatalf("range: %v", err)
		}
		for _, k := range keys {
			read(k)
		}
	}
	return answers
}

// compactTable makes Pebble flush and compact all it has. A flush that a fault
// has stopped for good is not waited for.
func compactTable(t testing.TB, s *Store, f *fault) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			if f.hits.Load() == 0 {
				panic(p)
			}
			s.table.stuck = true
		}
	}()
	watch := time.AfterFunc(0, func() {
		again := time.NewTicker(time.Millisecond)
		defer again.Stop()
		for range again.C {
			if ctx.Err() != nil || s.guard.Load().stopped.Load() {
				cancel()
				return
			}
		}
	})
	defer watch.Stop()
	if err := s.table.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil && f.hits.Load() == 0 {
		t.Fatalf("compact: %v", err)
	}
}

// session opens a store on a disk with a fault, works on it and closes it. It
// returns the answers to the steps.
func session(t testing.TB, disk *vfs.MemFS, f *fault, h *history, o Options) (answers []error, failed bool, opened error) {
	o.FS = faulty(disk, f)
	o.MemTable = 128 << 10
	f.on.Store(true)
	defer f.on.Store(false)
	s, err := Open("/store", o)
	if err != nil {
		return nil, false, err
	}
	answers = work(t, s, f, h)
	err = s.Close()
	select {
	case <-s.Failed():
		failed = true
		if !errors.Is(err, store.ErrFailed) {
			t.Errorf("close of a failed store: %v", err)
		}
	default:
		if err != nil && f.hits.Load() == 0 {
			t.Errorf("close: %v", err)
		}
	}
	return answers, failed, nil
}

// reopened opens what a session left and compares it with what was promised.
func reopened(t testing.TB, disk *vfs.MemFS, h *history, mayBeMarked bool) {
	t.Helper()
	o := testOptions(disk)
	s, err := Open("/store", o)
	if errors.Is(err, ErrNotAccepted) && mayBeMarked {
		o.AcceptFailed = true
		s, err = Open("/store", o)
	}
	if err != nil {
		t.Fatalf("open again: %v", err)
	}
	now := h.snapshot()
	if err := check(t, s, now, now); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{{Key: store.Key{Family: store.Meta, Sub: "x"}, Value: []byte("y")}}}); err != nil {
		t.Errorf("put after the fault: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// eachIO runs a session for each operation that can fail until one ran without
// a fault. A crash follows each: the disk is what was synced.
func eachIO(t *testing.T, match func(errorfs.Op) bool, cause error, then func(answers []error, failed bool, op errorfs.Op)) {
	r := randomly(t)
	stride := int64(1)
	if testing.Short() {
		stride = 7
	}
	n, opens := int64(1), 0
	struck := make(map[string]int)
	for ; ; n += stride {
		disk := vfs.NewCrashableMem()
		h := newHistory(4)
		f := &fault{match: match, from: n, until: n + 1, err: cause}
		answers, failed, opened := session(t, disk, f, h, testOptions(nil))
		if f.hits.Load() == 0 {
			if opened != nil {
				t.Fatal(opened)
			}
			break
		}
		op := *f.first.Load()
		struck[fileKind(op)]++
		if opened != nil {
			opens++
		} else {
			then(answers, failed, op)
		}
		reopened(t, clone(disk, r, 0), h, true)
		reopened(t, clone(disk, r, 50), h, true)
		if t.Failed() {
			t.Fatalf("operation %d: %v %s", n, op.Kind, op.Path)
		}
	}
	t.Logf("%d operations failed in turn, %d of them in Open: %v", n/stride, opens, struck)
	for _, kind := range []string{".log", ".sst", "MANIFEST", ".seg", ".blk"} {
		if struck[kind] == 0 && stride == 1 {
			t.Errorf("none on a file of kind %s", kind)
		}
	}
}

// Crash safety, layer 4: the n-th I/O fails, for every n (60-reliability §4).
func TestEachIOFails(t *testing.T) {
	t.Parallel()
	eachIO(t, func(op errorfs.Op) bool { return op.Kind != errorfs.OpGetDiskUsage }, syscall.EIO,
		func([]error, bool, errorfs.Op) {})
}

// After the first fsync error nothing is acknowledged any more.
func TestEachSyncFails(t *testing.T) {
	t.Parallel()
	eachIO(t, isSync, syscall.EIO, func(answers []error, failed bool, op errorfs.Op) {
		if err := stoppedAfter(answers, failed); err != nil {
			t.Errorf("fsync of %s: %v", op.Path, err)
		}
	})
}

// stoppedAfter returns how answers break the rule that a store stops for good.
func stoppedAfter(answers []error, failed bool) error {
	if !failed {
		return errors.New("the store goes on")
	}
	stopped := false
	for i, err := range answers {
		if errors.Is(err, store.ErrFailed) {
			stopped = true
		} else if stopped {
			return fmt.Errorf("answer %d is %w after ErrFailed", i, err)
		}
	}
	return nil
}

// The check above must be able to fail.
func TestSyncFailureIgnoredIsFound(t *testing.T) {
	found := 0
	for n := range int64(40) {
		o := testOptions(nil)
		o.planted.ignoreSyncError = true
		f := &fault{match: isSync, from: n + 10, until: n + 11, err: syscall.EIO}
		answers, failed, opened := session(t, vfs.NewCrashableMem(), f, newHistory(4), o)
		if opened == nil && f.hits.Load() > 0 && stoppedAfter(answers, failed) != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("a store that goes on after an fsync error was not found")
	}
}

// The disk dies at some write and stays dead.
func TestDiskDies(t *testing.T) {
	t.Parallel()
	r := randomly(t)
	for n := int64(1); ; n += 9 {
		disk := vfs.NewCrashableMem()
		h := newHistory(4)
		f := &fault{match: isWrite, from: n, until: 1 << 60, err: syscall.EIO}
		_, _, opened := session(t, disk, f, h, testOptions(nil))
		if f.hits.Load() == 0 {
			if opened != nil {
				t.Fatal(opened)
			}
			return
		}
		reopened(t, clone(disk, r, 0), h, false) // FAILED could not be written
		if t.Failed() {
			t.Fatalf("dead from write %d on: %v", n, *f.first.Load())
		}
	}
}

// One write meets ENOSPC: whoever is answered ErrFull has lost nothing, and the
// store goes on.
func TestEachWriteNoSpace(t *testing.T) {
	t.Parallel()
	match := func(op errorfs.Op) bool { return isWrite(op) && !isSync(op) && op.Kind != errorfs.OpFileSyncTo }
	eachIO(t, match, syscall.ENOSPC, func(answers []error, failed bool, op errorfs.Op) {
		if failed {
			t.Errorf("stopped for want of space at %v %s", op.Kind, op.Path)
		}
		refused := 0
		for i, err := range answers {
			if err != nil && !errors.Is(err, store.ErrFull) {
				t.Errorf("answer %d: %v", i, err)
			}
			if err != nil {
				refused++
			}
		}
		// What Pebble writes in the background is tried again in a while.
		background := fileKind(op) == ".sst" || fileKind(op) == "MANIFEST"
		if refused > 2 && !background {
			t.Errorf("%d of %d batches refused after one failed write", refused, len(answers))
		}
	})
}

// The file system is full for a while: puts are refused, gets answered, and
// all is well when there is room again.
func TestNoSpaceForAWhile(t *testing.T) {
	disk := vfs.NewCrashableMem()
	h := newHistory(6)
	f := &fault{match: needsSpace, from: 1, until: 1 << 60, err: syscall.ENOSPC}
	o := testOptions(faulty(disk, f))
	o.MemTable = 128 << 10
	s := mustOpen(t, "/store", o)
	for round := range 4 {
		for i := range 30 {
			// A batch that takes no more room than what it replaces is accepted at once;
			// the others wait until Pebble has written a table again.
			if round > 0 {
				eventually(t, "room again", func() error { return h.step(t, s, i%6) })
			} else if err := h.step(t, s, i%6); err != nil {
				t.Fatal(err)
			}
		}
		acked := h.snapshot()
		f.on.Store(true)
		for i := range 20 {
			if err := h.step(t, s, i%6); !errors.Is(err, store.ErrFull) {
				t.Errorf("round %d: %v, want store full", round, err)
			}
		}
		for n := range acked {
			block, _ := objectKeys(n)
			if _, err := s.Get(t.Context(), block); err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("round %d: get: %v", round, err)
			}
		}
		f.on.Store(false)
	}
	for i := range 6 {
		eventually(t, "room again", func() error { return h.step(t, s, i) })
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	reopened(t, clone(disk, randomly(t), 0), h, false)
}
