package files

import (
	"context"
	"fmt"
	"io"
	"sync"

	"atoll.example/atoll/internal/seal"
)

// GetOptions says which part of a file to get.
type GetOptions struct {
	Offset   int64
	Length   int64          // 0: to the end
	Progress func(Progress) // called from one goroutine, ≤ 4 times a second; may be nil
}

// GetFile writes the file of a read link to w, in order; see File.CopyTo.
func (c *Client) GetFile(ctx context.Context, l seal.Link, w io.Writer, o GetOptions) (Info, error) {
	f, err := c.OpenFile(ctx, l)
	if err != nil {
		return Info{}, fmt.Errorf("get: %w", err)
	}
	_, err = f.CopyTo(ctx, w, o)
	return f.Info(), err
}

// piece is a stretch of the file on its way to a writer.
type piece struct {
	leaf
	from, to int64 // of the leaf's bytes, those to write
	buf      *[]byte
	plain    []byte
	err      error
	done     chan struct{}
}

// copying is one CopyTo under way.
type copying struct {
	f      *File
	window *window
	meter  *meter
	share  *share
	bufs   sync.Pool
	jobs   chan *piece // to the fetchers
	order  chan *piece // to the writer
}

// CopyTo writes the bytes [Offset, Offset+Length) to w in order, reading ahead
// by a window, and returns how many it wrote. Only verified bytes are written.
func (f *File) CopyTo(ctx context.Context, w io.Writer, o GetOptions) (n int64, err error) {
	size := int64(f.root.Root.Total)
	if o.Offset < 0 || o.Length < 0 || o.Offset > size || o.Length > size-o.Offset {
		return 0, fmt.Errorf("get: %d bytes from %d of %d: %w", o.Length, o.Offset, size, ErrRange)
	}
	hi := o.Offset + o.Length
	if o.Length == 0 {
		hi = size
	}
	t := &copying{f: f, window: newWindow(f.c.cfg.Window), meter: newMeter("fetching", hi-o.Offset, o.Progress), share: f.c.newShare()}
	defer t.meter.close()
	defer t.share.close()
	if len(f.root.Children) == 0 {
		m, err := w.Write(f.root.Root.Inline[o.Offset:hi])
		t.meter.add(int64(m), 1, true)
		if err != nil {
			return int64(m), fmt.Errorf("get: %w", err)
		}
		return int64(m), nil
	}
	t.bufs.New = func() any { b := make([]byte, 0, f.root.Root.ChunkSize); return &b }
	t.jobs = make(chan *piece)
	t.order = make(chan *piece, t.window.most)
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error { return t.plan(ctx, o.Offset, hi) })
	g.workers(t.window.most, t.fetchAll, func() {})
	n, err = t.write(g.ctx, w)
	g.fail(err)
	if err = g.wait(); err != nil {
		return n, fmt.Errorf("get: %w", err)
	}
	return n, nil
}

// plan walks the tree. The queue order bounds how far it is ahead.
func (t *copying) plan(ctx context.Context, lo, hi int64) error {
	defer close(t.jobs)
	defer close(t.order)
	r := &reader{c: t.f.c, window: t.window, meter: t.meter, chunk: t.f.root.Root.ChunkSize, lo: lo, hi: hi}
	r.yield = func(ctx context.Context, l leaf) error {
		p := &piece{leaf: l, from: max(lo-l.offset, 0), to: min(hi-l.offset, l.length), done: make(chan struct{})}
		if !l.hole {
			if err := t.share.enter(ctx); err != nil { // in order: the next one to be written has its place
				return err
			}
		}
		if err := give(ctx, t.order, p); err != nil {
			return err
		}
		if l.hole {
			close(p.done)
			return nil
		}
		return give(ctx, t.jobs, p)
	}
	return r.walk(ctx, t.f.root, 0)
}

func (t *copying) fetchAll(ctx context.Context) error {
	for {
		p, ok, err := take(ctx, t.jobs)
		if !ok || err != nil {
			return err
		}
		p.plain, _, p.err = t.f.openLeaf(ctx, t.window, t.meter, func() []byte {
			if p.buf == nil {
				p.buf = t.bufs.Get().(*[]byte)
			}
			return *p.buf
		}, p.leaf)
		close(p.done)
	}
}

// write takes the pieces in order.
func (t *copying) write(ctx context.Context, w io.Writer) (n int64, err error) {
	for {
		p, ok, err := take(ctx, t.order)
		if !ok || err != nil {
			return n, err
		}
		if _, _, err := take(ctx, p.done); err != nil {
			return n, err
		}
		if p.err != nil {
			return n, p.err
		}
		if !p.hole {
			m, err := w.Write(p.plain[p.from:p.to])
			n += int64(m)
			t.bufs.Put(p.buf)
			t.share.leave()
			t.meter.add(int64(m), 1, true)
			if err != nil {
				return n, err
			}
			continue
		}
		for left := p.to - p.from; left > 0; {
			m, err := w.Write(zeros[:min(left, int64(len(zeros)))])
			n += int64(m)
			left -= int64(m)
			t.meter.add(int64(m), 0, true)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return n, err
			}
		}
	}
}
