package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"atoll.example/atoll/internal/seal"
)

// SaveOptions says where and how a file is written.
type SaveOptions struct {
	Name     string         // in the directory; empty: the name the file was put under
	Force    bool           // replace what has this name
	Progress func(Progress) // called from one goroutine, ≤ 4 times a second; may be nil
}

// Saved is what a get to a path wrote.
type Saved struct {
	Name    string
	Size    int64 // all of it verified
	Resumed int64 // bytes of it found from an earlier try, and verified again
}

// SaveFile writes the file of a read link into dir; see File.SaveTo.
func (c *Client) SaveFile(ctx context.Context, l seal.Link, dir string, o SaveOptions) (Info, Saved, error) {
	f, err := c.OpenFile(ctx, l)
	if errors.Is(err, ErrRemoved) {
		DropParts(dir, l.Root)
	}
	if err != nil {
		return Info{}, Saved{}, fmt.Errorf("get: %w", err)
	}
	s, err := f.SaveTo(ctx, dir, o)
	return f.Info(), s, err
}

// saving is one SaveTo under way.
type saving struct {
	f      *File
	part   *part
	window *window
	meter  *meter
	jobs   chan leaf
	share  *share
	bufs   sync.Pool

	mu      sync.Mutex // guards all below
	resumed int64
	salts   []uint8 // that chunks of the file may have; appended to only
}

// SaveTo writes the file into dir, which exists. The output grows as
// NAME.atoll-part, whatever the order in which chunks come; when all of it is
// verified and synced it gets its name. Cut short, it goes on from the part
// the next time; of a file that was removed meanwhile no part stays. A file of that
// name is replaced only by force.
func (f *File) SaveTo(ctx context.Context, dir string, o SaveOptions) (Saved, error) {
	s, err := f.saveTo(ctx, dir, o)
	if err != nil {
		return Saved{}, fmt.Errorf("get: %w", err)
	}
	return s, nil
}

func (f *File) saveTo(ctx context.Context, dir string, o SaveOptions) (Saved, error) {
	info := f.Info()
	name := o.Name
	if name == "" {
		name = info.Name
	}
	if !localName(name) {
		return Saved{}, ErrName
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Saved{}, pathError(err)
	}
	defer func() { _ = root.Close() }()
	p, err := f.takePart(ctx, root, name, o.Force)
	if err != nil {
		return Saved{}, err
	}
	defer p.close()

	t := &saving{f: f, part: p, window: newWindow(f.c.cfg.Window), meter: newMeter("fetching", info.Size, o.Progress), share: f.c.newShare()}
	t.salts = []uint8{0, 1, 2, 3}
	defer t.meter.close()
	defer t.share.close()
	if err := t.run(ctx); err != nil {
		if Code(err) == codeRemoved {
			p.drop()
		}
		return Saved{}, err
	}
	t.meter.phase("finishing")
	if err := p.finish(info.Size, info.Mode, info.Mtime, o.Force); err != nil {
		return Saved{}, err
	}
	return Saved{Name: name, Size: info.Size, Resumed: t.resumed}, nil
}

// replaceable reports why name may not be written: something is there, which
// without force stays and with it must be a regular file, or a symbolic link,
// which is replaced itself. Renaming over a device or a FIFO would take it away
// from all who use it.
func replaceable(root *os.Root, name string, force bool) error {
	have, err := root.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return pathError(err)
	case !have.Mode().IsRegular() && have.Mode().Type() != os.ModeSymlink:
		return fmt.Errorf("%s is not replaced: %w", EscapeName(name), ErrNotFile)
	case !force:
		return fmt.Errorf("%s: %w", EscapeName(name), ErrExists)
	}
	return nil
}

// partPatience is how long a get waits for another one of the same output:
// that which was interrupted a moment ago may still be ending. Chosen by us.
const partPatience = 2 * time.Second

