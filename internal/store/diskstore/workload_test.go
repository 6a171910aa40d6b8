package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// patience bounds one call: nothing a disk does may make a caller wait longer.
const patience = 20 * time.Second

// history is what callers were told of a set of objects. An object is a block
// and a head that are written and deleted together; its versions count up, and
// a single writer owns it.
type history struct {
	mu      sync.Mutex
	objects []object
}

type object struct {
	acked  uint64 // last version answered with nil
	issued uint64 // last version asked for
}

func newHistory(n int) *history { return &history{objects: make([]object, n)} }

func (h *history) snapshot() []object {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]object(nil), h.objects...)
}

// Every fifth version is a deletion, as is version 0, which was never written.
func isDeletion(version uint64) bool { return version%5 == 0 }

// blockSize spreads over inline values and files.
func blockSize(object int, version uint64) int {
	return []int{0, 300, testLarge - 1, testLarge, testLarge + 5000}[(uint64(object)+version)%5]
}

func blockValue(object int, version uint64) []byte {
	return storetest.Value(uint64(object)<<12|version, blockSize(object, version))
}

// headValue is long, so that Pebble has something to flush and to compact.
func headValue(version uint64) []byte {
	return fmt.Appendf(make([]byte, 0, 6000), "%-6000d", version)
}

func objectKeys(object int) (block, head store.Key) {
	g := storetest.GUID(uint64(object) + 1)
	return store.Key{Family: store.Block, GUID: g}, store.Key{Family: store.Head, GUID: g}
}

// step asks for the next version of an object and records the answer.
func (h *history) step(t testing.TB, s *Store, n int) error {
	h.mu.Lock()
	h.objects[n].issued++
	version := h.objects[n].issued
	h.mu.Unlock()

	err := h.apply(t, s, n, version)
	if err == nil {
		h.mu.Lock()
		h.objects[n].acked = version
		h.mu.Unlock()
	}
	return err
}

// repair puts what an object has been acknowledged to be once more, as the
// repair of a damaged copy does. Without such a version it does nothing.
func (h *history) repair(t testing.TB, s *Store, n int) error {
	h.mu.Lock()
	o := h.objects[n]
	h.mu.Unlock()
	if o.issued != o.acked || isDeletion(o.acked) {
		return nil
	}
	return h.apply(t, s, n, o.acked)
}

