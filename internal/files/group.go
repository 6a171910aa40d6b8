package files

import (
	"context"
	"sync"
)

// group runs the stages of one transfer. The first error cancels the others;
// wait returns it. Its owner always waits.
type group struct {
	ctx    context.Context // of this transfer; ends with it
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newGroup(ctx context.Context) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

func (g *group) run(stage func(ctx context.Context) error) {
	g.wg.Go(func() {
		if err := stage(g.ctx); err != nil {
			g.cancel(err)
		}
	})
}

// workers runs n copies of stage, and last when all have returned.
func (g *group) workers(n int, stage func(ctx context.Context) error, last func()) {
	var all sync.WaitGroup
	all.Add(n)
	for range n {
		g.wg.Go(func() {
			defer all.Done()
			if err := stage(g.ctx); err != nil {
				g.cancel(err)
			}
		})
	}
	g.wg.Go(func() {
		all.Wait()
		last()
	})
}

// fail cancels the group; the first error stays.
func (g *group) fail(err error) {
	if err != nil {
		g.cancel(err)
	}
}

func (g *group) wait() error {
	g.wg.Wait()
	err := context.Cause(g.ctx)
	g.cancel(nil)
	return err
}

// give sends v unless ctx ends first.
func give[T any](ctx context.Context, ch chan<- T, v T) error {
	select {
	case ch <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take receives; ok is false when ch is closed.
func take[T any](ctx context.Context, ch <-chan T) (v T, ok bool, err error) {
	select {
	case v, ok = <-ch:
		return v, ok, nil
	case <-ctx.Done():
		return v, false, context.Cause(ctx)
	}
}
