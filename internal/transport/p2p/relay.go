package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

const (
	wantRelays = 2
	// A relay serves members, who have reasons to be fair, so circuits have
	// no limit of time or bytes; their number has one.
	relayCircuits = 32
	relaySlots    = 128
	relayBuffer   = 16 << 10
	relayTTL      = time.Hour
	relayTry      = 3 * time.Second  // between attempts to find a relay
	relayLook     = 15 * time.Second // between looks at whether all is well
)

// natState is what we know of how others reach us, and our part in helping
// those who cannot be reached.
type natState struct {
	service *relay.Relay
	punch   punch
	sub     event.Subscription
	notify  *network.NotifyBundle
	kick    chan struct{}

	mu        sync.Mutex
	slots     map[peer.ID]slot // reservations we hold
	reachable []ma.Multiaddr   // confirmed from outside
	outside   bool             // all our public addresses were found unreachable
	last      []string         // Addrs as last told to OnAddrs
}

// slot is a reservation at a relay.
type slot struct {
	addr    ma.Multiaddr // …/p2p/RELAY/p2p-circuit
	refresh time.Time
	p       *remote
	conns   []network.Conn // with the relay, which forgets us when they have ended
}

func (s slot) holds() bool {
	return slices.ContainsFunc(s.conns, func(c network.Conn) bool { return !c.IsClosed() })
}

// natOptions are the options of libp2p for relays and NAT traversal.
func (t *Transport) natOptions() []libp2p.Option {
	var opts []libp2p.Option
	if t.cfg.NoRelay {
		opts = append(opts, libp2p.DisableRelay())
	} else {
		opts = append(opts, libp2p.EnableRelay())
	}
	if t.cfg.Loopback {
		// Identify would tell whoever connects where we listen.
		return append(opts, libp2p.DisableIdentifyAddressDiscovery(), libp2p.AddrsFactory(noAddrs))
	}
	opts = append(opts, libp2p.AddrsFactory(publicAddrs))
	if !t.cfg.NoRelay {
		opts = append(opts, libp2p.EnableAutoNATv2())
	}
	return opts
}

func noAddrs([]ma.Multiaddr) []ma.Multiaddr { return nil }

// publicAddrs is what identify may tell: AutoNAT and hole punching need no
// more, and the layout of our network is nobody's business.
func publicAddrs(list []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(slices.Clone(list), manet.IsPublicAddr)
}

// members lets members use our relay, and nobody else.
type members struct{ t *Transport }

var _ relay.ACLFilter = members{}

func (m members) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return m.t.isLinked(p) }

func (m members) AllowConnect(src peer.ID, _ ma.Multiaddr, _ peer.ID) bool { return m.t.isLinked(src) }

// known is what we hold about p, if anything.
func (t *Transport) known(p peer.ID) *remote {
	key, ok := keyOf(p)
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remotes[key]
}

// isLinked reports whether p was admitted on a live link.
func (t *Transport) isLinked(p peer.ID) bool {
	r := t.known(p)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links) > 0
}

