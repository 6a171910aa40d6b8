package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// Net is one network of an implementation, on which the suite starts nodes.
type Net interface {
	// Start starts a transport for h. addrs are those of a transport that was
	// there before and is closed: the new one takes its place. Without them
	// it gets addresses of its own.
	Start(t testing.TB, h *Host, addrs []string) transport.Transport
	// Nowhere is an address at which nobody answers.
	Nowhere() string
}

// node is a started transport with its host.
type node struct {
	*Host
	transport.Transport
	h *id.Handle
}

type suite struct {
	t   *testing.T
	net Net
}

// Run runs the suite. mk makes a fresh network for each test, on which a frame
// waits so long for a connection; 0: as long as it does for users.
func Run(t *testing.T, mk func(queued time.Duration) Net) {
	for name, f := range map[string]func(*suite){
		"Order":            (*suite).order,
		"Large":            (*suite).large,
		"Bounds":           (*suite).bounds,
		"BothDirections":   (*suite).bothDirections,
		"SimultaneousOpen": (*suite).simultaneousOpen,
		"Restart":          (*suite).restart,
		"AddressChange":    (*suite).addressChange,
		"RefusedByOther":   (*suite).refusedByOther,
		"RefusedByUs":      (*suite).refusedByUs,
		"StolenHandle":     (*suite).stolenHandle,
		"GUIDOfAnother":    (*suite).guidOfAnother,
		"Ask":              (*suite).ask,
		"AskRate":          (*suite).askRate,
		"QueueOverflow":    (*suite).queueOverflow,
		"SlowBulkReceiver": (*suite).slowBulkReceiver,
		"Expiry":           (*suite).expiry,
		"Close":            (*suite).close,
		"Drop":             (*suite).drop,
		"Self":             (*suite).self,
		"Links":            (*suite).links,
	} {
		queued := time.Duration(0)
		if name == "Expiry" {
			queued = expiry
		}
		t.Run(name, func(t *testing.T) {
			f(&suite{t: t, net: mk(queued)})
		})
	}
}

const pool = "lagoon"

// expiry is how long frames wait where the suite waits for their end.
const expiry = time.Second

func (s *suite) start(seed byte) *node { return s.startHost(NewHost(pool, seed), 1, nil) }

func (s *suite) startHost(h *Host, epoch uint32, addrs []string) *node {
	s.t.Helper()
	tr := s.net.Start(s.t, h, addrs)
	n := &node{Host: h, Transport: tr}
	if got := len(tr.Addrs()); got == 0 || got > id.MaxAddrs {
		s.t.Fatalf("%d addresses", got)
	}
	n.h = h.SetHandle(epoch, tr.Addrs())
	s.t.Cleanup(func() { n.stop(s.t) })
	return n
}

