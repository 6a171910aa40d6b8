package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// punch opens direct ways between nodes that reach each other through a relay
// only, by DCUtR, the hole punching of libp2p, over QUIC: both dial each other
// at the same moment, each from the socket it listens on. For that a node must
// know where this socket appears outside. Those tell it whom it is connected
// with over QUIC, so the relays it has reservations at are (see overQUIC).
//
// libp2p tries once, when a relayed connection comes in, which is often before
// either side knows its outside; the service is our own to try again: when one
// of both has come to know it (see changed), and else every now and then.
type punch struct {
	svc *holepunch.Service

	mu      sync.Mutex
	outside map[peer.ID]ma.Multiaddr // where we appear, as a peer has told
	t       *Transport
}

// punches reports whether this node punches holes.
func (t *Transport) punches() bool {
	return !(t.cfg.NoRelay || t.cfg.NoHolePunch || t.cfg.NoQUIC || t.cfg.NoListen || t.cfg.Loopback)
}

func (u *punch) start(t *Transport) (err error) {
	ids, ok := t.h.(interface{ IDService() identify.IDService })
	if !ok {
		return errors.New("a host without identify")
	}
	u.t, u.outside = t, map[peer.ID]ma.Multiaddr{}
	u.svc, err = holepunch.NewService(t.h, ids.IDService(), u.addrs, holepunch.WithAddrFilter(punchFilter{t.reach}))
	return err
}

func (u *punch) close() {
	if u.svc != nil {
		_ = u.svc.Close()
	}
}

// told notes where a peer that we dialled over QUIC says that we are.
func (u *punch) told(e event.EvtPeerIdentificationCompleted) {
	m := e.ObservedAddr
	if u.svc == nil || e.Conn.Stat().Direction != network.DirOutbound || m == nil || kindOf(m) != kindQUIC || kindOf(e.Conn.RemoteMultiaddr()) != kindQUIC {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.outside[e.Peer] = m
}

// addrs are where others may try to reach us: our public addresses, and what
// members that are connected say of us.
func (u *punch) addrs() []ma.Multiaddr {
	list := u.t.directAddrs()
	u.mu.Lock()
	var seen []ma.Multiaddr
	for p, m := range u.outside {
		switch {
		case u.t.swarm.Connectedness(p) != network.Connected:
			delete(u.outside, p)
		case u.t.isLinked(p):
			seen = append(seen, m)
		}
	}
	u.mu.Unlock()
	slices.SortFunc(seen, ma.Multiaddr.Compare)
	list = ma.Unique(append(list, seen...))
	list = slices.DeleteFunc(list, func(m ma.Multiaddr) bool { return !isQUIC(m) || !manet.IsPublicAddr(m) })
	return list[:min(len(list), id.MaxAddrs)]
}

// ready reports whether the service is at work: until it has an address it
// takes no streams, and DirectConnect would wait for one without end.
func (u *punch) ready() bool {
	return u.svc != nil && slices.Contains(u.t.h.Mux().Protocols(), holepunch.Protocol)
}

// changed hurries up with relayed paths where one side has now got ready.
func (u *punch) changed(e any) {
	if u.svc == nil {
		return
	}
	switch e := e.(type) {
	case event.EvtLocalProtocolsUpdated:
		if slices.Contains(e.Added, holepunch.Protocol) {
			for _, p := range u.t.allPeers() {
				p.hurry(time.Now())
			}
		}
	case event.EvtPeerProtocolsUpdated:
		if !slices.Contains(e.Added, holepunch.Protocol) {
			return
		}
		if p := u.t.known(e.Peer); p != nil {
			p.hurry(time.Now())
		}
	}
}

// again tries to open a direct way to a peer that came through a relay.
func (u *punch) again(p peer.ID) {
	if err := u.svc.DirectConnect(p); err != nil {
		u.t.log.Debug("no direct way", "peer", p.String(), "err", err)
	}
}

// punchFilter keeps hole punching to QUIC and to what may be dialled.
type punchFilter struct{ reach *reach }

func (f punchFilter) FilterLocal(_ peer.ID, list []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(slices.Clone(list), isQUIC)
}

func (f punchFilter) FilterRemote(_ peer.ID, list []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(slices.Clone(list), isQUIC, f.reach.allows)
}

// punched moves a relayed peer to a direct connection that hole punching has
// made: the side that counts as its dialler opens a link on it.
func (t *Transport) punched(c network.Conn) {
	if c.Stat().Direction != network.DirOutbound || kindOf(c.RemoteMultiaddr()) == kindRelay {
		return
	}
	p := t.known(c.RemotePeer())
	if p == nil {
		return
	}
	p.mu.Lock()
	relayed := len(p.links) > 0 && p.links[0].relayed
	p.mu.Unlock()
	if !relayed || !t.enter() {
		return
	}
	go func() {
		defer t.wg.Done()
		ctx, cancel := context.WithTimeout(t.ctx, t.times.shake)
		defer cancel()
		if _, err := t.shake(ctx, c); err != nil {
			t.dropUnlinked(c)
		}
	}()
}

// onRelay reports whether hole punching or AutoNAT may dial p: it is a
// member, or has come through a relay, which only members can.
func (t *Transport) onRelay(p peer.ID) bool {
	for _, c := range t.swarm.ConnsToPeer(p) {
		if kindOf(c.RemoteMultiaddr()) == kindRelay {
			return true
		}
	}
	return t.isLinked(p)
}

// quicTo are the addresses of a relay to move the connection with it to; none if
// it runs over QUIC, or an attempt has failed not long ago.
func (t *Transport) quicTo(p *remote, now time.Time) []ma.Multiaddr {
	if !t.punches() || slices.ContainsFunc(t.swarm.ConnsToPeer(p.pid), func(c network.Conn) bool { return kindOf(c.RemoteMultiaddr()) == kindQUIC }) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.quic.due(now) {
		return nil
	}
	var list []ma.Multiaddr
	for _, a := range p.addrs() {
		if m, err := decodeAddr(a); err == nil && kindOf(m) == kindQUIC && t.reach.allows(m) {
			list = append(list, m)
		}
	}
	return list
}

// overQUIC moves the connection with a relay from TCP to QUIC. Holes are punched
// for QUIC, from the socket we listen on; where that appears outside can only
// be told by one who is reached from it, and only traffic keeps it there. What
// runs over the old connection breaks and begins anew, so it is left alone until
// QUIC is known to get through.
func (t *Transport) overQUIC(ctx context.Context, p *remote) error {
	now := time.Now()
	list := t.quicTo(p, now)
	if len(list) == 0 {
		return nil
	}
	p.mu.Lock()
	p.quic.note(now)
	p.mu.Unlock()
	pid, m, err := t.learnKey(ctx, list)
	if err == nil && pid != p.pid {
		err = fmt.Errorf("%w: another node is there", transport.ErrUnreachable)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.dialing {
		p.mu.Unlock()
		return errBusy
	}
	p.dialing = true // so that frames wait for QUIC
	p.mu.Unlock()
	// libp2p may know the TCP address as well, and would take it first.
	t.gate.onlyQUIC(p.pid, true)
	_ = t.swarm.ClosePeer(p.pid)
	conn, err := t.dialAddrs(ctx, p.pid, []ma.Multiaddr{m}, dialTime)
	t.gate.onlyQUIC(p.pid, false)
	if err == nil {
		if _, err = t.shake(ctx, conn); err != nil {
			t.dropUnlinked(conn)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing = false
	if err == nil {
		p.quic.n = 0
	}
	p.wake()
	return err
}

var errBusy = fmt.Errorf("%w: it is being dialled", transport.ErrUnreachable)
