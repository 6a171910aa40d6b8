package files

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"atoll.example/atoll/internal/id"
)

// cached reports whether a page of a file is in the page cache.
func cached(t *testing.T, f *os.File, off int64) bool {
	t.Helper()
	b, err := unix.Mmap(int(f.Fd()), off, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	var there [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&there[0])))
	if errno != 0 {
		t.Fatalf("the page cache cannot be asked: %v", errno)
	}
	return there[0]&1 != 0
}

// A large output does not fill the page cache, a small one stays in it, and the
// bytes are the same wherever kernel and file system can do no such thing.
func TestLargeOutputsLeaveThePageCache(t *testing.T) {
	const chunk = 1 << 20
	dir := t.TempDir()
	probe, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	able := writeOnce(probe, []byte("x"), 0) == 1
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, c := range []struct {
		name  string
		total uint64
	}{{"small", cachedMost}, {"large", cachedMost + 1}} {
		p, err := openPart(root, c.name, id.GUID{1}, c.total, chunk, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		want := data(7, chunk)
		if err := p.write(want, 2*chunk); err != nil {
			t.Fatal(err)
		}
		if err := p.data.Sync(); err != nil {
			t.Fatal(err)
		}
		if c.name == "small" && !cached(t, p.data, 2*chunk) {
			t.Error("a small output left the page cache")
		}
		// Pages go when the kernel has done with the write, a moment after the fsync.
		for until := time.Now().Add(10 * time.Second); able && c.name == "large" && cached(t, p.data, 2*chunk); {
			if time.Now().After(until) {
				t.Fatal("a large output stays in the page cache")
			}
			time.Sleep(time.Millisecond)
		}
		got := make([]byte, chunk)
		if _, err := p.data.ReadAt(got, 2*chunk); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read back: %v", c.name, err)
		}
	}
}