func (n *node) stop(t testing.TB) {
	n.Stop()
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func (s *suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) expect(n *node, from *node, bulk bool, frame string) {
	s.t.Helper()
	g := n.Next(s.t)
	if string(g.Frame) != frame || g.Bulk != bulk || g.From.GUID != from.h.GUID {
		s.t.Fatalf("got %q, bulk %v, from %s; want %q, %v, %s", clip(g.Frame), g.Bulk, g.From.GUID.Short(), clip([]byte(frame)), bulk, from.h.GUID.Short())
	}
}

// link makes two nodes linked, by an exchange of frames.
func (s *suite) link(a, b *node) {
	s.t.Helper()
	s.must(a.Send(b.h, false, []byte("hello")))
	s.expect(b, a, false, "hello")
	s.must(b.Send(a.h, false, []byte("hello yourself")))
	s.expect(a, b, false, "hello yourself")
}

func (s *suite) order() {
	a, b := s.start(1), s.start(2)
	const n = 2000
	for i := range n {
		f := make([]byte, 8+i%700)
		binary.BigEndian.PutUint64(f, uint64(i))
		s.must(a.Send(b.h, false, f))
	}
	for i := range n {
		g := b.Next(s.t)
		if got := binary.BigEndian.Uint64(g.Frame); got != uint64(i) || len(g.Frame) != 8+i%700 {
			s.t.Fatalf("frame %d of %d bytes came in place of %d", got, len(g.Frame), i)
		}
		if g.From.Epoch != a.h.Epoch || !slices.Equal(g.From.Addrs, a.h.Addrs) {
			s.t.Fatal("not the handle that the peer told")
		}
	}
}

func (s *suite) large() {
	a, b := s.start(1), s.start(2)
	s.must(a.Send(b.h, false, bytes.Repeat([]byte{7}, transport.MaxControl)))
	if g := b.Next(s.t); len(g.Frame) != transport.MaxControl || g.Bulk {
		s.t.Fatalf("%d bytes", len(g.Frame))
	}
	const n = 24
	for i := range n {
		// In one part, a short one first, or a short one last.
		f := bytes.Repeat([]byte{byte(i)}, transport.MaxBulk)
		cut := []int{0, 300, transport.MaxBulk - 300}[i%3]
		s.must(a.Send(b.h, true, f[:cut], f[cut:]))
	}
	seen := map[byte]bool{}
	for range n {
		g := b.Next(s.t)
		c := g.Frame[0]
		if !g.Bulk || len(g.Frame) != transport.MaxBulk || seen[c] || !bytes.Equal(g.Frame, bytes.Repeat([]byte{c}, len(g.Frame))) {
			s.t.Fatalf("bulk frame %d is damaged or came twice", c)
		}
		seen[c] = true
	}
}

func (s *suite) bounds() {
	a, b := s.start(1), s.start(2)
	if err := a.Send(b.h, false, make([]byte, transport.MaxControl+1)); !errors.Is(err, transport.ErrTooLarge) {
		s.t.Fatal(err)
	}
	if err := a.Send(b.h, true, make([]byte, transport.MaxBulk+1)); !errors.Is(err, transport.ErrTooLarge) {
		s.t.Fatal(err)
	}
	if err := a.Send(b.h, false, nil); err == nil {
		s.t.Fatal("an empty frame went")
	}
	if _, _, err := a.Ask(s.t.Context(), b.h, make([]byte, transport.MaxAsk+1)); !errors.Is(err, transport.ErrTooLarge) {
		s.t.Fatal(err)
	}
}

func (s *suite) bothDirections() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	const n = 300
	var wg sync.WaitGroup
	for _, p := range [][2]*node{{a, b}, {b, a}} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range n {
				if err := p[0].Send(p[1].h, i%30 == 0, fmt.Appendf(nil, "%06d", i)); err != nil {
					s.t.Error(err)
				}
			}
		}()
	}
	for _, p := range []*node{a, b} {
		next := [2]int{}
		for range n {
			g := p.Next(s.t)
			if g.Bulk {
				next[1]++
				continue
			}
			for next[0]%30 == 0 {
				next[0]++
			}
			if want := fmt.Sprintf("%06d", next[0]); string(g.Frame) != want {
				s.t.Fatalf("got %q, want %q", g.Frame, want)
			}
			next[0]++
		}
		if next[1] != n/30 {
			s.t.Fatalf("%d bulk frames", next[1])
		}
	}
	wg.Wait()
}

// simultaneousOpen lets many pairs send first at the same moment, and checks
// that nothing is lost or comes out of order.
func (s *suite) simultaneousOpen() {
	const pairs, n = 4, 200
	for i := range pairs {
		a, b := s.start(byte(2*i+1)), s.start(byte(2*i+2))
		start := make(chan struct{})
		var wg sync.WaitGroup
		for _, p := range [][2]*node{{a, b}, {b, a}} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				<-start
				for j := range n {
					if err := p[0].Send(p[1].h, false, fmt.Appendf(nil, "%06d", j)); err != nil {
						s.t.Error(err)
					}
				}
			}()
		}
		close(start)
		wg.Wait()
		for _, p := range []*node{a, b} {
			for j := range n {
				if g, want := p.Next(s.t), fmt.Sprintf("%06d", j); string(g.Frame) != want {
					s.t.Fatalf("pair %d: got %q, want %q", i, g.Frame, want)
				}
			}
		}
	}
}

