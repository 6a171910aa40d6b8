package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/wire"
)

// Bulk streams carry blocks beside a link's control frames, one way each.

// writeBulk sends bulk frames on a stream of its own until it has been idle
// for a while or the link ends.
func (l *link) writeBulk() {
	t, p := l.p.t, l.p
	defer t.wg.Done()
	s, err := l.openBulk()
	if err != nil {
		p.mu.Lock()
		l.bulk--
		p.next = time.Now().Add(lastRetry)
		p.mu.Unlock()
		t.countFault(err)
		l.close() // the frames wait for the next link
		return
	}
	defer func() { _ = s.Close() }()
	timer := time.NewTimer(bulkIdle)
	defer timer.Stop()
	for {
		f, ok := p.takeBulk(l)
		if !ok {
			if !l.awaitBulk(timer) {
				return
			}
			continue
		}
		err := writeLong(s, f, t.times.stall)
		t.queued.Add(-int64(f.size))
		if err != nil {
			t.countFault(err)
			t.stats.lost.Add(1)
			_ = s.Reset()
			p.mu.Lock()
			l.bulk--
			p.wake()
			p.mu.Unlock()
			return
		}
		l.used.Store(since())
		t.stats.bulkOut.Add(1)
		t.stats.bulkBytesOut.Add(uint64(f.size))
	}
}

func (l *link) openBulk() (*stream, error) {
	ctx, cancel := context.WithTimeout(l.p.t.ctx, l.p.t.times.shake)
	defer cancel()
	return newStream(ctx, l.conn, bulkProto)
}

// awaitBulk waits for a frame to write; false tells the writer to end.
func (l *link) awaitBulk(timer *time.Timer) bool {
	p := l.p
	p.mu.Lock()
	if len(p.links) > 0 && p.links[0] == l && p.blk.len() > 0 {
		p.mu.Unlock()
		return true
	}
	l.bulkFree++
	p.mu.Unlock()
	timer.Reset(bulkIdle)
	more := true
	select {
	case <-l.bulkWake:
	case <-timer.C:
		more = false
	case <-l.done:
		more = false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l.bulkFree--
	if !more {
		l.bulk--
		// A wake-up may have crossed the timer.
		if len(p.links) > 0 && p.links[0] == l && p.blk.len() > 0 {
			l.nudgeBulk()
		}
	}
	return more
}

// writeLong writes one frame without copying more of it than a short first part,
// which goes with the length.
func writeLong(s network.Stream, f item, within time.Duration) error {
	_ = s.SetWriteDeadline(time.Now().Add(within))
	parts := f.parts
	head := make([]byte, 4, 1024)
	binary.BigEndian.PutUint32(head, uint32(f.size))
	if len(parts[0]) <= cap(head)-len(head) {
		head = append(head, parts[0]...)
		parts = parts[1:]
	}
	_, err := s.Write(head)
	for _, part := range parts {
		if err != nil {
			break
		}
		_, err = s.Write(part)
	}
	return err
}

// onBulk reads bulk frames from a stream that the other side opened.
func (t *Transport) onBulk(s network.Stream) {
	if !t.enter() {
		_ = s.Reset()
		return
	}
	defer t.wg.Done()
	cs := t.connOf(s.Conn())
	if cs == nil {
		_ = s.Reset()
		return
	}
	if cs.bulkIn.Add(1) > 2*maxBulk {
		cs.bulkIn.Add(-1)
		t.stats.badFrames.Add(1)
		_ = s.Reset()
		return
	}
	defer cs.bulkIn.Add(-1)
	// The third message of the handshake may still be under way.
	if !t.pauseFor(cs.ready, min(2*time.Second, t.times.shake)) {
		t.stats.badFrames.Add(1)
		_ = s.Reset()
		return
	}
	br := bufio.NewReaderSize(s, 4096)
	for {
		err := t.readBulk(br, s, cs)
		if err != nil {
			t.countFault(err)
			_ = s.Reset()
			if errors.Is(err, wire.ErrBound) {
				_ = s.Conn().Close()
			}
			return
		}
	}
}

// readBulk receives and delivers one frame. Long ones hold one of maxLongIn
// places meanwhile, so slow readers and slow senders bound our memory.
func (t *Transport) readBulk(br *bufio.Reader, s network.Stream, cs *connState) error {
	head, err := br.Peek(4)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head) > 64<<10 {
		select {
		case t.longIn <- struct{}{}:
			defer func() { <-t.longIn }()
		case <-t.done:
			return transport.ErrClosed
		}
	}
	f, err := t.readFrame(br, s, transport.MaxBulk)
	if err != nil {
		return err
	}
	if len(f) == 0 {
		return fmt.Errorf("%w: empty bulk frame", wire.ErrBound)
	}
	t.stats.bulkIn.Add(1)
	t.stats.bulkBytesIn.Add(uint64(len(f)))
	t.host.Receive(cs.touch(), true, f)
	return nil
}
