package diskstore

import (
	"bytes"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tear replaces sectors of what the power cut might have written by what was
// there before: full has everything that was written, synced what is safe.
func tear(t testing.TB, r *rand.Rand, full, synced *vfs.MemFS, sector int) (torn int) {
	var visit func(dir string)
	visit = func(dir string) {
		names, err := full.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			name = path.Join(dir, name)
			info, err := full.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				visit(name)
				continue
			}
			now, err := full.UnsafeGetFileDataBuffer(name)
			if err != nil {
				t.Fatal(err)
			}
			old, _ := synced.UnsafeGetFileDataBuffer(name) // absent: empty
			for at := 0; at < len(now); at += sector {
				part := now[at:min(at+sector, len(now))]
				was := make([]byte, len(part)) // zero beyond the old end
				if at < len(old) {
					copy(was, old[at:])
				}
				if !bytes.Equal(part, was) && r.IntN(2) == 0 {
					copy(part, was)
					torn++
				}
			}
		}
	}
	visit("/")
	return torn
}

// Writes torn at sectors of the log, of segments and of block files are noticed: what was
// acknowledged is there, what was under way is whole or absent.
func TestTornWrites(t *testing.T) {
	r := randomly(t)
	for _, sector := range []int{512, 4096} {
		disk := vfs.NewCrashableMem()
		h := newHistory(3)
		var cuts []cut
		torn := 0
		// One caller and no flushes: the two clones of a cut show one moment.
		o := testOptions(nil)
		o.MemTable = 8 << 20
		running := false
		o.FS = &syncFS{FS: disk, cut: func(name string) {
			if !running || (!strings.HasSuffix(name, ".log") && !isBlock(name) && !isSegment(name)) {
				return
			}
			c := cut{disk: clone(disk, r, 100), before: h.snapshot(), after: h.snapshot()}
			n := tear(t, r, c.disk, clone(disk, r, 0), sector)
			if torn += n; n > 0 {
				cuts = append(cuts, c)
			}
		}}
		s := mustOpen(t, "/store", o)
		running = true
		for i := range 60 {
			if err := h.step(t, s, i%3); err != nil {
				t.Fatal(err)
			}
		}
		running = false
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for i, c := range cuts {
			if err := survives(t, r, c); err != nil {
				t.Fatalf("sector %d, cut %d: %v", sector, i, err)
			}
		}
		t.Logf("sector %d: %d torn sectors in %d cuts", sector, torn, len(cuts))
		if torn < 50 {
			t.Errorf("only %d torn sectors", torn)
		}
	}
}