// restart replaces a node by a later boot at the same address.
func (s *suite) restart() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	addrs := b.Addrs()
	b.stop(s.t)
	// While b is away, frames to it wait or are lost; Send never blocks.
	_ = a.Send(b.h, false, []byte("into the void"))
	h := NewHost(pool, 2)
	c := s.startHost(h, 2, addrs)
	s.untilReceived(a, c, c.h)
	// And the other way, with the new epoch known.
	s.untilReceived(c, a, a.h)
	g := s.fromLast(c, a)
	if g.From.Epoch != 2 {
		s.t.Fatalf("epoch %d", g.From.Epoch)
	}
}

// untilReceived sends until a frame arrives: what was sent while an old
// connection died may be lost.
func (s *suite) untilReceived(a, b *node, to *id.Handle) {
	s.t.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_ = a.Send(to, false, []byte("knock"))
		select {
		case g := <-b.got:
			if string(g.Frame) == "knock" {
				return
			}
		case <-tick.C:
		case <-limit.C:
			s.t.Fatal("not reached")
		}
	}
}

// fromLast sends one more frame and returns it, past what is still coming.
func (s *suite) fromLast(a, b *node) Got {
	s.t.Helper()
	s.must(a.Send(b.h, false, []byte("last")))
	for {
		if g := b.Next(s.t); string(g.Frame) == "last" {
			return g
		}
	}
}

// addressChange moves a node to another address; a new handle says so.
func (s *suite) addressChange() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	b.stop(s.t)
	c := s.startHost(NewHost(pool, 2), 2, nil)
	s.untilReceived(a, c, c.h)
}

func (s *suite) refusedByOther() {
	a := s.start(1)
	h := NewHost(pool, 2)
	h.Refuse = func([32]byte) error { return errors.New("no guests\x1b[31m\n today") }
	b := s.startHost(h, 1, nil)
	s.refused(a, b, "no guests [31m  today")
	b.Idle(s.t, 50*time.Millisecond)
}

// refused sends until Send itself says that the peer refuses, and why.
func (s *suite) refused(a, b *node, why string) {
	s.t.Helper()
	var err error
	Until(s.t, "refusal", func() bool {
		err = a.Send(b.h, false, []byte("let me in"))
		return err != nil
	})
	if !errors.Is(err, transport.ErrRefused) || (why != "" && !bytes.Contains([]byte(err.Error()), []byte(why))) {
		s.t.Fatalf("%q", err)
	}
	if bytes.ContainsAny([]byte(err.Error()), "\x1b\n") {
		s.t.Fatalf("control characters in %q", err)
	}
}

func (s *suite) refusedByUs() {
	h := NewHost(pool, 1)
	h.Refuse = func([32]byte) error { return errors.New("not you") }
	a := s.startHost(h, 1, nil)
	b := s.start(2)
	_ = a.Send(b.h, false, []byte("one way"))
	s.refused(b, a, "not you")
	a.Idle(s.t, 50*time.Millisecond)
	b.Idle(s.t, 0)
}

// stolenHandle replays another's hello.
func (s *suite) stolenHandle() {
	a, b := s.start(1), s.start(2)
	h := NewHost(pool, 3)
	c := s.startHost(h, 1, nil)
	h.SetHello(a.Hello())
	s.refused(c, b, "another")
	b.Idle(s.t, 50*time.Millisecond)
}

// guidOfAnother sends to a handle whose key answers, but to another GUID.
func (s *suite) guidOfAnother() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	lie := *b.h
	lie.GUID[0] ^= 1
	if err := a.Send(&lie, false, []byte("x")); !errors.Is(err, transport.ErrUnreachable) {
		s.t.Fatal(err)
	}
}

