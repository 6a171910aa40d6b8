package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// VerifyOptions says how blocks are checked.
type VerifyOptions struct {
	Deep     bool           // holders prove their bytes
	Repair   bool           // restore what can be restored
	Progress func(Progress) // called from one goroutine, ≤ 4 times a second; may be nil
}

// Verified counts blocks and copies.
type Verified struct {
	Blocks       int64     // found in the tree
	OK           int64     // of them with every copy there is to be
	Corrupt      int64     // copies that are not what their name says
	Missing      int64     // copies that nobody claims to have, after repair
	Repaired     int64     // copies restored
	Unrepairable []id.GUID // blocks without any valid copy, sorted; at most MaxUnrepairable
	Lost         int64     // their number

	Bad map[id.GUID]int64 // corrupt copies by the member that has them
}

// MaxUnrepairable bounds Verified.Unrepairable.
const MaxUnrepairable = 10_000

// Sound reports whether nothing is wrong any more.
func (v *Verified) Sound() bool { return v.Lost == 0 && v.Missing == 0 && v.Corrupt <= v.Repaired }

// Verify checks every block of a file, with a read or a verify link. A manifest
// that cannot be had is unrepairable, and what stands below it is not counted.
func (c *Client) Verify(ctx context.Context, l seal.Link, o VerifyOptions) (Verified, error) {
	return c.VerifyAll(ctx, []seal.Link{l}, o)
}

// VerifyAll checks several files and sums up. It stops at the first that
// cannot be checked for a reason other than its blocks.
func (c *Client) VerifyAll(ctx context.Context, links []seal.Link, o VerifyOptions) (Verified, error) {
	t := &verifying{c: c, o: o, window: newWindow(c.cfg.Window)}
	phase := "checking"
	if o.Repair {
		phase = "repairing"
	}
	t.meter = newMeter(phase, -1, o.Progress)
	defer t.meter.close()
	for _, l := range links {
		err := t.file(ctx, l)
		if errors.Is(err, ErrRemoved) && len(links) > 1 {
			t.lost(l.Root) // listed here, removed by its owner elsewhere
			continue
		}
		if err != nil {
			return t.sum, fmt.Errorf("verify: %s: %w", l.Root.Short(), err)
		}
	}
	slices.SortFunc(t.sum.Unrepairable, id.GUID.Cmp)
	t.sum.Unrepairable = slices.Compact(t.sum.Unrepairable)
	return t.sum, nil
}

type verifying struct {
	c      *Client
	o      VerifyOptions
	window *window
	meter  *meter

	mu  sync.Mutex // guards sum
	sum Verified
}

// absent reports whether err says that a block has no valid copy.
func absent(err error) bool { return gone(err) || Code(err) == codeCorrupt }

func (t *verifying) file(ctx context.Context, l seal.Link) error {
	root, err := t.c.openTree(ctx, l, t.window)
	if err != nil {
		if !absent(err) || errors.Is(err, seal.ErrSeal) || errors.Is(err, ErrRemoved) {
			return err
		}
		t.lost(l.Root)
		return nil
	}
	b := newBatches(ctx, t.audit)
	v := &visitor{c: t.c, window: t.window, meter: t.meter, visit: func(_ context.Context, v visit) error {
		switch {
		case v.hole:
			return nil
		case v.err != nil && absent(v.err):
			t.lost(v.guid)
			return nil
		case v.err != nil:
			return v.err
		}
		return b.add(v.guid)
	}}
	err = v.walk(b.g.ctx, root)
	if err == nil {
		err = b.add(l.Root)
	}
	return b.close(err)
}

func (t *verifying) lost(g id.GUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Blocks++
	t.lostLocked(g)
}

func (t *verifying) lostLocked(g id.GUID) {
	t.sum.Lost++
	if len(t.sum.Unrepairable) < MaxUnrepairable {
		t.sum.Unrepairable = append(t.sum.Unrepairable, g)
	}
}

func (t *verifying) audit(ctx context.Context, gs []id.GUID) error {
	var found []Audit
	for try := 1; ; try++ {
		start := time.Now()
		var err error
		found, err = t.c.cfg.Blocks.Audit(ctx, gs, t.o.Deep, t.o.Repair)
		if err == nil && len(found) != len(gs) {
			err = fmt.Errorf("audit: %d answers to %d questions", len(found), len(gs))
		}
		if err == nil {
			break
		}
		if again := t.window.retry(ctx, try, start, err); again != nil {
			return again
		}
	}
	t.meter.add(0, int64(len(gs)), true)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, a := range found {
		t.sum.Blocks++
		t.sum.Corrupt += int64(a.Corrupt)
		t.sum.Missing += int64(max(0, a.Missing-max(0, a.Corrupt-a.Repaired)))
		t.sum.Repaired += int64(a.Repaired)
		for _, g := range a.Bad {
			if t.sum.Bad == nil {
				t.sum.Bad = make(map[id.GUID]int64)
			}
			t.sum.Bad[g]++
		}
		switch {
		case a.Valid == 0:
			t.lostLocked(gs[i])
		case a.Corrupt == 0 && a.Missing == 0:
			t.sum.OK++
		}
	}
	return nil
}