func (t *Transport) startNAT() error {
	n := &t.nat
	n.kick, n.slots = make(chan struct{}, 1), map[peer.ID]slot{}
	if !t.cfg.NoRelay {
		rc := relay.DefaultResources()
		rc.Limit, rc.ReservationTTL = nil, relayTTL
		rc.MaxReservations, rc.MaxCircuits, rc.BufferSize = relaySlots, relayCircuits, relayBuffer
		rc.MaxReservationsPerIP, rc.MaxReservationsPerASN = relaySlots, relaySlots
		var err error
		if n.service, err = relay.New(t.h, relay.WithResources(rc), relay.WithACL(members{t})); err != nil {
			return fmt.Errorf("p2p: %w", err)
		}
	}
	sub, err := t.h.EventBus().Subscribe([]any{
		new(event.EvtHostReachableAddrsChanged), new(event.EvtPeerIdentificationCompleted),
		new(event.EvtLocalProtocolsUpdated), new(event.EvtPeerProtocolsUpdated),
	})
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	n.sub = sub
	n.notify = &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { t.natKick(); t.punched(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { t.natKick() },
	}
	t.swarm.Notify(n.notify)
	if t.punches() {
		if err := n.punch.start(t); err != nil {
			return fmt.Errorf("p2p: %w", err)
		}
	}
	t.wg.Add(1)
	go t.keepReachable()
	return nil
}

func (t *Transport) closeNAT() {
	t.swarm.StopNotify(t.nat.notify)
	_ = t.nat.sub.Close() // before the others: nobody takes the events that they cause
	t.nat.punch.close()
	if t.nat.service != nil {
		_ = t.nat.service.Close()
	}
}

func (t *Transport) natKick() {
	select {
	case t.nat.kick <- struct{}{}:
	default:
	}
}

// keepReachable holds reservations while we need them, and tells of new
// addresses.
func (t *Transport) keepReachable() {
	defer t.wg.Done()
	t.nat.last = t.Addrs()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-t.nat.kick:
		case e, ok := <-t.nat.sub.Out():
			if !ok {
				return
			}
			switch e := e.(type) {
			case event.EvtHostReachableAddrsChanged:
				t.noteReachable(e)
			case event.EvtPeerIdentificationCompleted:
				t.nat.punch.told(e)
				continue
			default:
				t.nat.punch.changed(e)
				continue
			}
		case <-t.done:
			return
		}
		next := relayLook
		if !t.cfg.NoRelay {
			next = t.tendRelays(time.Now())
		}
		timer.Reset(next)
		t.tellAddrs()
	}
}

func (t *Transport) tellAddrs() {
	now := t.Addrs()
	t.nat.mu.Lock()
	changed := !slices.Equal(now, t.nat.last)
	t.nat.last = now
	t.nat.mu.Unlock()
	if changed && t.cfg.OnAddrs != nil {
		t.cfg.OnAddrs()
		t.greet()
	}
}

// greet opens a new link beside the one to each peer, so that they hear what
// the host now says in a handshake. The old ones fall idle.
func (t *Transport) greet() {
	for _, p := range t.allPeers() {
		p.mu.Lock()
		var conn network.Conn
		if len(p.links) > 0 {
			conn = p.links[0].conn
		}
		p.mu.Unlock()
		if conn == nil || !t.enter() {
			continue
		}
		go func() {
			defer t.wg.Done()
			ctx, cancel := context.WithTimeout(t.ctx, t.times.shake)
			defer cancel()
			if _, err := t.shake(ctx, conn); err != nil {
				t.log.Debug("a peer was not told of new addresses", "peer", conn.RemotePeer().String(), "err", err)
			}
		}()
	}
}

func (t *Transport) noteReachable(e event.EvtHostReachableAddrsChanged) {
	t.nat.mu.Lock()
	defer t.nat.mu.Unlock()
	t.nat.reachable = e.Reachable
	t.nat.outside = len(e.Reachable) == 0 && len(e.Unreachable) > 0
}

// confirmed are public addresses that others could reach.
func (t *Transport) confirmed() []ma.Multiaddr {
	t.nat.mu.Lock()
	defer t.nat.mu.Unlock()
	return slices.Clone(t.nat.reachable)
}

func (t *Transport) relayAddrs() []ma.Multiaddr {
	t.nat.mu.Lock()
	defer t.nat.mu.Unlock()
	var out []ma.Multiaddr
	for _, s := range t.nat.slots {
		out = append(out, s.addr)
	}
	slices.SortFunc(out, ma.Multiaddr.Compare)
	return out
}

