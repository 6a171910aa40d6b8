package files

import (
	"context"
	"fmt"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// Stat describes a file. A verify link tells neither name, size nor times:
// they stay zero, Size −1.
type Stat struct {
	Info
	Capability seal.Capability
	Blocks     int64 // stored, manifests included
	Holes      int64
	Copies     Spread
}

// Spread tells how the copies of a file's blocks are spread.
type Spread struct{ Min, Max, Target int }

// openTree opens the root with whatever key the link has.
func (c *Client) openTree(ctx context.Context, l seal.Link, w *window) (*seal.Manifest, error) {
	if err := c.checkPool(l); err != nil {
		return nil, err
	}
	root, err := c.manifest(ctx, w, nil, l.Root, func(b []byte) (*seal.Manifest, error) {
		if r, ok := l.ReadKey(); ok {
			return seal.OpenManifest(b, r, true)
		}
		return seal.OpenVerify(b, l.VerifyKey())
	})
	return root, ofRoot(err)
}

// Stat walks a file's manifests and asks where its blocks are.
func (c *Client) Stat(ctx context.Context, l seal.Link) (Stat, error) {
	s, err := c.stat(ctx, l)
	if err != nil {
		return Stat{}, fmt.Errorf("stat: %w", err)
	}
	return s, nil
}

func (c *Client) stat(ctx context.Context, l seal.Link) (Stat, error) {
	w := newWindow(c.cfg.Window)
	root, err := c.openTree(ctx, l, w)
	if err != nil {
		return Stat{}, err
	}
	s := Stat{Capability: l.Cap}
	if root.Root != nil {
		s.Info = (&File{c: c, link: l, root: root}).Info()
	} else {
		s.Info = Info{GUID: l.Root, Size: -1, Depth: int(root.Level) + 1}
	}
	var mu sync.Mutex // guards s.Copies and first
	first := true
	ask := func(ctx context.Context, gs []id.GUID) error {
		found, err := c.head(ctx, w, gs)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, p := range found {
			if first || p.Copies < s.Copies.Min {
				s.Copies.Min = p.Copies
			}
			s.Copies.Max, s.Copies.Target = max(s.Copies.Max, p.Copies), max(s.Copies.Target, p.Target)
			first = false
		}
		return nil
	}
	b := newBatches(ctx, ask)
	v := &visitor{c: c, window: w, visit: func(_ context.Context, v visit) error {
		switch {
		case v.hole:
			s.Holes++
			return nil
		case v.err != nil:
			return v.err
		}
		s.Blocks++
		return b.add(v.guid)
	}}
	err = v.walk(b.g.ctx, root)
	if err == nil {
		s.Blocks++
		err = b.add(l.Root)
	}
	return s, b.close(err)
}

// head asks for at most MaxBatch blocks, trying again while that helps.
func (c *Client) head(ctx context.Context, w *window, gs []id.GUID) ([]Presence, error) {
	for try := 1; ; try++ {
		start := time.Now()
		found, err := c.cfg.Blocks.Head(ctx, gs)
		if err == nil && len(found) != len(gs) {
			err = fmt.Errorf("head: %d answers to %d questions", len(found), len(gs))
		}
		if err == nil {
			return found, nil
		}
		if again := w.retry(ctx, try, start, err); again != nil {
			return nil, again
		}
	}
}

// batches collects GUIDs and hands them on, MaxBatch at a time, to at most
// batchers calls at once.
type batches struct {
	g    *group
	next []id.GUID
	full chan []id.GUID
}

const batchers = 4

func newBatches(ctx context.Context, do func(context.Context, []id.GUID) error) *batches {
	b := &batches{g: newGroup(ctx), full: make(chan []id.GUID)}
	b.g.workers(batchers, func(ctx context.Context) error {
		for {
			gs, ok, err := take(ctx, b.full)
			if !ok || err != nil {
				return err
			}
			if err := do(ctx, gs); err != nil {
				return err
			}
		}
	}, func() {})
	return b
}

func (b *batches) add(g id.GUID) error {
	b.next = append(b.next, g)
	if len(b.next) < MaxBatch {
		return nil
	}
	return b.flush()
}

func (b *batches) flush() error {
	gs := b.next
	b.next = nil
	return give(b.g.ctx, b.full, gs)
}

// close hands on the rest, unless the walk failed with err, and waits.
func (b *batches) close(err error) error {
	if err == nil && len(b.next) > 0 {
		err = b.flush()
	}
	b.g.fail(err)
	close(b.full)
	return b.g.wait()
}
