package diskstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestDamagedIndex: whatever bit of Pebble's own files is flipped, Open either
// finds a store, whose records pass their checks or not, or says ErrDamaged.
func TestDamagedIndex(t *testing.T) {
	disk, s, _ := damaged(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	dir := s.folder.path(metaName)
	names, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(map[string]int)
	for _, name := range names {
		path := disk.PathJoin(dir, name)
		b, err := disk.UnsafeGetFileDataBuffer(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 3; i < len(b)*8; i += 1 + len(b)/4 {
			copied := vfs.NewMem()
			if _, err := vfs.Clone(disk, copied, "/store", "/store"); err != nil {
				t.Fatal(err)
			}
			c, err := copied.UnsafeGetFileDataBuffer(path)
			if err != nil {
				t.Fatal(err)
			}
			c[i/8] ^= 1 << (i % 8)
			again, err := Open("/store", testOptions(copied))
			switch {
			case err == nil:
				_ = again.Close() // what it thinks of its last words is its own affair
			case errors.Is(err, ErrDamaged):
				kind, _, _ := strings.Cut(strings.TrimLeft(name, "0123456789"), "-")
				refused[kind]++
			default:
				t.Errorf("bit %d of %s: %v", i, name, err)
			}
		}
	}
	if refused["MANIFEST"] == 0 {
		t.Errorf("no flip in the manifest was seen: %v", refused)
	}
	t.Log(refused)
}
