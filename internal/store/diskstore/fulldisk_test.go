package diskstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// On a real file system of a few hundred MiB that somebody else fills. Prepare
// one, as root:
//
//	mount -t tmpfs -o size=400m tmpfs DIR && STORE_SMALL_FS=DIR go test -run RealFullDisk
func TestRealFullDisk(t *testing.T) {
	root := os.Getenv("STORE_SMALL_FS")
	if root == "" {
		machinetest.Skip(t, "STORE_SMALL_FS names no small file system")
	}
	dir := filepath.Join(root, "store")
	o := testOptions(vfs.Default)
	o.Limit, o.MemTable = 0, 1<<20
	s := mustOpen(t, dir, o)
	h := newHistory(200)
	for round := range 3 {
		for i := range h.objects {
			eventually(t, "put", func() error { return h.step(t, s, i) })
		}
		filler := filepath.Join(root, "filler")
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		refused := 0
		for range 20 {
			for i := range h.objects {
				err := h.step(t, s, i)
				if err != nil && !errors.Is(err, store.ErrFull) {
					t.Fatalf("round %d: %v", round, err)
				}
				if err != nil {
					refused++
				}
			}
		}
		t.Logf("round %d: %d of %d refused", round, refused, 20*len(h.objects))
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	for i := range h.objects {
		eventually(t, "room again", func() error { return h.step(t, s, i) })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Limit = 0
	s = mustOpen(t, dir, o)
	if err := check(t, s, h.snapshot(), h.snapshot()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
