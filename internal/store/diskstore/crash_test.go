package diskstore

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cut is a disk after a power cut and what had been promised by then.
type cut struct {
	disk          *vfs.MemFS
	before, after []object
}

// powerCuts runs a workload of puts, overwrites, deletions, repairs and
// compactions on a disk whose power may fail, and returns the disk as it would be found had it failed
// before or after each fsync, with random survival of what was not synced.
func powerCuts(t testing.TB, r *rand.Rand, p planted, writers, steps int) []cut {
	disk := vfs.NewCrashableMem()
	h := newHistory(writers * 2)
	var mu sync.Mutex // guards r and cuts
	var cuts []cut
	o := testOptions(&syncFS{FS: disk, cut: func(string) {
		mu.Lock()
		defer mu.Unlock()
		percent := []int{0, 0, 30, 70}[r.IntN(4)]
		before := h.snapshot()
		c := cut{disk: clone(disk, r, percent), before: before}
		c.after = h.snapshot()
		cuts = append(cuts, c)
	}})
	o.planted = p
	o.MemTable = 128 << 10
	s := mustOpen(t, "/store", o)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range steps {
				if err := h.step(t, s, w*2+i%2); err != nil {
					t.Errorf("apply: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for n := range h.objects {
		if err := h.repair(t, s, n); err != nil {
			t.Errorf("repair: %v", err)
		}
	}
	compactTable(t, s, &fault{})
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return cuts
}

// survives opens the disk a cut left and returns how it contradicts what was
// promised. The power fails once more while it opens.
func survives(t testing.TB, r *rand.Rand, c cut) error {
	var mu sync.Mutex
	var again []*vfs.MemFS
	s, err := Open("/store", testOptions(&syncFS{FS: c.disk, cut: func(string) {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(8) == 0 {
			again = append(again, clone(c.disk, r, 50))
		}
	}}))
	if err != nil {
		return err
	}
	err = check(t, s, c.before, c.after)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil || len(again) == 0 {
		return err
	}
	s, err = Open("/store", testOptions(again[r.IntN(len(again))]))
	if err != nil {
		return err
	}
	err = check(t, s, c.before, c.after)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	return err
}

// Crash safety, layer 2: cut at every sync boundary (60-reliability §4).
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	r := randomly(t)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	total := 0
	for range rounds {
		cuts := powerCuts(t, r, planted{}, 3, 24)
		total += len(cuts)
		for i, c := range cuts {
			if err := survives(t, r, c); err != nil {
				t.Fatalf("cut %d of %d: %v", i, len(cuts), err)
			}
		}
	}
	t.Logf("%d cuts, nothing acknowledged was lost", total)
	if total < 100*rounds {
		t.Errorf("only %d cuts", total)
	}
}

// The suite must be able to fail: each planted bug loses what was promised.
func TestPowerCutsFindPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		bug  planted
	}{
		{"ack before fsync", planted{ackUnsynced: true}},
		{"no directory fsync after a block file", planted{skipDirSync: true}},
		{"record before its file", planted{recordFirst: true}},
		{"record before its segment", planted{segmentUnsynced: true}},
		{"no directory fsync after a segment is made", planted{segmentUnnamed: true}},
		{"segment deleted before its last record is", planted{dropEarly: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := randomly(t)
			lost, total := 0, 0
			for range 5 {
				for _, c := range powerCuts(t, r, c.bug, 3, 24) {
					total++
					if survives(t, r, c) != nil {
						lost++
					}
				}
				if lost > 0 {
					break
				}
			}
			t.Logf("%d of %d cuts show it", lost, total)
			if lost == 0 {
				t.Error("not found")
			}
		})
	}
}
