package files

import (
	"bytes"
	"context"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// upload is one put under way. Its stages hand chunks on through channels; the
// collector alone touches tree and res.
type upload struct {
	c       *Client
	src     *source
	journal *journal
	window  *window
	opt     PutOptions
	meter   *meter
	recent  *recent
	share   *share

	plain chan *chunk   // read, not sealed
	ready chan *chunk   // sealed
	going chan *chunk   // intended and looked up
	done  chan *chunk   // acknowledged
	room  chan struct{} // places of this file for chunks between read and acknowledged
	bufs  sync.Pool     // of plaintexts

	tree  tree
	nodes []id.GUID // of the tree, stored
	res   Result

	vain, unasked int // batches, of the stage alone: see look

	mu       sync.Mutex // guards diverted
	diverted []id.GUID  // names given up of which copies may be left
}

// chunk is one piece of the file on its way.
type chunk struct {
	index  int64
	length int
	plain  []byte // given back after sealing
	block  []byte // given to Blocks, then dropped
	known  bool   // the pool seems to have it
	old    bool   // an earlier put stored it
	ack    ack
}

// staged is how many chunks may wait beside those in transfer: half a window,
// so that a batch is looked up while another one goes out.
func (u *upload) staged() int { return u.window.most/2 + u.c.cfg.Sealers }

func (u *upload) run(ctx context.Context) (seal.Link, error) {
	size := u.c.cfg.ChunkSize
	first := make([]byte, size)
	stop := u.src.stopReading(ctx)
	n, err := u.src.read(first, 0)
	stop()
	if ctx.Err() != nil {
		return seal.Link{}, context.Cause(ctx)
	}
	if err != nil {
		return seal.Link{}, err
	}
	if n < size && n <= seal.MaxInline {
		// The whole file fits into its root.
		inline := first[:n]
		if err := u.unmixed(ctx, func() (isSent, error) {
			return func(_ int64, plain []byte) bool { return bytes.Equal(plain, inline) }, nil
		}); err != nil {
			return seal.Link{}, err
		}
		u.res.Size = int64(n)
		u.meter.add(int64(n), 0, true)
		return u.putRoot(ctx, 0, nil, inline)
	}
	u.bufs.New = func() any { b := make([]byte, size); return &b }
	u.plain = make(chan *chunk)
	u.ready = make(chan *chunk, u.staged())
	u.going = make(chan *chunk)
	u.done = make(chan *chunk, u.window.most)
	u.room = make(chan struct{}, u.window.most+u.staged())

	g := newGroup(ctx)
	g.run(func(ctx context.Context) error { return u.read(ctx, first, n) })
	g.workers(u.c.cfg.Sealers, u.sealAll, func() { close(u.ready) })
	g.run(u.stage)
	g.workers(u.window.most, u.sendAll, func() { close(u.done) })
	g.fail(u.collect(g.ctx))
	if err := g.wait(); err != nil {
		return seal.Link{}, err
	}
	if err := u.unmixed(ctx, u.acknowledged); err != nil {
		return seal.Link{}, err
	}
	level, children, err := u.tree.top(ctx)
	if err != nil {
		return seal.Link{}, err
	}
	return u.putRoot(ctx, level, children, nil)
}

// read cuts the source into chunks. Chunks of a path that the journal has are
// not read again.
func (u *upload) read(ctx context.Context, first []byte, n int) error {
	defer close(u.plain)
	defer u.src.stopReading(ctx)()
	more := n == len(first)
	for index := int64(0); ; index++ {
		if a, ok := u.journal.acked[index]; ok && u.src.file != nil {
			c := &chunk{index: index, length: int(a.length), old: true, ack: a}
			if err := give(ctx, u.plain, c); err != nil {
				return err
			}
			if int(a.length) < len(first) || (index+1)*int64(len(first)) >= u.src.size {
				return nil
			}
			continue
		}
		if err := u.enter(ctx); err != nil {
			return err
		}
		buf := first
		if index > 0 || buf == nil {
			buf = *u.bufs.Get().(*[]byte)
			var err error
			if n, err = u.src.read(buf, index); err != nil {
				return err
			}
			more = n == len(buf)
		}
		if n == 0 {
			return nil
		}
		c := &chunk{index: index, length: n, ack: ack{length: uint32(n)}}
		if bytes.Equal(buf[:n], zeros[:n]) {
			c.ack.hole = true
			u.bufs.Put(&buf)
			u.leave()
		} else {
			c.plain = buf
		}
		if err := give(ctx, u.plain, c); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// enter waits for a place for a chunk, of the file's and of all files'.
func (u *upload) enter(ctx context.Context) error {
	if err := give(ctx, u.room, struct{}{}); err != nil {
		return err
	}
	return u.share.enter(ctx)
}

func (u *upload) leave() {
	<-u.room
	u.share.leave()
}

// sealAll seals what was read.
func (u *upload) sealAll(ctx context.Context) error {
	s := u.sealer()
	for {
		c, ok, err := take(ctx, u.plain)
		if !ok || err != nil {
			return err
		}
		if c.plain != nil {
			if c.block, c.ack.read, err = s.Data(c.plain[:c.length], 0); err != nil {
				return err
			}
			c.ack.guid = seal.BlockGUID(c.block)
			buf := c.plain
			c.plain = nil
			u.bufs.Put(&buf)
		}
		if err := give(ctx, u.ready, c); err != nil {
			return err
		}
	}
}

// stage takes what is ready, at most half a window at once, records that it
// goes out, and asks which of it the pool has.
func (u *upload) stage(ctx context.Context) error {
	defer close(u.going)
	batch := make([]*chunk, 0, u.window.most/2+1)
	for {
		c, ok, err := take(ctx, u.ready)
		if !ok || err != nil {
			return err
		}
		batch = append(batch[:0], c)
	fill:
		for len(batch) < cap(batch) {
			select {
			case c, ok := <-u.ready:
				if !ok {
					break fill
				}
				batch = append(batch, c)
			default:
				break fill
			}
		}
		if err := u.prepare(ctx, batch); err != nil {
			return err
		}
		for _, c := range batch {
			if err := give(ctx, u.going, c); err != nil {
				return err
			}
		}
	}
}

// prepare journals a batch and asks for it. Chunks that the journal of a
// stream has under the same name are done. For less than a quarter of a chunk
// the question costs more than the bytes.
func (u *upload) prepare(ctx context.Context, batch []*chunk) error {
	var out []*chunk
	var gs []id.GUID
	size := 0
	for _, c := range batch {
		if c.ack.hole || c.old {
			continue
		}
		if a, ok := u.journal.acked[c.index]; ok && !a.hole && a.guid == c.ack.guid {
			c.old, c.ack, c.block = true, a, nil
			u.leave()
			continue
		}
		out, gs, size = append(out, c), append(gs, c.ack.guid), size+c.length
	}
	if len(out) == 0 {
		return nil
	}
	if err := u.journal.intend(gs...); err != nil {
		return err
	}
	if size < u.c.cfg.ChunkSize/4 {
		return nil
	}
	return u.look(ctx, out, gs)
}

// Chosen by us: a pool with dead members answers late, and every stage would
// wait for it; a file that is new to the pool is asked for in vain.
const (
	lookPatience = time.Second
	lookSkip     = 8 // batches at most from one vain question to the next
)

// look asks which chunks the pool has. The question only saves bytes: without
// an answer they are sent. After each vain one twice as many batches go
// unasked.
func (u *upload) look(ctx context.Context, out []*chunk, gs []id.GUID) error {
	if u.unasked > 0 {
		u.unasked--
		return nil
	}
	u.meter.begin(gs[0]) // if it hangs, that is where
	defer u.meter.end(gs[0])
	short, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	found, err := u.c.cfg.Blocks.Head(short, gs)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	hit := false
	if err == nil && len(found) == len(gs) {
		for i, c := range out {
			c.known = found[i].Copies > 0
			hit = hit || c.known
		}
	}
	if hit {
		u.vain = 0
	} else {
		u.vain = min(max(1, 2*u.vain), lookSkip)
	}
	u.unasked = u.vain
	return nil
}

// sendAll puts what is staged.
func (u *upload) sendAll(ctx context.Context) error {
	var s *seal.Sealer
	for {
		c, ok, err := take(ctx, u.going)
		if !ok || err != nil {
			return err
		}
		if c.block != nil {
			if s == nil {
				s = u.sealer()
			}
			if err := u.send(ctx, s, c); err != nil {
				return err
			}
			c.block = nil
			u.leave()
		}
		if err := give(ctx, u.done, c); err != nil {
			return err
		}
	}
}

// send puts one chunk. Equal chunks of one file go out once.
func (u *upload) send(ctx context.Context, s *seal.Sealer, c *chunk) error {
	first := c.ack.guid
	for {
		f, mine := u.recent.join(first)
		if !mine {
			if _, _, err := take(ctx, f.done); err != nil {
				return err
			}
			if f.err == nil {
				c.ack, c.ack.fresh = f.ack, false
				return nil
			}
			continue
		}
		stored, err := u.store(ctx, sealedBlock{c.block, c.ack.guid, c.ack.read}, c.known, func(salt uint8) (sealedBlock, error) {
			plain, err := seal.OpenData(make([]byte, 0, c.length), c.block, c.ack.read)
			if err != nil {
				return sealedBlock{}, err
			}
			b, r, err := s.Data(plain, salt)
			return sealedBlock{b, seal.BlockGUID(b), r}, err
		})
		if err == nil {
			c.ack = stored
			c.ack.length = uint32(c.length)
		}
		u.recent.finish(first, f, c.ack, err)
		return err
	}
}

// collect acknowledges chunks in the journal and builds the tree in order.
func (u *upload) collect(ctx context.Context) error {
	waiting := make(map[int64]*chunk)
	next := int64(0)
	for {
		c, ok, err := take(ctx, u.done)
		if !ok || err != nil {
			return err
		}
		if !c.old {
			if err := u.journal.acknowledge(c.index, c.ack); err != nil {
				return err
			}
		}
		u.count(c.ack, c.old)
		u.meter.add(int64(c.length), 1, !c.old && !c.ack.hole)
		waiting[c.index] = c
		for c := waiting[next]; c != nil; c = waiting[next] {
			delete(waiting, next)
			next++
			child := seal.Child{GUID: c.ack.guid, Hole: c.ack.hole, Read: c.ack.read, Length: uint64(c.length)}
			if err := u.tree.add(ctx, 0, child); err != nil {
				return err
			}
			u.res.Size += int64(c.length)
		}
	}
}

// count adds a block or hole to the result.
func (u *upload) count(a ack, old bool) {
	if a.hole {
		u.res.Holes++
		return
	}
	if u.res.Blocks == 0 || int(a.min) < u.res.Copies.Min {
		u.res.Copies.Min = int(a.min)
	}
	u.res.Copies.Target = max(u.res.Copies.Target, int(a.target))
	u.res.Blocks++
	switch {
	case old:
		u.res.Resumed++
	case a.fresh:
		u.res.NewBlocks++
	}
}
