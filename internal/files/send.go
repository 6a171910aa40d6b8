package files

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// maxDiversions is how often a block is re-encoded for lack of space (20-dht §4).
const maxDiversions = 3

// salts is how many names one piece of data can have.
const salts = 256

// maxPlaces bounds what a Result may say of copies.
const maxPlaces = 255

type sealedBlock struct {
	bytes []byte
	guid  id.GUID
	read  seal.ReadKey
}

// store puts a block until it is acknowledged. Refused as full, it takes
// another name, and so another place, up to three times: file diversion. Under a
// name on which this member has all the claims it may have it takes the next one,
// and the next put of the same begins there.
// known: the pool seems to have it under its first name.
func (u *upload) store(ctx context.Context, b sealedBlock, known bool, again func(salt uint8) (sealedBlock, error)) (ack, error) {
	first := b.guid
	full := &FullError{GUID: first}
	start := u.c.firstSalt(first)
	for i := range salts {
		salt := start + uint8(i) // comes round: claims on earlier names may have ended
		if i > 0 || salt > 0 {
			var err error
			if b, err = again(salt); err != nil {
				return ack{}, err
			}
			if err := u.journal.intend(b.guid); err != nil {
				return ack{}, err
			}
		}
		c, err := u.putBlock(ctx, b, known || i == 0 && salt > 0)
		switch Code(err) {
		case codeFull:
			full.add(err)
			u.divert(b.guid)
			if full.Tries > maxDiversions {
				return ack{}, full
			}
			known = false
		case codeClaims:
			u.c.claimed(first, salt)
			if len(named(err)) > 0 {
				u.divert(b.guid)
			}
			known = true
		default:
			if err != nil {
				return ack{}, fmt.Errorf("block %s: %w", b.guid.Short(), err)
			}
			return ack{
				guid: b.guid, read: b.read, fresh: !c.Known,
				min: uint8(min(c.Min, maxPlaces)), target: uint8(min(c.Target, maxPlaces)),
			}, nil
		}
	}
	return ack{}, fmt.Errorf("block %s: %w", first.Short(), ErrClaims)
}

// divert notes a name that was given up, and of which copies may be left.
func (u *upload) divert(g id.GUID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.diverted = append(u.diverted, g)
}

// putBlock puts one block under one name.
func (u *upload) putBlock(ctx context.Context, b sealedBlock, known bool) (Copies, error) {
	u.meter.begin(b.guid)
	defer u.meter.end(b.guid)
	opt := u.opt
	opt.Known = known
	for try := 1; ; try++ {
		if err := u.window.acquire(ctx); err != nil {
			return Copies{}, err
		}
		start := time.Now()
		c, err := u.c.cfg.Blocks.Put(ctx, b.guid, b.bytes, u.journal.head.Claim, opt)
		u.window.release(err)
		if err == nil {
			return c, nil
		}
		u.meter.refused(b.guid, err)
		if ctx.Err() != nil {
			return Copies{}, context.Cause(ctx)
		}
		if again := u.window.retry(ctx, try, start, err); again != nil {
			return Copies{}, again
		}
	}
}

// putManifest seals and stores a node of the tree.
func (u *upload) putManifest(ctx context.Context, m *seal.Manifest) (seal.Child, error) {
	s := u.sealer()
	encode := func(salt uint8) (sealedBlock, error) {
		b, r, err := s.Manifest(m, salt)
		return sealedBlock{b, seal.BlockGUID(b), r}, err
	}
	b, err := encode(0)
	if err != nil {
		return seal.Child{}, err
	}
	if err := u.journal.intend(b.guid); err != nil {
		return seal.Child{}, err
	}
	a, err := u.store(ctx, b, false, encode)
	if err != nil {
		return seal.Child{}, err
	}
	u.nodes = append(u.nodes, a.guid)
	u.count(a, false)
	u.meter.add(0, 1, true)
	return seal.Child{GUID: a.guid, Read: a.read}, nil
}

// putRoot stores the root, last of all, and returns the link.
func (u *upload) putRoot(ctx context.Context, level uint8, children []seal.Child, inline []byte) (seal.Link, error) {
	c, err := u.putManifest(ctx, &seal.Manifest{
		Level: level, Children: children,
		Root: &seal.Root{
			Total: uint64(u.res.Size), Claim: u.journal.head.Claim, Name: u.src.name, Mode: u.src.mode, Mtime: u.src.mtime,
			Chunking: seal.Fixed, ChunkSize: uint32(u.c.cfg.ChunkSize), Inline: inline,
		},
	})
	if err != nil {
		return seal.Link{}, err
	}
	return seal.NewLink(u.c.cfg.Pool, c.GUID, c.Read), nil
}

// endDiverted ends the claims on names that were given up: a refused put may
// have left copies. Not where the same came again later, or had come before, and was
// taken under that name. It is no reason to fail, nor to wait for long.
func (u *upload) endDiverted(ctx context.Context) {
	if len(u.diverted) == 0 {
		return
	}
	j, err := u.journal.read()
	if err != nil {
		return
	}
	has := make(map[id.GUID]bool)
	for _, a := range j.acked {
		has[a.guid] = true
	}
	for _, g := range u.diverted {
		if has[g] || slices.Contains(u.nodes, g) {
			continue
		}
		if _, err := u.c.cfg.Blocks.Remove(ctx, g, u.journal.head.Claim); err != nil && !gone(err) {
			return
		}
	}
}

// recent lets equal chunks that follow each other closely go out once. It
// holds the names of chunks in transfer and of the last recentSize done.
type recent struct {
	mu    sync.Mutex // guards all below
	by    map[id.GUID]*outcome
	order []id.GUID // done ones, oldest first
}

const recentSize = 1024

type outcome struct {
	done chan struct{}
	ack  ack
	err  error
}

func newRecent() *recent { return &recent{by: make(map[id.GUID]*outcome)} }

// join returns the outcome of g, and whether the caller is to bring it about.
func (r *recent) join(g id.GUID) (o *outcome, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.by[g]; o != nil {
		return o, false
	}
	o = &outcome{done: make(chan struct{})}
	r.by[g] = o
	return o, true
}

func (r *recent) finish(g id.GUID, o *outcome, a ack, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.ack, o.err = a, err
	close(o.done)
	if err != nil {
		delete(r.by, g)
		return
	}
	r.order = append(r.order, g)
	if len(r.order) > recentSize {
		delete(r.by, r.order[0])
		r.order = r.order[1:]
	}
}
