package memnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// Bounds and times, those of transport/p2p.
const (
	roomControl = 4 << 20
	roomBulk    = 48 << 20
	roomAll     = 128 << 20
	firstRetry  = 5 * time.Millisecond
	lastRetry   = time.Second
	refusedTime = 5 * time.Second
	askBurst    = 8
	askEvery    = time.Second
)

var (
	errSelf  = fmt.Errorf("%w: that is this node", transport.ErrUnreachable)
	errEmpty = errors.New("empty frame")
)

// Transport is a node's end of a Network.
type Transport struct {
	net  *Network
	key  [32]byte
	addr string
	host transport.Host
	wg   sync.WaitGroup
	done chan struct{}

	mu       sync.Mutex
	closed   bool
	queued   int // bytes in all queues
	lanes    map[[32]byte]*lane
	sessions map[[32]byte]*session
	askers   map[string]time.Time // when the bucket of an address is full again
}

var _ transport.Transport = (*Transport)(nil)

// lane is what waits for one peer. All fields are under the transport's mu.
type lane struct {
	to      *id.Handle
	queue   [2][]item // control, bulk
	bytes   [2]int
	pumping [2]bool
	refused error
	until   time.Time
}

type item struct {
	frame []byte
	at    time.Time
}

func newTransport(n *Network, key [32]byte, addr string, h transport.Host) *Transport {
	return &Transport{
		net: n, key: key, addr: addr, host: h, done: make(chan struct{}),
		lanes: map[[32]byte]*lane{}, sessions: map[[32]byte]*session{},
		askers: map[string]time.Time{},
	}
}

// Addrs implements transport.Transport.
func (t *Transport) Addrs() []string { return []string{t.addr} }

func (t *Transport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *Transport) session(key [32]byte) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[key]
}

// Send implements transport.Transport.
func (t *Transport) Send(to *id.Handle, bulk bool, parts ...[]byte) error {
	frame := bytes.Join(parts, nil) // the receiver's own
	limit, room := transport.MaxControl, roomControl
	if bulk {
		limit, room = transport.MaxBulk, roomBulk
	}
	switch {
	case len(frame) > limit:
		return transport.ErrTooLarge
	case len(frame) == 0:
		return errEmpty
	case to.Key == t.key:
		return errSelf
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return transport.ErrClosed
	}
	s := t.sessions[to.Key]
	if s != nil {
		if near, _ := s.ends(t); near.peer.GUID != to.GUID {
			return fmt.Errorf("%w: the key answers to another GUID", transport.ErrUnreachable)
		}
	}
	l := t.lanes[to.Key]
	if l == nil {
		l = &lane{}
		t.lanes[to.Key] = l
	}
	if l.to == nil || to.Epoch >= l.to.Epoch {
		l.to = to
	}
	if s == nil && l.refused != nil && time.Now().Before(l.until) {
		return l.refused
	}
	c := class(bulk)
	if l.bytes[c]+len(frame) > room || t.queued+len(frame) > roomAll {
		return transport.ErrQueueFull
	}
	l.queue[c] = append(l.queue[c], item{frame, time.Now()})
	l.bytes[c] += len(frame)
	t.queued += len(frame)
	if !l.pumping[c] {
		l.pumping[c] = true
		t.wg.Add(1)
		go t.pump(to.Key, l, c)
	}
	return nil
}

// next pops the first frame that is not too old; false ends the pump.
func (t *Transport) next(l *lane, c int, pop bool) (frame []byte, to *id.Handle, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.closed && len(l.queue[c]) > 0 {
		it := l.queue[c][0]
		stale := time.Since(it.at) > t.net.queued
		if stale || pop {
			l.queue[c][0] = item{}
			l.queue[c] = l.queue[c][1:]
			l.bytes[c] -= len(it.frame)
			t.queued -= len(it.frame)
		}
		if !stale {
			return it.frame, l.to, true
		}
	}
	l.pumping[c] = false
	return nil, nil, false
}

// pump sends the queued frames of one class to one peer.
func (t *Transport) pump(key [32]byte, l *lane, c int) {
	defer t.wg.Done()
	retry := firstRetry
	for {
		_, to, ok := t.next(l, c, false)
		if !ok {
			return
		}
		s, err := t.connect(key, to.Addrs)
		if err != nil {
			if errors.Is(err, transport.ErrRefused) {
				t.refusedBy(l, err)
			}
			t.wait(retry)
			retry = min(2*retry, lastRetry)
			continue
		}
		retry = firstRetry
		frame, _, ok := t.next(l, c, true)
		if !ok {
			return
		}
		if t.net.lost() {
			continue
		}
		_, far := s.ends(t)
		select {
		case far.in[c] <- frame:
		case <-s.done:
		case <-t.done:
		}
	}
}

