package diskstore

import (
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// testLarge is the threshold of most tests: it spares memory and time.
const testLarge = 8 << 10

// testSegment is the length of a segment in most tests: four of their blocks.
const testSegment = 4 * testLarge

// testPool is the pool tag of every test.
var testPool = []byte("pool-tag")

func testOptions(f vfs.FS) Options {
	return Options{
		Pool: testPool, FS: f, Limit: 1 << 30,
		Threshold: testLarge, MemTable: 256 << 10, Cache: 1 << 20,
		alone: -1, segment: testSegment, compactAgain: 1, reviveEvery: 1,
	}
}

func mustOpen(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func reopen(o Options, dir string) func(testing.TB, store.Store) store.Store {
	return func(t testing.TB, s store.Store) store.Store {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		return mustOpen(t, dir, o)
	}
}

func TestConformanceMem(t *testing.T) {
	t.Parallel()
	var o Options
	storetest.Run(t, storetest.Target{
		Large: testLarge,
		Open: func(t testing.TB, limit int64) store.Store {
			o = testOptions(vfs.NewMem())
			o.Limit = limit
			return mustOpen(t, "/store", o)
		},
		Reopen: func(t testing.TB, s store.Store) store.Store { return reopen(o, "/store")(t, s) },
	})
}

func TestConformanceDisk(t *testing.T) {
	t.Parallel() // it waits for fsyncs, mostly
	var o Options
	var dir string
	storetest.Run(t, storetest.Target{
		Large: DefaultThreshold,
		Open: func(t testing.TB, limit int64) store.Store {
			o = Options{Pool: testPool, Limit: limit}
			dir = filepath.Join(t.TempDir(), "store")
			return mustOpen(t, dir, o)
		},
		Reopen: func(t testing.TB, s store.Store) store.Store { return reopen(o, dir)(t, s) },
	})
}
