package acceptance

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestKillAll: all eight members are killed at a random moment during writes
// and start again, several times over: every object that was acknowledged is
// there. Some are of one block, some of several.
func TestKillAll(t *testing.T) {
	alone(t)
	rounds := 2
	if *full {
		rounds = 10
	}
	rnd := rand.New(rand.NewPCG(13, uint64(time.Now().UnixNano())))
	p := newPool(t, 8)
	var mu sync.Mutex
	var acked []stored
	large := 0 // of them
	for round := range rounds {
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for n := 0; ; n++ {
					size := rnd.Int64N(600_000)
					if n%4 == w {
						size = 2<<20 + rnd.Int64N(3<<20)
					}
					f, err := p.put(w*2, size, rnd)
					if err != nil {
						return // killed under it: not acknowledged
					}
					mu.Lock()
					acked = append(acked, f)
					if size >= 2<<20 {
						large++
					}
					mu.Unlock()
				}
			})
		}
		moment := time.Duration(500+rnd.IntN(2500)) * time.Millisecond
		<-time.After(moment) // the random moment itself: nothing is waited for
		// On a machine so slow that nothing has been acknowledged yet, nothing would
		// be shown.
		p.until(time.Minute, "a first write to be acknowledged", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acked) > 0
		})
		var killers sync.WaitGroup
		for i := range p.procs {
			killers.Go(func() { p.kill(i) })
		}
		killers.Wait()
		writers.Wait()
		var starters sync.WaitGroup
		for i := range p.procs {
			starters.Go(func() { p.start(i, "up") })
		}
		starters.Wait()
		p.allFull(0, 2*time.Minute)
		p.readAll(acked)
		t.Logf("round %d: killed after %s, %d objects acknowledged so far, %d of them of several blocks, all there", round+1, moment, len(acked), large)
	}
}