// takePart opens the part of an output that may be written.
func (f *File) takePart(ctx context.Context, root *os.Root, name string, force bool) (*part, error) {
	r := f.root.Root
	for start := time.Now(); ; {
		if err := replaceable(root, name, force); err != nil {
			return nil, err
		}
		p, err := openPart(root, name, f.link.Root, r.Total, r.ChunkSize, f.Info().Mode)
		switch {
		case err == nil:
			return p, nil
		case !errors.Is(err, ErrInUse) || time.Since(start) > partPatience:
			var at *os.PathError
			if errors.As(err, &at) { // of a part that cannot be made: what stands in the way is the folder
				err = &os.PathError{Op: at.Op, Path: root.Name(), Err: at.Err}
			}
			return nil, pathError(err)
		}
		select {
		case <-time.After(partPatience / 20):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (t *saving) run(ctx context.Context) error {
	root := t.f.root
	if len(root.Children) == 0 {
		_, err := t.part.data.WriteAt(root.Root.Inline, 0)
		t.meter.add(int64(len(root.Root.Inline)), 1, true)
		return err
	}
	chunk := root.Root.ChunkSize
	t.bufs.New = func() any { b := make([]byte, 0, int(chunk)+seal.Overhead); return &b }
	t.jobs = make(chan leaf)
	var blank []byte // most files have no holes
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error {
		defer close(t.jobs)
		r := &reader{c: t.f.c, window: t.window, meter: t.meter, chunk: chunk, hi: int64(root.Root.Total)}
		r.yield = func(ctx context.Context, l leaf) error {
			if l.hole { // the file is sparse where nothing is written
				t.meter.add(l.length, 0, false)
				if blank == nil {
					blank = make([]byte, chunk)
				}
				return t.part.zero(ctx, l.offset, l.length, blank)
			}
			if err := t.share.enter(ctx); err != nil {
				return err
			}
			return give(ctx, t.jobs, l)
		}
		return r.walk(ctx, root, 0)
	})
	g.workers(t.window.most, t.saveAll, func() {})
	return g.wait()
}

func (t *saving) saveAll(ctx context.Context) error {
	for {
		l, ok, err := take(ctx, t.jobs)
		if !ok || err != nil {
			return err
		}
		err = t.save(ctx, l)
		t.share.leave()
		if err != nil {
			return err
		}
	}
}

// save writes one chunk, unless it is there.
func (t *saving) save(ctx context.Context, l leaf) error {
	var buf *[]byte
	take := func() []byte {
		if buf == nil {
			buf = t.bufs.Get().(*[]byte)
		}
		return *buf
	}
	defer func() {
		if buf != nil {
			t.bufs.Put(buf)
		}
	}()
	index := l.offset / int64(t.f.root.Root.ChunkSize)
	if t.part.marked(index) {
		if t.holds(l, take()[:l.length]) {
			t.mu.Lock()
			t.resumed += l.length
			t.mu.Unlock()
			t.meter.add(l.length, 1, false)
			return nil
		}
	}
	plain, salt, err := t.f.openLeaf(ctx, t.window, t.meter, take, l)
	if err != nil {
		return err
	}
	t.met(salt)
	if err := t.part.write(plain, l.offset); err != nil {
		return err
	}
	t.meter.add(l.length, 1, true)
	return t.part.mark(index)
}

// holds reports whether the part has the bytes of l: sealed again under the
// same key they have its name. Its salt is not known to a reader, so each that is
// likely is tried: those of a put or two, and what chunks of this file had. If it
// is another one, the chunk is fetched in vain, and tells.
func (t *saving) holds(l leaf, plain []byte) bool {
	if _, err := t.part.data.ReadAt(plain, l.offset); err != nil {
		return false
	}
	block := t.bufs.Get().(*[]byte)
	defer t.bufs.Put(block)
	t.mu.Lock()
	salts := t.salts
	t.mu.Unlock()
	for _, salt := range salts {
		if seal.BlockGUID(seal.Reseal((*block)[:0], plain, salt, l.read)) == l.guid {
			return true
		}
	}
	return false
}

// met notes the salt of a chunk that was fetched.
func (t *saving) met(salt uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.salts, salt) {
		t.salts = append(t.salts, salt)
	}
}
