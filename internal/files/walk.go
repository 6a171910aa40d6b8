package files

import (
	"context"
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// ahead is how many manifests of one level are fetched before they are needed.
const ahead = 4

// lookahead fetches the manifests among children in order, some ahead. The
// caller takes them with next and ends it with close.
type lookahead struct {
	g     *group
	queue chan chan fetched
}

type fetched struct {
	node *seal.Manifest
	err  error
}

func newLookahead(ctx context.Context, children []seal.Child, fetch func(context.Context, seal.Child) (*seal.Manifest, error)) *lookahead {
	l := &lookahead{g: newGroup(ctx), queue: make(chan chan fetched, ahead-1)}
	l.g.run(func(ctx context.Context) error {
		for i := range children {
			if children[i].Hole {
				continue
			}
			ch := make(chan fetched, 1)
			if err := give(ctx, l.queue, ch); err != nil {
				return err
			}
			child := children[i]
			l.g.run(func(ctx context.Context) error {
				node, err := fetch(ctx, child)
				ch <- fetched{node, err}
				return nil
			})
		}
		return nil
	})
	return l
}

func (l *lookahead) next(ctx context.Context) (*seal.Manifest, error) {
	ch, _, err := take(ctx, l.queue)
	if err != nil {
		return nil, err
	}
	f, _, err := take(ctx, ch)
	if err != nil {
		return nil, err
	}
	return f.node, f.err
}

func (l *lookahead) close() {
	l.g.cancel(context.Canceled)
	_ = l.g.wait()
}

// leaf is a chunk of a file, or a hole of any length.
type leaf struct {
	offset int64
	length int64
	guid   id.GUID
	read   seal.ReadKey
	hole   bool
}

// reader walks a tree with read keys.
type reader struct {
	c      *Client
	window *window
	meter  *meter
	chunk  uint32
	lo, hi int64 // of the file: leaves outside are left out
	yield  func(ctx context.Context, l leaf) error
}

func (r *reader) open(ctx context.Context, child seal.Child, level uint8) (*seal.Manifest, error) {
	m, err := r.c.manifest(ctx, r.window, r.meter, child.GUID, func(b []byte) (*seal.Manifest, error) {
		return seal.OpenManifest(b, child.Read, false)
	})
	if err == nil && m.Level != level {
		err = fmt.Errorf("block %s: %w: level %d below level %d", child.GUID.Short(), ErrCorrupt, m.Level, level+1)
	}
	return m, err
}

// checkShape refuses a node whose children are not what fixed chunking gives
// for length bytes.
func checkShape(m *seal.Manifest, chunk uint32, length uint64) error {
	span := seal.Span(m.Level, chunk)
	for i := range m.Children {
		if want := min(span, length); m.Children[i].Length != want || want == 0 {
			return fmt.Errorf("%w: child %d holds %d bytes, not %d", ErrCorrupt, i, m.Children[i].Length, want)
		}
		length -= m.Children[i].Length
	}
	if length != 0 {
		return fmt.Errorf("%w: %d bytes are not listed", ErrCorrupt, length)
	}
	return nil
}

// walk yields the leaves below m, which starts at base, in order.
func (r *reader) walk(ctx context.Context, m *seal.Manifest, base int64) error {
	var inside []seal.Child
	var at []int64
	for i := range m.Children {
		c := m.Children[i]
		if end := base + int64(c.Length); end > r.lo && base < r.hi {
			inside, at = append(inside, c), append(at, base)
		}
		base += int64(m.Children[i].Length)
	}
	var l *lookahead
	if m.Level > 0 {
		l = newLookahead(ctx, inside, func(ctx context.Context, c seal.Child) (*seal.Manifest, error) {
			return r.open(ctx, c, m.Level-1)
		})
		defer l.close()
	}
	for i, c := range inside {
		if m.Level == 0 || c.Hole {
			if err := r.yield(ctx, leaf{at[i], int64(c.Length), c.GUID, c.Read, c.Hole}); err != nil {
				return err
			}
			continue
		}
		node, err := l.next(ctx)
		if err == nil {
			err = checkShape(node, r.chunk, c.Length)
		}
		if err == nil {
			err = r.walk(ctx, node, at[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visit is one block of a tree, seen by a visitor: below its parent, and after
// all blocks below it.
type visit struct {
	guid     id.GUID
	manifest bool
	hole     bool
	err      error // the manifest could not be had: nothing below it is visited
}

// visitor walks a tree with read or verify keys, children before parents.
type visitor struct {
	c      *Client
	window *window
	meter  *meter
	visit  func(ctx context.Context, v visit) error
}

// open opens a child for its GUIDs; holes and keys of its own children come
// with it.
func (v *visitor) open(ctx context.Context, child seal.Child, level uint8) (*seal.Manifest, error) {
	m, err := v.c.manifest(ctx, v.window, v.meter, child.GUID, func(b []byte) (*seal.Manifest, error) {
		if child.Read != (seal.ReadKey{}) {
			return seal.OpenManifest(b, child.Read, false)
		}
		return seal.OpenVerify(b, child.Verify)
	})
	if err == nil && m.Level != level {
		err = fmt.Errorf("block %s: %w: level %d below level %d", child.GUID.Short(), ErrCorrupt, m.Level, level+1)
	}
	return m, err
}

// walk visits all below m, but not m's own block.
func (v *visitor) walk(ctx context.Context, m *seal.Manifest) error {
	var l *lookahead
	if m.Level > 0 {
		l = newLookahead(ctx, m.Children, func(ctx context.Context, c seal.Child) (*seal.Manifest, error) {
			return v.open(ctx, c, m.Level-1)
		})
		defer l.close()
	}
	for i := range m.Children {
		c := &m.Children[i]
		one := visit{guid: c.GUID, hole: c.Hole, manifest: m.Level > 0}
		if m.Level > 0 && !c.Hole {
			node, err := l.next(ctx)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if one.err = err; err == nil {
				if err := v.walk(ctx, node); err != nil {
					return err
				}
			}
		}
		if err := v.visit(ctx, one); err != nil {
			return err
		}
	}
	return nil
}
