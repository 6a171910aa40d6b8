package diskstore

import (
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// inCache reports whether the first page of a file is in the page cache.
func inCache(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return storetest.InCache(t, f, 0)
}

// can reports what kernel and file system at dir can do: drop pages, and read
// without leaving any.
func can(t *testing.T, dir string) (drop, readOnce bool) {
	t.Helper()
	path := filepath.Join(dir, "probe")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	drop = !inCache(t, path)
	_, err = unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 4096)}, 0, unix.RWF_DONTCACHE)
	return drop, drop && err == nil
}

// Neither a block that was written nor one that was read stays in the page
// cache, and one that was there for another reason is not driven out.
func TestBlocksLeaveThePageCache(t *testing.T) {
	dir := t.TempDir()
	drop, once := can(t, dir)
	s := mustOpen(t, filepath.Join(dir, "store"), testOptions(vfs.Default))
	defer s.Close()
	op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, 1<<20))
	if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
	rec, _, err := s.lookup(appendKey(nil, op.Key))
	if err != nil {
		t.Fatal(err)
	}
	path := s.blocks.path(rec.file)
	get := func() {
		t.Helper()
		if _, err := s.Get(t.Context(), op.Key); err != nil {
			t.Fatal(err)
		}
	}
	if inCache(t, path) && drop {
		t.Error("a written block stays in the page cache")
	}
	get()
	if inCache(t, path) && once {
		t.Error("a read block stays in the page cache")
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	get()
	if !inCache(t, path) {
		t.Error("a read drives out what was in the page cache")
	}
}