func (s *suite) ask() {
	h := NewHost(pool, 1)
	askers := make(chan [32]byte, 2)
	h.OnAsk = func(_ context.Context, key [32]byte, q []byte) ([]byte, error) {
		askers <- key
		if string(q) == "no" {
			return nil, errors.New("used up")
		}
		return bytes.Repeat([]byte("a"), transport.MaxAnswer), nil
	}
	a := s.startHost(h, 1, nil)
	b := s.startHost(NewHost("another pool", 2), 1, nil)
	ctx := s.t.Context()
	// An invite names addresses only.
	answer, key, err := b.Ask(ctx, &id.Handle{Addrs: a.h.Addrs}, []byte("may I?"))
	s.must(err)
	if len(answer) != transport.MaxAnswer || key != a.h.Key || <-askers != b.h.Key {
		s.t.Fatal("wrong answer, or wrong parties")
	}
	if _, _, err = b.Ask(ctx, a.h, []byte("no")); !errors.Is(err, transport.ErrRefused) || !bytes.Contains([]byte(err.Error()), []byte("used up")) {
		s.t.Fatal(err)
	}
	other := *a.h
	other.Key = b.h.Key
	other.Key[5] ^= 1
	if _, _, err = b.Ask(ctx, &other, []byte("no")); !errors.Is(err, transport.ErrUnreachable) {
		s.t.Fatalf("a node answered for another's key: %v", err)
	}
	if _, _, err = b.Ask(ctx, &id.Handle{Addrs: []string{s.net.Nowhere()}}, []byte("no")); !errors.Is(err, transport.ErrUnreachable) {
		s.t.Fatal(err)
	}
	// Having asked admits to nothing.
	_ = b.Send(a.h, false, []byte("x"))
	a.Idle(s.t, 50*time.Millisecond)
}

func (s *suite) askRate() {
	a, b := s.start(1), s.startHost(NewHost("another pool", 2), 1, nil)
	ctx := s.t.Context()
	began := time.Now()
	n := 0
	var err error
	for ; n < 40; n++ {
		if _, _, err = b.Ask(ctx, a.h, []byte("again")); err != nil {
			break
		}
	}
	if !errors.Is(err, transport.ErrRefused) {
		s.t.Fatalf("after %d questions: %v", n, err)
	}
	if most := 8 + int(time.Since(began)/time.Second) + 1; n < 8 || n > most {
		s.t.Fatalf("%d questions answered, want 8 to %d", n, most)
	}
	// Within a second or so one more is.
	Until(s.t, "another answer", func() bool {
		_, _, err := b.Ask(ctx, a.h, []byte("again"))
		return err == nil
	})
}

// queueOverflow fills the queues of a peer that is not there.
func (s *suite) queueOverflow() {
	a := s.start(1)
	gone := NewHost(pool, 9).SetHandle(1, []string{s.net.Nowhere()})
	for _, c := range []struct {
		bulk        bool
		size, bound int
	}{{false, transport.MaxControl, 4 << 20}, {true, transport.MaxBulk, 48 << 20}} {
		sent, err := 0, error(nil)
		for err == nil {
			if err = a.Send(gone, c.bulk, make([]byte, c.size)); err == nil {
				sent += c.size
			}
			if sent > 2*c.bound {
				s.t.Fatalf("bulk %v: %d bytes queued", c.bulk, sent)
			}
		}
		if !errors.Is(err, transport.ErrQueueFull) {
			s.t.Fatal(err)
		}
		if sent > c.bound || sent < c.bound-2*c.size {
			s.t.Fatalf("bulk %v: %d bytes queued, bound %d", c.bulk, sent, c.bound)
		}
	}
}

