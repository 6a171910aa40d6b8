package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// connState is what we hold about one libp2p connection.
type connState struct {
	ready  chan struct{} // closed when a link on it was admitted
	bulkIn atomic.Int32  // bulk streams that the other side has open
	used   atomic.Int64

	mu     sync.Mutex
	links  int
	handle *id.Handle // of the newest link
}

// connOf finds or makes the state of c; nil if c is closed.
func (t *Transport) connOf(c network.Conn) *connState {
	t.mu.Lock()
	defer t.mu.Unlock()
	cs := t.conns[c]
	if cs == nil && !c.IsClosed() && !t.closed {
		cs = &connState{ready: make(chan struct{})}
		cs.used.Store(since())
		t.conns[c] = cs
	}
	return cs
}

func (cs *connState) linked(h *id.Handle) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.handle == nil {
		close(cs.ready)
	}
	cs.handle = h
	cs.links++
}

// unlinked notes the end of a link and reports whether it was the last.
func (cs *connState) unlinked() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.links--
	return cs.links == 0
}

func (cs *connState) bare() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.links == 0
}

// touch notes that a bulk frame came and returns whose it is.
func (cs *connState) touch() *id.Handle {
	cs.used.Store(since())
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.handle
}

// dropUnlinked closes c unless it has a link or relays for somebody.
func (t *Transport) dropUnlinked(c network.Conn) {
	t.mu.Lock()
	cs := t.conns[c]
	if cs != nil && !cs.bare() {
		t.mu.Unlock()
		return
	}
	delete(t.conns, c)
	t.mu.Unlock()
	if !relaying(c) {
		_ = c.Close()
	}
}

// relaying reports whether circuits run over c.
func relaying(c network.Conn) bool {
	for _, s := range c.GetStreams() {
		if p := s.Protocol(); p == proto.ProtoIDv2Hop || p == proto.ProtoIDv2Stop {
			return true
		}
	}
	return false
}

// Head starts of one kind of address over the next.
const (
	tcpHead = 250 * time.Millisecond // a round trip, as in RFC 8305
	// downTime is what QUIC gets once TCP has been refused by the same
	// machine: most likely the process is down, and another attempt soon
	// finds it earlier than a long one now.
	downTime = 700 * time.Millisecond
)

// dialConn returns an open connection to p. A direct one that is there
// already is taken; else TCP, QUIC and relayed addresses are tried in this
// order, the next kind when the one before has failed or its head start is
// over, and the first to answer wins.
func (t *Transport) dialConn(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (network.Conn, error) {
	var spare network.Conn
	for _, c := range t.swarm.ConnsToPeer(p) {
		if c.IsClosed() {
			continue
		}
		if kindOf(c.RemoteMultiaddr()) != kindRelay {
			return c, nil
		}
		spare = c
	}
	var byKind [kindRelay + 1][]ma.Multiaddr
	for _, a := range addrs {
		byKind[kindOf(a)] = append(byKind[kindOf(a)], a)
	}
	if spare != nil && len(byKind[kindTCP])+len(byKind[kindQUIC]) == 0 {
		return spare, nil
	}
	var stages []stage
	direct := func(ctx context.Context, list []ma.Multiaddr, within time.Duration) (network.Conn, error) {
		if spare != nil {
			ctx = network.WithForceDirectDial(ctx, "not the relayed one")
		}
		return t.dialAddrs(ctx, p, list, within)
	}
	if list := byKind[kindTCP]; len(list) > 0 {
		stages = append(stages, stage{tcpHead, func(ctx context.Context, _ error) (network.Conn, error) {
			return direct(ctx, list, dialTime)
		}})
	}
	if list := byKind[kindQUIC]; len(list) > 0 && !t.cfg.NoQUIC {
		stages = append(stages, stage{relayHead, func(ctx context.Context, before error) (network.Conn, error) {
			within := dialTime
			if errors.Is(before, syscall.ECONNREFUSED) {
				within = downTime
			}
			return direct(ctx, list, within)
		}})
	}
	if list := byKind[kindRelay]; len(list) > 0 && !t.cfg.NoRelay {
		stages = append(stages, stage{0, func(ctx context.Context, _ error) (network.Conn, error) {
			return t.dialRelayed(ctx, p, list)
		}})
	}
	return race(ctx, stages)
}

// stage is one way to a connection. It is told how the one before failed, if
// it has.
type stage struct {
	head time.Duration // before the next stage starts as well
	dial func(ctx context.Context, before error) (network.Conn, error)
}

// race runs stages as dialConn says. It returns when all that it started have
// ended.
func race(ctx context.Context, stages []stage) (network.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		c   network.Conn
		err error
	}
	results := make(chan result, len(stages))
	var got network.Conn
	fault := error(errNoAddr)
	var before error
	for running, next := 0, 0; ; {
		var head <-chan time.Time
		var timer *time.Timer
		if got == nil && ctx.Err() == nil && next < len(stages) {
			s, failed := stages[next], before
			next, running = next+1, running+1
			go func() {
				c, err := s.dial(ctx, failed)
				results <- result{c, err}
			}()
			if next < len(stages) {
				timer = time.NewTimer(s.head)
				head = timer.C
			}
		}
		if running == 0 {
			break
		}
		select {
		case <-head:
		case r := <-results:
			running--
			switch {
			case r.err == nil && got == nil:
				got = r.c
				cancel()
			case r.err != nil && got == nil:
				fault, before = r.err, r.err
			}
		}
		if timer != nil {
			timer.Stop()
		}
	}
	if got != nil {
		return got, nil
	}
	return nil, fault
}

// dialAddrs dials p at addrs, which are direct, and nothing else.
func (t *Transport) dialAddrs(ctx context.Context, p peer.ID, addrs []ma.Multiaddr, within time.Duration) (network.Conn, error) {
	if p == t.h.ID() {
		return nil, errSelf
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return t.dialPeer(ctx, p, addrs)
}

// dialPeer has libp2p dial p at addrs: it takes them from the peer store, and
// the gate lets nothing else through. They do not live there for libp2p's
// TempAddrTTL: whenever a connection with p ends or is identified, which may be
// right now, libp2p forgets all that do.
func (t *Transport) dialPeer(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (network.Conn, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, transport.ErrClosed
	}
	t.dials.Add(1)
	t.mu.Unlock()
	defer t.dials.Done()
	t.gate.allow(p, addrs)
	t.h.Peerstore().ClearAddrs(p)
	t.h.Peerstore().AddAddrs(p, addrs, grantTime)
	t.swarm.Backoff().Clear(p)
	c, err := t.swarm.DialPeer(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrUnreachable, shorten(err))
	}
	return c, nil
}
