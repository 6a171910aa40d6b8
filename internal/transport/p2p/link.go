package p2p

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/wire"
)

// link is an admitted control stream, with the bulk streams we opened beside it.
type link struct {
	p       *remote
	conn    network.Conn
	s       *stream
	h       *id.Handle // as admitted on this link
	opener  bool       // we opened it
	relayed bool
	opened  time.Time
	rtt     time.Duration // of the handshake

	wake     chan struct{} // the writer has something to do
	bulkWake chan struct{} // a bulk writer has
	done     chan struct{}
	once     sync.Once
	used     atomic.Int64 // since() of the last frame either way

	// Under p.mu.
	bulk, bulkFree int           // bulk writers, and those of them that wait
	bulkMax        int           // how many there may be
	moved          chan struct{} // closed when the far side will write no more here
	movedOn        bool
}

// Sizes of a link's buffers: a batch of small control frames, and what one
// TLS record holds.
const (
	writeBuffer = 32 << 10
	readBuffer  = 16 << 10
)

// addLink takes an admitted stream into service and starts its writer, and
// its reader if we opened it (else the caller reads). On error the stream is the
// caller's to reset.
func (t *Transport) addLink(conn network.Conn, s *stream, h *id.Handle, opener bool, rtt time.Duration) (*link, error) {
	cs := t.connOf(conn)
	if cs == nil {
		return nil, transport.ErrClosed
	}
	p, err := t.remoteFor(h.Key)
	if err != nil {
		return nil, err
	}
	l := &link{
		p: p, conn: conn, s: s, h: h, opener: opener, opened: time.Now(), rtt: rtt,
		relayed: kindOf(conn.RemoteMultiaddr()) == kindRelay,
		wake:    make(chan struct{}, 1), bulkWake: make(chan struct{}, maxBulk),
		done: make(chan struct{}), moved: make(chan struct{}), bulkMax: maxBulk,
	}
	if !l.relayed && isQUIC(conn.RemoteMultiaddr()) {
		// All streams of a QUIC connection share one window, half as large
		// again as that of its largest stream. Two bulk streams whose frames
		// the receiver does not take would use it up, and stop control.
		l.bulkMax = 1
	}
	l.used.Store(since())
	if !t.enter() { // for the writer
		p.mu.Unlock()
		return nil, transport.ErrClosed
	}
	if opener && !t.enter() { // for the reader
		p.mu.Unlock()
		t.wg.Done()
		return nil, transport.ErrClosed
	}
	if p.said != nil && p.said.GUID != h.GUID {
		p.said = nil
	}
	p.own = h
	p.fails, p.next, p.refused, p.used = 0, time.Time{}, nil, time.Now()
	p.links = append(p.links, l)
	p.sort()
	var extra []*link // of an earlier boot, or one too many
	for i, o := range p.links {
		if i >= maxLinks || o.h.Epoch < p.links[0].h.Epoch {
			extra = append(extra, o)
		}
	}
	p.wake()
	l.nudge()
	p.nudge()
	p.mu.Unlock()
	cs.linked(h)
	t.stats.linksOpened.Add(1)
	go l.write()
	if opener {
		go func() {
			defer t.wg.Done()
			l.read()
		}()
	}
	for _, o := range extra {
		o.close()
	}
	if l.relayed { // the hole may have been punched while hands were shaken
		for _, c := range t.swarm.ConnsToPeer(p.pid) {
			t.punched(c)
		}
	}
	return l, nil
}

func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// nudgeBulk wakes a waiting bulk writer or starts one more. p.mu is held.
func (l *link) nudgeBulk() {
	select {
	case <-l.done:
		return
	default:
	}
	if l.bulkFree > 0 {
		select {
		case l.bulkWake <- struct{}{}:
		default:
		}
		return
	}
	if l.bulk < l.bulkMax && l.p.t.enter() {
		l.bulk++
		go l.writeBulk()
	}
}

// close ends the link, and its connection if no other link is on it.
func (l *link) close() {
	l.once.Do(func() {
		t, p := l.p.t, l.p
		close(l.done)
		_ = l.s.Reset()
		p.mu.Lock()
		if i := slices.Index(p.links, l); i >= 0 {
			p.links = slices.Delete(p.links, i, i+1)
		}
		p.movedOn(l)
		p.used = time.Now()
		p.wake()
		p.mu.Unlock()
		if cs := t.connOf(l.conn); cs == nil || cs.unlinked() {
			t.dropUnlinked(l.conn)
		}
	})
}

