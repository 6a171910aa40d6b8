package files

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// Removed is what a removal did.
type Removed struct {
	Blocks       int64 // whose claim was ended
	KeptByOthers int64 // of them, kept by another file or owner
}

// Remove ends this file's claim on each of its blocks, the root's last, so that
// a removal cut short can be taken up again. It needs the read link: the claim
// stands in the root. The catalogue forgets the file. Of another member's file
// nothing is removed: ErrNotOwner.
func (c *Client) Remove(ctx context.Context, l seal.Link, progress func(Progress)) (Removed, error) {
	r, err := c.remove(ctx, l, progress)
	if err != nil {
		return r, fmt.Errorf("rm: %w", err)
	}
	return r, nil
}

// RemoveName removes the one file of this name in the catalogue.
func (c *Client) RemoveName(ctx context.Context, name string, progress func(Progress)) (Removed, error) {
	e, err := c.catalogue.Named(name)
	if err != nil {
		return Removed{}, fmt.Errorf("rm: %w", err)
	}
	return c.Remove(ctx, e.Link, progress)
}

func (c *Client) remove(ctx context.Context, l seal.Link, progress func(Progress)) (r Removed, err error) {
	f, err := c.OpenFile(ctx, l)
	if err != nil {
		if gone(err) { // removed before, perhaps from another machine
			if e, ok := c.catalogue.Get(l.Root); ok {
				return r, c.catalogue.Remove(e.Link.Root)
			}
		}
		return r, err
	}
	if err := c.dropClaim(f.claim); err != nil {
		return r, err
	}
	m := newMeter("removing", -1, progress)
	defer m.close()
	w := newWindow(c.cfg.Window)
	var batch []id.GUID
	end := func(ctx context.Context) error {
		kept, err := c.endClaims(ctx, w, m, batch, f.claim)
		if err == nil {
			r.Blocks += int64(len(batch))
			r.KeptByOthers += kept
		}
		batch = batch[:0]
		return err
	}
	v := &visitor{c: c, window: w, meter: m, visit: func(ctx context.Context, v visit) error {
		switch {
		case v.hole:
			return nil
		case v.err != nil && gone(v.err):
			return nil // an earlier removal got that far
		case v.err != nil:
			return v.err
		}
		// A manifest goes after what is below it.
		if v.manifest || len(batch) == MaxBatch {
			if err := end(ctx); err != nil {
				return err
			}
		}
		batch = append(batch, v.guid)
		return nil
	}}
	if err := v.walk(ctx, f.root); err != nil {
		return r, err
	}
	if err := end(ctx); err != nil {
		return r, err
	}
	kept := r.KeptByOthers
	batch = append(batch, l.Root)
	if err := end(ctx); err != nil {
		return r, err
	}
	// A root has one claim: if that stays, it is another owner's, and so were those
	// of all blocks.
	if _, listed := c.catalogue.Get(l.Root); r.KeptByOthers > kept && !listed {
		return Removed{}, ErrNotOwner
	}
	return r, c.catalogue.Remove(l.Root)
}

// gone reports whether a block is not there any more.
func gone(err error) bool { return Code(err) == codeNotFound || Code(err) == codeRemoved }

// endClaims ends a claim on blocks, a window of them at once.
func (c *Client) endClaims(ctx context.Context, w *window, m *meter, gs []id.GUID, claim [16]byte) (kept int64, err error) {
	if len(gs) == 0 {
		return 0, nil
	}
	var others atomic.Int64
	jobs := make(chan id.GUID)
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error {
		defer close(jobs)
		for _, b := range gs {
			if err := give(ctx, jobs, b); err != nil {
				return err
			}
		}
		return nil
	})
	g.workers(min(w.most, len(gs)), func(ctx context.Context) error {
		for {
			b, ok, err := take(ctx, jobs)
			if !ok || err != nil {
				return err
			}
			more, err := c.endClaim(ctx, w, m, b, claim)
			if err != nil {
				return fmt.Errorf("block %s: %w", b.Short(), err)
			}
			if more {
				others.Add(1)
			}
			m.add(0, 1, true)
		}
	}, func() {})
	err = g.wait()
	return others.Load(), err
}

func (c *Client) endClaim(ctx context.Context, w *window, m *meter, g id.GUID, claim [16]byte) (kept bool, err error) {
	m.begin(g)
	defer m.end(g)
	for try := 1; ; try++ {
		if err := w.acquire(ctx); err != nil {
			return false, err
		}
		start := time.Now()
		kept, err := c.cfg.Blocks.Remove(ctx, g, claim)
		w.release(err)
		if err == nil || gone(err) {
			return kept, nil
		}
		m.refused(g, err)
		if again := w.retry(ctx, try, start, err); again != nil {
			return false, again
		}
	}
}
