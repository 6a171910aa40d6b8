package sim

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// eachSeed runs seeds from, from+1, …, from+n−1 on all cores: each run by
// itself has one goroutine, so its history does not depend on how many go on
// beside it. What ctx kept from starting is the zero R; the first error of
// the lowest seed is returned.
func eachSeed[R any](ctx context.Context, from uint64, n int, progress func(Progress), run func(seed uint64) (R, error)) ([]R, error) {
	results, errs := make([]R, n), make([]error, n)
	began, next := time.Now(), make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0 // guarded by mu
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				results[i], errs[i] = run(from + uint64(i))
				mu.Lock()
				if done++; progress != nil {
					left := time.Since(began) / time.Duration(done) * time.Duration(n-done)
					progress(Progress{Phase: fmt.Sprintf("%d of %d seeds", done, n), Left: left})
				}
				mu.Unlock()
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}
