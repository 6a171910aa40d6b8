package files

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store/storetest"
)

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
		cached := func() bool { return storetest.InCache(t, p.data, 2*chunk) }
		if c.name == "small" && !cached() {
			t.Error("a small output left the page cache")
		}
		if c.name == "large" && able {
			// Pages go when the kernel has done with the write, a moment after the fsync.
			waitFor(t, "a large output leaves the page cache", func() bool { return !cached() })
		}
		got := make([]byte, chunk)
		if _, err := p.data.ReadAt(got, 2*chunk); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read back: %v", c.name, err)
		}
	}
}
