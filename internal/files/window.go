package files

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Chosen by us: a retry is cheap beside the block it saves, and a pool that
// answers half of the time must not be asked twice as often.
const (
	retryBurst   = 16                    // retries before the budget counts
	retryPermil  = 100                   // retries earned by 1,000 successes: 10 % (20-dht §3)
	retryMost    = 6                     // of one block, except for busy
	busyMost     = 60                    // of one block
	retryPatient = 5 * time.Second       // a call that took longer has tried enough: the pool retries itself
	retryBase    = 50 * time.Millisecond // doubled each time, jittered
	retryCeiling = 5 * time.Second
	growAfter    = 4 // windows; a pool that takes 3 at once refused 18 % of 1,000 blocks at 1, 6 % at 4 (TestBusyNarrowsTheWindow)
)

// window bounds the blocks in transfer of one file: additive increase,
// multiplicative decrease, driven by "busy" refusals. It also holds the
// transfer's retry budget.
type window struct {
	tokens chan struct{}

	mu     sync.Mutex // guards all below
	limit  int
	most   int
	excess int // tokens to swallow when they come back
	streak int // successes since the last change
	budget int // in thousandths of a retry
}

func newWindow(most int) *window {
	w := &window{tokens: make(chan struct{}, most), limit: most, most: most, budget: retryBurst * 1000}
	for range most {
		w.tokens <- struct{}{}
	}
	return w
}

func (w *window) acquire(ctx context.Context) error {
	_, _, err := take(ctx, w.tokens)
	return err
}

// release gives the place back. busy halves the window, growAfter windows of
// success widen it by one place.
func (w *window) release(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.budget = min(w.budget+retryPermil, retryBurst*1000)
		if w.streak++; w.streak >= growAfter*w.limit && w.limit < w.most {
			w.streak = 0
			w.limit++
			if w.excess > 0 {
				w.excess--
			} else {
				w.tokens <- struct{}{}
			}
		}
	case Code(err) == codeBusy:
		w.streak = 0
		if half := max(1, w.limit/2); half < w.limit {
			w.excess += w.limit - half
			w.limit = half
		}
	}
	if w.excess > 0 {
		w.excess--
		return
	}
	w.tokens <- struct{}{}
}

// retry waits before another try after try number n (from 1), begun at start,
// failed with err. It returns err if it is not worth another try.
func (w *window) retry(ctx context.Context, n int, start time.Time, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if removed(err) {
		return err
	}
	switch Code(err) {
	case codeBusy:
		if n > busyMost {
			return err
		}
	case codeUnavailable, codeDeadline:
		if n > retryMost || time.Since(start) > retryPatient || !w.spend() {
			return err
		}
	default:
		return err
	}
	d := min(retryBase<<min(n, 10), retryCeiling)
	d = d/2 + rand.N(d/2)
	t := time.NewTimer(max(d, after(err)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *window) spend() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.budget < 1000 {
		return false
	}
	w.budget -= 1000
	return true
}