func (h *history) apply(t testing.TB, s *Store, n int, version uint64) error {
	block, head := objectKeys(n)
	b := store.Batch{Ops: []store.Op{{Key: block, Delete: true}, {Key: head, Delete: true}}, Urgent: true}
	if !isDeletion(version) {
		b = store.Batch{Ops: []store.Op{
			{Key: head, Value: headValue(version)},
			{Key: block, Value: blockValue(n, version)},
		}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := s.Apply(ctx, b)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("object %d version %d: no answer within %v", n, version, patience)
	}
	return err
}

// check returns how a store contradicts what callers were told. before was
// taken before the disk's state, after after it: each object must be in one of
// the versions between, its block and head in the same.
func check(t testing.TB, s *Store, before, after []object) error {
	for n := range before {
		block, head := objectKeys(n)
		hv, herr := s.Get(t.Context(), head)
		bv, berr := s.Get(t.Context(), block)
		if (herr != nil && !errors.Is(herr, store.ErrNotFound)) || (berr != nil && !errors.Is(berr, store.ErrNotFound)) {
			return fmt.Errorf("object %d: head %w, block %w", n, herr, berr)
		}
		if (herr == nil) != (berr == nil) {
			return fmt.Errorf("object %d: half a batch: head %w, block %w", n, herr, berr)
		}
		if err := plausible(n, before[n].acked, after[n].issued, hv, bv, herr == nil); err != nil {
			return err
		}
	}
	return checkFiles(s)
}

func plausible(n int, lo, hi uint64, head, block []byte, present bool) error {
	for v := lo; v <= hi; v++ {
		if isDeletion(v) != present && (!present || (bytes.Equal(head, headValue(v)) && bytes.Equal(block, blockValue(n, v)))) {
			return nil
		}
	}
	if !present {
		return fmt.Errorf("object %d: absent, was acknowledged at version %d, asked for %d", n, lo, hi)
	}
	return fmt.Errorf("object %d: head %.8q and %d bytes; was acknowledged at version %d, asked for %d", n, head, len(block), lo, hi)
}

// checkFiles compares the block files with the records that name them.
func checkFiles(s *Store) error {
	live, err := s.liveFiles(0, 1<<62)
	if err != nil {
		return err
	}
	var found int
	shards, err := s.opts.FS.List(s.blocks.dir)
	if err != nil {
		return err
	}
	for _, sh := range shards {
		files, err := s.opts.FS.List(s.opts.FS.PathJoin(s.blocks.dir, sh))
		if err != nil {
			return err
		}
		found += len(files)
	}
	if found != len(live) || s.missing != 0 {
		return fmt.Errorf("%d block files, %d records name one, %d of those had none at start", found, len(live), s.missing)
	}
	used, err := s.recount()
	if err != nil {
		return err
	}
	if err := checkSegments(s, used.live); err != nil {
		return err
	}
	if u := s.Usage(); u.Used != used.used || u.Blocks != used.blocks {
		return fmt.Errorf("usage says %d bytes in %d blocks, the records %d in %d", u.Used, u.Blocks, used.used, used.blocks)
	}
	return nil
}

// checkSegments compares the segments with the records that name them. The
// store must be quiet.
func checkSegments(s *Store, want map[uint64]int64) error {
	has, err := s.readLive()
	if err != nil {
		return err
	}
	for number, live := range has {
		if live != want[number] {
			return fmt.Errorf("segment %d: %d bytes live by its count, %d by the records", number, live, want[number])
		}
		if _, err := s.opts.FS.Stat(s.segments.path(number)); live > 0 && err != nil {
			return err
		}
	}
	for number := range want {
		if has[number] == 0 {
			return fmt.Errorf("segment %d has records and no count", number)
		}
	}
	return nil
}

// syncFS calls before and after around every fsync.
type syncFS struct {
	vfs.FS
	cut func(name string)
	mu  sync.Mutex // MemFS cannot be cloned during a ReuseForWrite: it would lock itself out
}

func (f *syncFS) cutAt(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut(name)
}

func (f *syncFS) Unwrap() vfs.FS { return f.FS }

func (f *syncFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &syncFile{File: file, fs: f, name: name}, nil
}

func (f *syncFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f *syncFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(name, file, err)
}

func (f *syncFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.mu.Lock()
	file, err := f.FS.ReuseForWrite(oldname, newname, c)
	f.mu.Unlock()
	return f.wrap(newname, file, err)
}

func (f *syncFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}

type syncFile struct {
	vfs.File
	fs   *syncFS
	name string
}

func (f *syncFile) Sync() error {
	f.fs.cutAt(f.name)
	err := f.File.Sync()
	f.fs.cutAt(f.name)
	return err
}

func (f *syncFile) SyncData() error { return f.Sync() }

// randomly returns a source that a failing test names by its seed.
func randomly(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("STORE_SEED"); v != "" {
		if _, err := fmt.Sscan(v, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("STORE_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}

// clone is what a power cut leaves; percent of the unsynced data survives.
func clone(m *vfs.MemFS, r *rand.Rand, percent int) *vfs.MemFS {
	return m.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r})
}

// everything is the range of all GUIDs.
func everything() (lo, hi id.GUID) {
	for i := range hi {
		hi[i] = 0xff
	}
	return lo, hi
}

// blockPaths lists the block files of a store in a file system.
func blockPaths(t testing.TB, f vfs.FS, dir string) (paths []string) {
	t.Helper()
	root := f.PathJoin(dir, blocksName)
	shards, err := f.List(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, sh := range shards {
		files, err := f.List(f.PathJoin(root, sh))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, blockSuffix) {
				paths = append(paths, f.PathJoin(root, sh, name))
			}
		}
	}
	return paths
}

// eventually waits for a condition that the store brings about by itself.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}
