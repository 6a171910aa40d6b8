package p2p

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
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

// dialConn returns an open connection to p, a direct one if there is or one
// of addrs gives it within relayHead, else a relayed one.
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
	var direct, relayed []ma.Multiaddr
	for _, a := range addrs {
		if kindOf(a) == kindRelay {
			relayed = append(relayed, a)
		} else {
			direct = append(direct, a)
		}
	}
	if spare != nil && len(direct) == 0 {
		return spare, nil
	}
	if len(addrs) == 0 {
		return nil, errNoAddr
	}
	if len(relayed) == 0 || t.cfg.NoRelay {
		return t.dialAddrs(ctx, p, direct)
	}
	type result struct {
		c   network.Conn
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, 2)
	running := 0
	run := func(f func() (network.Conn, error)) {
		running++
		go func() {
			c, err := f()
			results <- result{c, err}
		}()
	}
	var head <-chan time.Time
	viaRelay := func() (network.Conn, error) { return t.dialRelayed(ctx, p, relayed) }
	if len(direct) > 0 {
		run(func() (network.Conn, error) { return t.dialAddrs(ctx, p, direct) })
		timer := time.NewTimer(relayHead)
		defer timer.Stop()
		head = timer.C
	} else {
		run(viaRelay)
		viaRelay = nil
	}
	var got result
	for running > 0 {
		select {
		case <-head:
		case r := <-results:
			running--
			if r.err == nil && got.c == nil {
				got = r
				cancel() // and collect the other
				viaRelay = nil
			} else if got.c == nil {
				got.err = r.err
			}
		}
		head = nil
		if viaRelay != nil {
			run(viaRelay)
			viaRelay = nil
		}
	}
	cancel()
	return got.c, errOf(got.c, got.err)
}

func errOf(c network.Conn, err error) error {
	if c != nil {
		return nil
	}
	return err
}

// dialAddrs dials p at addrs and nothing else.
func (t *Transport) dialAddrs(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (network.Conn, error) {
	if len(addrs) == 0 {
		return nil, errNoAddr
	}
	if p == t.h.ID() {
		return nil, errSelf
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	t.gate.allow(p, addrs)
	t.h.Peerstore().AddAddrs(p, addrs, peerstore.TempAddrTTL)
	t.swarm.Backoff().Clear(p)
	c, err := t.swarm.DialPeer(network.WithForceDirectDial(ctx, "a link"), p)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrUnreachable, shorten(err))
	}
	return c, nil
}
