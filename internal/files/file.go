package files

import (
	"context"
	"fmt"
	"os"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// Info is what a file's root says.
type Info struct {
	GUID      id.GUID // of the root
	Name      string  // as its owner called it: pass it through EscapeName
	Size      int64
	Mode      os.FileMode // permission bits
	Mtime     time.Time
	Depth     int // levels of manifests, 1 for a file of one root
	Chunking  string
	ChunkSize int
}

// File is a file of the pool, open for reading. It is safe for concurrent use.
type File struct {
	c     *Client
	link  seal.Link
	root  *seal.Manifest
	claim [16]byte
}

// OpenFile fetches and opens the root that a read link names.
func (c *Client) OpenFile(ctx context.Context, l seal.Link) (*File, error) {
	if err := c.checkPool(l); err != nil {
		return nil, err
	}
	r, ok := l.ReadKey()
	if !ok {
		return nil, ErrForbidden
	}
	root, err := c.manifest(ctx, newWindow(1), nil, l.Root, func(b []byte) (*seal.Manifest, error) {
		return seal.OpenManifest(b, r, true)
	})
	if err != nil {
		return nil, ofRoot(err)
	}
	f := &File{c: c, link: l, root: root, claim: root.Root.Claim}
	if len(root.Children) > 0 {
		if err := checkShape(root, root.Root.ChunkSize, root.Root.Total); err != nil {
			return nil, fmt.Errorf("block %s: %w", l.Root.Short(), err)
		}
	}
	return f, nil
}

// ofRoot makes of a removed root a removed file. A root has one claim, that of the
// put that made it: who has seen its end knows all there is to know, whoever is
// silent.
func ofRoot(err error) error {
	if removed(err) {
		return ErrRemoved
	}
	return err
}

// Info returns what the root says.
func (f *File) Info() Info {
	r := f.root.Root
	return Info{
		GUID: f.link.Root, Name: r.Name, Size: int64(r.Total), Mode: os.FileMode(r.Mode), Mtime: time.UnixMilli(r.Mtime),
		Depth: int(f.root.Level) + 1, Chunking: "fixed", ChunkSize: int(r.ChunkSize),
	}
}

// openLeaf fetches one chunk and opens it into what dst returns, a slice whose
// capacity suffices. Wrong bytes are asked for once more. salt is the one it was
// stored under.
func (f *File) openLeaf(ctx context.Context, w *window, m *meter, dst func() []byte, l leaf) (plain []byte, salt uint8, err error) {
	for try := 1; ; try++ {
		b, err := f.c.fetch(ctx, w, m, l.guid)
		if err != nil {
			return nil, 0, err
		}
		// Sealed blocks authenticate themselves; clear ones have only their name.
		if l.read == (seal.ReadKey{}) && seal.BlockGUID(b) != l.guid {
			err = ErrCorrupt
		}
		var plain []byte
		if err == nil {
			plain, err = seal.OpenData(dst()[:0], b, l.read)
		}
		if err == nil && int64(len(plain)) != l.length {
			err = fmt.Errorf("%w: %d bytes where the manifest says %d", ErrCorrupt, len(plain), l.length)
		}
		if err == nil {
			h, err := seal.ParseHeader(b)
			return plain, h.Salt, err
		}
		if try == 2 {
			return nil, 0, fmt.Errorf("block %s: %w", l.guid.Short(), corrupt(err))
		}
	}
}