// slowBulkReceiver blocks in Receive of bulk frames: control goes on.
func (s *suite) slowBulkReceiver() {
	a := s.start(1)
	h := NewHost(pool, 2)
	hold := make(chan struct{})
	h.OnReceive = func(from *id.Handle, bulk bool, f []byte) {
		if bulk {
			select {
			case <-hold:
			case <-h.done:
			}
		}
		select {
		case h.got <- Got{from, bulk, f}:
		case <-h.done:
		}
	}
	b := s.startHost(h, 1, nil)
	s.must(a.Send(b.h, false, []byte("first")))
	s.expect(b, a, false, "first")
	const n = 12
	for range n {
		s.must(a.Send(b.h, true, make([]byte, transport.MaxBulk)))
	}
	for i := range 50 {
		f := fmt.Sprint("control ", i)
		s.must(a.Send(b.h, false, []byte(f)))
		s.expect(b, a, false, f)
	}
	close(hold)
	for range n {
		if g := b.Next(s.t); !g.Bulk {
			s.t.Fatal("a control frame came twice")
		}
	}
}

// expiry leaves frames for an absent peer until they are dropped: they must
// not arrive when it comes back much later.
func (s *suite) expiry() {
	a, b := s.start(1), s.start(2)
	addrs := b.Addrs()
	b.stop(s.t)
	_ = a.Send(b.h, false, []byte("stale"))
	timer := time.NewTimer(2 * expiry)
	defer timer.Stop()
	<-timer.C
	c := s.startHost(NewHost(pool, 2), 2, addrs)
	// Where a connection takes longer than that, what is sent meanwhile expires too.
	Until(s.t, "a fresh frame", func() bool {
		_ = a.Send(c.h, false, []byte("fresh"))
		select {
		case g := <-c.got:
			if string(g.Frame) != "fresh" {
				s.t.Fatalf("got %q", g.Frame)
			}
			return true
		default:
			return false
		}
	})
}

func (s *suite) close() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	a.stop(s.t)
	if err := a.Send(b.h, false, []byte("x")); !errors.Is(err, transport.ErrClosed) {
		s.t.Fatal(err)
	}
	if _, _, err := a.Ask(s.t.Context(), b.h, []byte("x")); !errors.Is(err, transport.ErrClosed) {
		s.t.Fatal(err)
	}
	s.must(a.Close())
	Until(s.t, "b sees the link end", func() bool { return len(b.Links()) == 0 })
	a.Drop(b.h.GUID)
	if len(a.Links()) != 0 {
		s.t.Fatal("links after Close")
	}
}

func (s *suite) drop() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	a.Drop(b.h.GUID)
	if n := len(a.Links()); n != 0 {
		s.t.Fatalf("%d links after Drop", n)
	}
	Until(s.t, "b sees the link end", func() bool { return len(b.Links()) == 0 })
	s.link(b, a)
}

func (s *suite) self() {
	a := s.start(1)
	if err := a.Send(a.h, false, []byte("x")); !errors.Is(err, transport.ErrUnreachable) {
		s.t.Fatal(err)
	}
	if _, _, err := a.Ask(s.t.Context(), a.h, []byte("x")); !errors.Is(err, transport.ErrUnreachable) {
		s.t.Fatal(err)
	}
	if _, _, err := a.Ask(s.t.Context(), &id.Handle{Addrs: a.h.Addrs}, []byte("x")); !errors.Is(err, transport.ErrUnreachable) {
		s.t.Fatal(err)
	}
}

func (s *suite) links() {
	a, b := s.start(1), s.start(2)
	s.link(a, b)
	for _, p := range [][2]*node{{a, b}, {b, a}} {
		l := p[0].Links()
		if len(l) != 1 || l[0].Peer != p[1].h.GUID || l[0].Addr == "" || l[0].Proto == "" {
			s.t.Fatalf("%+v", l)
		}
	}
	if x, y := a.Links()[0].Inbound, b.Links()[0].Inbound; x == y {
		s.t.Fatal("both ends call the link inbound, or neither")
	}
}