// write sends queued control frames while this is the link to write on.
func (l *link) write() {
	t := l.p.t
	defer t.wg.Done()
	w := bufio.NewWriterSize(l.s, writeBuffer)
	var (
		batch  []item
		bytes  int
		move   bool
		wrote  bool // since the last mark
		limit  time.Time
		header [4]byte
	)
	for {
		batch, bytes, move = l.p.take(l, writeBuffer, batch[:0])
		if now := time.Now(); (len(batch) > 0 || w.Buffered() > 0) && limit.Sub(now) < t.times.stall/2 {
			limit = now.Add(t.times.stall)
			_ = l.s.SetWriteDeadline(limit)
		}
		var err error
		for _, f := range batch {
			binary.BigEndian.PutUint32(header[:], uint32(f.size))
			_, err = w.Write(header[:])
			for _, part := range f.parts {
				if err == nil {
					_, err = w.Write(part)
				}
			}
			if err != nil {
				break
			}
		}
		if n := len(batch); n > 0 {
			if err == nil {
				wrote = true
				l.used.Store(since())
				t.stats.controlOut.Add(uint64(n))
				t.stats.controlBytesOut.Add(uint64(bytes))
				clear(batch)
				continue
			}
			t.stats.lost.Add(uint64(n))
		}
		if err == nil && move && wrote {
			wrote = false
			_, err = w.Write([]byte{0, 0, 0, 0})
		}
		if err == nil && w.Buffered() > 0 {
			err = w.Flush()
		}
		if err != nil {
			t.countFault(err)
			l.close()
			return
		}
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
	}
}

// read delivers control frames until the link ends.
func (l *link) read() {
	defer l.close()
	t, p := l.p.t, l.p
	br := bufio.NewReaderSize(l.s, readBuffer)
	for {
		f, err := t.readFrame(br, l.s, transport.MaxControl)
		if err != nil {
			t.countFault(err)
			return
		}
		if len(f) == 0 {
			p.mu.Lock()
			p.movedOn(l)
			p.mu.Unlock()
			continue
		}
		l.used.Store(since())
		from := p.takeTurn(l)
		if from == nil {
			return
		}
		t.stats.controlIn.Add(1)
		t.stats.controlBytesIn.Add(uint64(len(f)))
		t.host.Receive(from, false, f)
	}
}

// movedOn notes that the far side has stopped writing on l. p.mu is held.
func (p *remote) movedOn(l *link) {
	if !l.movedOn {
		l.movedOn = true
		close(l.moved)
	}
}

// takeTurn makes l the link that is delivered from, once the one before has
// been read to its end, was of an earlier boot, or has had time enough. It
// returns who speaks, as this boot of it has said last; nil if l ends first.
func (p *remote) takeTurn(l *link) *id.Handle {
	p.mu.Lock()
	old := p.turn
	if old == l && !l.movedOn {
		defer p.mu.Unlock()
		return p.speaker(l)
	}
	if old != nil && old != l && !old.movedOn && old.h.Epoch >= l.h.Epoch {
		moved := old.moved
		p.mu.Unlock()
		timer := time.NewTimer(turnTime)
		select {
		case <-moved:
		case <-timer.C:
		case <-l.done:
			timer.Stop()
			return nil
		}
		timer.Stop()
		p.mu.Lock()
	}
	p.turn = l
	if l.movedOn {
		l.movedOn, l.moved = false, make(chan struct{})
	}
	defer p.mu.Unlock()
	return p.speaker(l)
}

// speaker is the handle of l's far end, with the addresses of its last
// handshake on any link. p.mu is held.
func (p *remote) speaker(l *link) *id.Handle {
	if p.own != nil && p.own.GUID == l.h.GUID && p.own.Epoch == l.h.Epoch {
		return p.own
	}
	return l.h
}

// readFrame reads one frame. It waits for the first byte as long as it takes,
// and then gives the rest times.frame.
func (t *Transport) readFrame(br *bufio.Reader, s network.Stream, limit int) ([]byte, error) {
	if _, err := br.Peek(1); err != nil {
		return nil, err
	}
	late := false
	if head := br.Buffered(); head < 4 || !hasFrame(br, limit) {
		late = true
		_ = s.SetReadDeadline(time.Now().Add(t.times.frame))
	}
	f, err := wire.ReadFrame(br, limit)
	if late && err == nil {
		_ = s.SetReadDeadline(time.Time{})
	}
	return f, err
}

// hasFrame reports whether a whole frame is buffered; four bytes are.
func hasFrame(br *bufio.Reader, limit int) bool {
	head, err := br.Peek(4)
	if err != nil {
		return false
	}
	n := binary.BigEndian.Uint32(head)
	return uint64(n) > uint64(limit) || uint64(br.Buffered()) >= uint64(n)+4
}

// countFault sorts the end of a stream into the counters.
func (t *Transport) countFault(err error) {
	var ne net.Error
	switch {
	case errors.Is(err, wire.ErrMalformed):
		t.stats.badFrames.Add(1)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		t.stats.stalls.Add(1)
	}
}