// refusedBy notes why a peer does not want us, and drops what waits for it.
func (t *Transport) refusedBy(l *lane, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.refused, l.until = err, time.Now().Add(refusedTime)
	t.flush(l)
}

// flush drops what is queued. t.mu is held.
func (t *Transport) flush(l *lane) {
	for c := range l.queue {
		t.queued -= l.bytes[c]
		l.queue[c], l.bytes[c] = nil, 0
	}
}

func (t *Transport) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.done:
	}
}

// Ask implements transport.Transport.
func (t *Transport) Ask(ctx context.Context, to *id.Handle, question []byte) ([]byte, [32]byte, error) {
	if len(question) > transport.MaxAsk {
		return nil, to.Key, transport.ErrTooLarge
	}
	if !t.enter() {
		return nil, to.Key, transport.ErrClosed
	}
	defer t.wg.Done()
	var u *Transport
	for _, a := range to.Addrs {
		if v := t.net.at(t.addr, a); u == nil && v != nil && (to.Key == [32]byte{} || v.key == to.Key) {
			u = v
		}
	}
	switch {
	case to.Key == t.key, u == t:
		return nil, to.Key, errSelf
	case u == nil, !u.enter():
		return nil, to.Key, fmt.Errorf("%w: nobody there", transport.ErrUnreachable)
	}
	defer u.wg.Done()
	if !u.mayAsk(t.addr) {
		return nil, u.key, refuse(errors.New("too many questions from this address; try again in a second"))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, end := range []*Transport{t, u} {
		stop := end.until(cancel)
		defer stop()
	}
	answer, err := u.host.Answer(ctx, t.key, question)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, u.key, fmt.Errorf("%w: no answer: %w", transport.ErrUnreachable, ctx.Err())
	case err != nil:
		return nil, u.key, refuse(err)
	case len(answer) > transport.MaxAnswer:
		return nil, u.key, refuse(transport.ErrTooLarge)
	}
	return answer, u.key, nil
}

// until calls f when t closes, unless the returned function is called first;
// that waits for the goroutine it takes.
func (t *Transport) until(f func()) func() {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-t.done:
			f()
		case <-stop:
		}
	}()
	return func() { close(stop); <-ended }
}

// mayAsk takes a token of the bucket of an address.
func (t *Transport) mayAsk(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	full := t.askers[addr]
	if full.Before(now) {
		full = now
	}
	full = full.Add(askEvery)
	if full.Sub(now) > askBurst*askEvery {
		return false
	}
	t.askers[addr] = full
	return true
}

// Drop implements transport.Transport.
func (t *Transport) Drop(g id.GUID) {
	t.mu.Lock()
	var end []*session
	for _, s := range t.sessions {
		if near, _ := s.ends(t); near.peer.GUID == g {
			end = append(end, s)
		}
	}
	for _, l := range t.lanes {
		if l.to.GUID == g {
			t.flush(l)
		}
	}
	t.mu.Unlock()
	for _, s := range end {
		s.close()
	}
}

// hangUp ends the session with key, if any.
func (t *Transport) hangUp(key [32]byte) {
	if s := t.session(key); s != nil {
		s.close()
	}
}

// Links implements transport.Transport.
func (t *Transport) Links() []transport.Link {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []transport.Link
	for _, s := range t.sessions {
		near, _ := s.ends(t)
		out = append(out, transport.Link{Peer: near.peer.GUID, Addr: near.farAddr, Proto: "mem", Inbound: near == &s.sides[1]})
	}
	slices.SortFunc(out, func(a, b transport.Link) int { return a.Peer.Cmp(b.Peer) })
	return out
}

// Close implements transport.Transport. Calls of the host under way are
// waited for: a host that blocks in Receive must let go.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.wg.Wait()
		return nil
	}
	t.closed = true
	close(t.done)
	var end []*session
	for _, s := range t.sessions {
		end = append(end, s)
	}
	for _, l := range t.lanes {
		t.flush(l)
	}
	t.mu.Unlock()
	t.net.leave(t)
	for _, s := range end {
		s.close()
	}
	t.wg.Wait()
	return nil
}