// needRelay reports whether others cannot be expected to reach us: the
// operator said so, AutoNAT found so, or we talk to public addresses without
// having one.
func (t *Transport) needRelay() bool {
	if t.cfg.NoListen || len(t.cfg.Relays) > 0 {
		return true
	}
	if t.cfg.Loopback || len(t.cfg.Announce) > 0 {
		return false
	}
	t.nat.mu.Lock()
	outside, reachable := t.nat.outside, len(t.nat.reachable) > 0
	t.nat.mu.Unlock()
	if outside || reachable {
		return outside
	}
	if slices.ContainsFunc(t.directAddrs(), manet.IsPublicAddr) {
		return false
	}
	return slices.ContainsFunc(t.swarm.Conns(), func(c network.Conn) bool {
		return kindOf(c.RemoteMultiaddr()) != kindRelay && manet.IsPublicAddr(c.RemoteMultiaddr())
	})
}

// tendRelays drops dead reservations and makes and renews those we want, as well
// as those that are to be had over QUIC. It returns when it wants to look again.
func (t *Transport) tendRelays(now time.Time) time.Duration {
	need := t.needRelay()
	var due []peer.AddrInfo
	t.nat.mu.Lock()
	for p, s := range t.nat.slots {
		if need && s.holds() {
			if now.After(s.refresh) || len(t.quicTo(s.p, now)) > 0 {
				due = append(due, peer.AddrInfo{ID: p})
			}
			continue
		}
		t.dropSlot(p)
	}
	have := len(t.nat.slots)
	t.nat.mu.Unlock()
	if !need {
		return relayLook
	}
	if have < wantRelays {
		due = append(due, t.relayChoice(wantRelays-have)...)
	}
	for _, ai := range due {
		err := t.reserve(ai)
		if err == nil {
			continue
		}
		t.log.Debug("no reservation", "relay", ai.ID.String(), "err", err)
		t.nat.mu.Lock()
		t.dropSlot(ai.ID)
		t.nat.mu.Unlock()
	}
	t.nat.mu.Lock()
	defer t.nat.mu.Unlock()
	if len(t.nat.slots) == 0 {
		return relayTry
	}
	next := relayLook
	for _, s := range t.nat.slots {
		s.p.mu.Lock()
		if s.p.quic.n > 0 { // it did not get through
			next = firstUpgrade
		}
		s.p.mu.Unlock()
	}
	return next
}

// dropSlot forgets a reservation. t.nat.mu is held.
func (t *Transport) dropSlot(p peer.ID) {
	s, ok := t.nat.slots[p]
	if !ok {
		return
	}
	delete(t.nat.slots, p)
	s.p.mu.Lock()
	s.p.pinned--
	s.p.mu.Unlock()
}

// relayChoice names up to n relays to try: the operator's, else members that
// we reached directly ourselves and that offer to relay.
func (t *Transport) relayChoice(n int) []peer.AddrInfo {
	var out []peer.AddrInfo
	fits := func(p peer.ID) bool {
		t.nat.mu.Lock()
		defer t.nat.mu.Unlock()
		_, have := t.nat.slots[p]
		return !have && len(out) < n
	}
	for _, r := range t.cfg.Relays {
		if ai, err := parseRelay(r); err == nil && fits(ai.ID) {
			out = append(out, ai)
		}
	}
	if len(t.cfg.Relays) > 0 {
		return out
	}
	var links []*link
	for _, p := range t.allPeers() {
		p.mu.Lock()
		if len(p.links) > 0 && !p.links[0].relayed && p.links[0].conn.Stat().Direction == network.DirOutbound {
			links = append(links, p.links[0])
		}
		p.mu.Unlock()
	}
	slices.SortFunc(links, func(a, b *link) int { return a.opened.Compare(b.opened) })
	for _, l := range links {
		has, err := t.h.Peerstore().SupportsProtocols(l.p.pid, proto.ProtoIDv2Hop)
		if err == nil && len(has) > 0 && fits(l.p.pid) {
			out = append(out, peer.AddrInfo{ID: l.p.pid})
		}
	}
	return out
}

