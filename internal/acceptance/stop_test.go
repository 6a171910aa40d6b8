package acceptance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
)

// TestStopped: a member that is stopped says goodbye. The others do without it
// from then on: nobody has to find out that it is gone, which with the heartbeats
// of wan would take a minute and more, reads and writes go on, and its copies are
// not made again.
func TestStopped(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	p := newPool(t, 4, "--preset", "wan")
	files := p.putAll([]int64{0, 1, 100_000, 1 << 20}, rnd)
	p.allFull(0, time.Minute)
	before := p.repairBytes() - p.metric(3, `atoll_dht_bytes_total{what="repair"}`)
	stop := p.readOn(files, 0, 1, 3)
	p.stop(3)
	for i := range 3 {
		p.until(20*time.Second, fmt.Sprintf("node %d to know that the other has stopped", i), func() bool {
			var peers api.Peers
			if err := p.try(i, &peers, "peers"); err != nil {
				t.Fatal(err)
			}
			for _, m := range peers.Peers {
				if m.Name == "n3" {
					return m.State != "live"
				}
			}
			return false
		})
	}
	for i := range 3 {
		f, err := p.put(i, 200_000, rnd)
		if err != nil {
			t.Fatalf("a write through node %d: %v", i, err)
		}
		files = append(files, f)
	}
	p.readAll(files)
	if read, failed := stop(); len(failed) > 0 {
		t.Fatalf("%d of %d reads failed, the first: %v", len(failed), read, failed[0])
	}
	for i := range 3 {
		if n := p.traced(i, "pastry.goodbye"); n != 1 {
			t.Errorf("node %d heard %d goodbyes", i, n)
		}
		for _, kind := range []string{"pastry.suspect", "pastry.evict", "dht.standin"} {
			if n := p.traced(i, kind); n != 0 {
				t.Errorf("node %d: %d times %s, which takes time", i, n, kind)
			}
		}
	}
	if n := p.repairBytes() - before; n != 0 {
		t.Errorf("%d bytes copied for a member that is expected back", n)
	}
	p.start(3, "up")
	p.allFull(3, time.Minute)
	p.readAll(files)
}

// TestRollingRestart: members are stopped and started one after the other, while
// clients write and read through any that runs. Every operation succeeds.
func TestRollingRestart(t *testing.T) {
	p := newPool(t, 4)
	files := p.putAll([]int64{0, 1, 100_000, 1 << 20}, rand.New(rand.NewPCG(13, 14)))
	quit := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex // of what follows
	ops, elsewhere := 0, 0
	// anywhere does op through a random member, and through the next one while
	// those asked are being stopped.
	anywhere := func(rnd *rand.Rand, op func(i int) error) error {
		first := rnd.IntN(len(p.procs))
		var err error
		for i := range p.procs {
			if err = op((first + i) % len(p.procs)); err == nil {
				break
			}
			if s := err.Error(); !strings.Contains(s, `"not_running"`) && !strings.Contains(s, "ended before it answered") {
				break
			}
			mu.Lock()
			elsewhere++
			mu.Unlock()
		}
		mu.Lock()
		ops++
		mu.Unlock()
		return err
	}
	for c := range 2 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 15))
			mine := files
			for {
				select {
				case <-quit:
					return
				default:
				}
				var f stored
				err := anywhere(rnd, func(i int) (err error) {
					f, err = p.put(i, 1+rnd.Int64N(300_000), rnd)
					return err
				})
				if err == nil {
					mine = append(mine, f)
					err = anywhere(rnd, func(i int) error { return p.get(i, mine[rnd.IntN(len(mine))], rnd) })
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range p.procs {
		p.stop(i)
		p.start(i, "up")
		p.grow(0)
	}
	close(quit)
	all.Wait()
	t.Logf("%d operations, %d of them through another member than the first asked", ops, elsewhere)
	p.allFull(0, time.Minute)
	p.readAll(files)
}
