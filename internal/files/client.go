package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// Config says where a Client keeps its state and what it works on.
type Config struct {
	// Dir holds the file "catalogue" and the directory "uploads". It must
	// exist and belong to this process alone.
	Dir string
	// Pool is the pool's id; links of other pools are refused.
	Pool [32]byte
	// Secret is the member's own (20-dht §5).
	Secret seal.Secret
	// Blocks is the pool.
	Blocks Blocks

	// Window is the most blocks in transfer for one file, 1–256; 0: 16
	// (20-dht §3).
	Window int
	// Sealers is the number of goroutines that encrypt for one put, 1–64; 0:
	// 2, which keep up with a 10 Gbit/s link.
	Sealers int
	// ChunkSize in bytes, 1 to 1 MiB; 0: 1 MiB. Smaller chunks serve tests.
	ChunkSize int
	// Random yields claims, journal names and secrets of unique puts; nil:
	// crypto/rand.
	Random io.Reader
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
}

// Validate returns the first fault.
func (c *Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("files: no directory")
	case c.Blocks == nil:
		return errors.New("files: no blocks")
	case c.Secret.IsZero():
		return errors.New("files: no secret")
	case c.Window < 0 || c.Window > 256:
		return fmt.Errorf("files: window %d, want 1 to 256", c.Window)
	case c.Sealers < 0 || c.Sealers > 64:
		return fmt.Errorf("files: %d sealers, want 1 to 64", c.Sealers)
	case c.ChunkSize < 0 || c.ChunkSize > seal.MaxPlain:
		return fmt.Errorf("files: chunk size %d, want 1 to %d", c.ChunkSize, seal.MaxPlain)
	}
	return nil
}

// Client puts and gets files. It is safe for concurrent use.
type Client struct {
	cfg       Config
	uploads   string
	catalogue *Catalogue
	places    chan struct{} // see share

	mu     sync.Mutex          // guards all below
	active map[string]struct{} // journals in use, by path
	salts  map[id.GUID]uint8   // of blocks with more claims than one name has: where to begin
}

// Open opens the state in cfg.Dir, creating it if it is not there.
func Open(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Window == 0 {
		cfg.Window = 16
	}
	if cfg.Sealers == 0 {
		cfg.Sealers = 2
	}
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = seal.MaxPlain
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{
		cfg: cfg, uploads: filepath.Join(cfg.Dir, "uploads"), places: make(chan struct{}, places),
		active: make(map[string]struct{}), salts: make(map[id.GUID]uint8),
	}
	if err := os.MkdirAll(c.uploads, 0o700); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	var err error
	if c.catalogue, err = OpenCatalogue(filepath.Join(cfg.Dir, "catalogue")); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	if err := c.dropFinished(); err != nil {
		return nil, errors.Join(fmt.Errorf("files: %w", err), c.catalogue.Close())
	}
	return c, nil
}

// Close closes the catalogue. The caller has ended all transfers, by their
// contexts.
func (c *Client) Close() error { return c.catalogue.Close() }

// Catalogue returns the list of one's own files.
func (c *Client) Catalogue() *Catalogue { return c.catalogue }

// ParseLink reads a link of this pool. Its errors carry bad_link or wrong_pool.
func (c *Client) ParseLink(s string) (seal.Link, error) {
	l, err := seal.ParseLink(s)
	if err != nil {
		return seal.Link{}, wrap(codeBadLink, err)
	}
	return l, c.checkPool(l)
}

func (c *Client) checkPool(l seal.Link) error {
	if l.IsZero() {
		return wrap(codeBadLink, seal.ErrBadLink)
	}
	if err := l.CheckPool(c.cfg.Pool); err != nil {
		return wrap(codeWrongPool, err)
	}
	return nil
}

// claim marks a journal as in use; false if it is already.
func (c *Client) claim(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.active[path]; ok {
		return false
	}
	c.active[path] = struct{}{}
	return true
}

func (c *Client) unclaim(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, path)
}

// maxSalts bounds how many blocks' salts are remembered; chosen by us: some 1 MiB.
const maxSalts = 16 << 10

// firstSalt is the salt with which to put a block first, by its name of salt 0.
func (c *Client) firstSalt(g id.GUID) uint8 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.salts[g]
}

// claimed notes that no claims are left under a salt of a block. After a start each
// is found out again, one by one.
func (c *Client) claimed(g id.GUID, salt uint8) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.salts[g]; !ok && len(c.salts) >= maxSalts {
		clear(c.salts)
	}
	c.salts[g] = salt + 1
}

// fetch gets a block within the window, trying again while that helps.
func (c *Client) fetch(ctx context.Context, w *window, m *meter, g id.GUID) ([]byte, error) {
	m.begin(g)
	defer m.end(g)
	for try := 1; ; try++ {
		if err := w.acquire(ctx); err != nil {
			return nil, err
		}
		start := time.Now()
		b, err := c.cfg.Blocks.Get(ctx, g)
		w.release(err)
		if err == nil {
			return b, nil
		}
		m.refused(g, err)
		if again := w.retry(ctx, try, start, err); again != nil {
			return nil, fmt.Errorf("block %s: %w", g.Short(), again)
		}
	}
}

// manifest fetches and opens one node of a tree. Wrong bytes are asked for
// once more: another holder may have the right ones.
func (c *Client) manifest(ctx context.Context, w *window, m *meter, g id.GUID, open func([]byte) (*seal.Manifest, error)) (*seal.Manifest, error) {
	for try := 1; ; try++ {
		b, err := c.fetch(ctx, w, m, g)
		if err != nil {
			return nil, err
		}
		if seal.BlockGUID(b) != g {
			err = ErrCorrupt
		} else {
			var node *seal.Manifest
			if node, err = open(b); err == nil {
				return node, nil
			}
			// The bytes are right and the link is not, or its maker was at fault.
			return nil, fmt.Errorf("block %s: %w", g.Short(), corrupt(err))
		}
		if try == 2 {
			return nil, fmt.Errorf("block %s: %w", g.Short(), err)
		}
	}
}