// reserve makes or renews a reservation at a relay, linking to it first.
func (t *Transport) reserve(ai peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(t.ctx, 2*dialTime)
	defer cancel()
	p, err := t.linkRelay(ctx, ai)
	if err != nil {
		return err
	}
	if err := t.overQUIC(ctx, p); err != nil {
		t.log.Debug("no QUIC to a relay", "relay", ai.ID.String(), "err", err)
		if p, err = t.linkRelay(ctx, ai); err != nil {
			return err
		}
	}
	addr, err := t.slotAddr(ai, p)
	if err != nil {
		return err
	}
	conns := t.swarm.ConnsToPeer(ai.ID)
	got, err := client.Reserve(network.WithNoDial(ctx, "linked"), t.h, peer.AddrInfo{ID: ai.ID})
	if err != nil {
		return err
	}
	t.nat.mu.Lock()
	defer t.nat.mu.Unlock()
	if _, ok := t.nat.slots[ai.ID]; !ok {
		p.mu.Lock()
		p.pinned++
		p.mu.Unlock()
	} else {
		addr = t.nat.slots[ai.ID].addr
	}
	t.nat.slots[ai.ID] = slot{addr: addr, p: p, conns: conns, refresh: time.Now().Add(time.Until(got.Expiration) / 2)}
	return nil
}

// linkRelay sees to it that we are linked with a relay, which serves members
// only.
func (t *Transport) linkRelay(ctx context.Context, ai peer.AddrInfo) (*remote, error) {
	key, ok := keyOf(ai.ID)
	if !ok || key == t.key {
		return nil, fmt.Errorf("%w: not a relay for us", transport.ErrUnreachable)
	}
	p, err := t.remoteFor(key)
	if err != nil {
		return nil, err
	}
	linked := len(p.links) > 0
	p.used = time.Now()
	p.mu.Unlock()
	if linked {
		return p, nil
	}
	conn, err := t.dialConn(ctx, ai.ID, ai.Addrs)
	if err != nil {
		return nil, err
	}
	if _, err := t.shake(ctx, conn); err != nil {
		t.dropUnlinked(conn)
		return nil, err
	}
	return p, nil
}

// slotAddr is the address under which others reach us through a relay.
func (t *Transport) slotAddr(ai peer.AddrInfo, p *remote) (ma.Multiaddr, error) {
	addrs := ai.Addrs
	if len(addrs) == 0 {
		p.mu.Lock()
		own := p.own
		p.mu.Unlock()
		if own == nil {
			return nil, errNoAddr
		}
		for _, a := range own.Addrs {
			if m, err := decodeAddr(a); err == nil && kindOf(m) != kindRelay {
				addrs = append(addrs, m)
			}
		}
		slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return int(kindOf(a)) - int(kindOf(b)) })
	}
	for _, m := range addrs {
		c, err := ma.NewComponent("p2p", ai.ID.String())
		if err != nil {
			return nil, err
		}
		full := ma.Join(m, c, ma.StringCast("/p2p-circuit"))
		if len(full.Bytes()) <= id.MaxAddrLen {
			return full, nil
		}
	}
	return nil, errNoAddr
}

// dialRelayed reaches p through one of the relays named in addrs.
func (t *Transport) dialRelayed(ctx context.Context, p peer.ID, addrs []ma.Multiaddr) (network.Conn, error) {
	var (
		ready []ma.Multiaddr
		fault error
	)
	for _, m := range addrs {
		ai, err := relayOf(m)
		if err == nil && ai.ID == t.h.ID() {
			err = errNoAddr // we are the relay; p will come to us
		}
		if err == nil {
			_, err = t.linkRelay(ctx, ai)
		}
		if err != nil {
			fault = err
			continue
		}
		ready = append(ready, m)
	}
	if len(ready) == 0 {
		if fault == nil || !errors.Is(fault, transport.ErrUnreachable) {
			fault = fmt.Errorf("%w: its relay: %w", transport.ErrUnreachable, errOr(fault))
		}
		return nil, fault
	}
	return t.dialPeer(network.WithAllowLimitedConn(ctx, "a link"), p, ready)
}

func errOr(err error) error {
	if err == nil {
		return errNoAddr
	}
	return err
}
