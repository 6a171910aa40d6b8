package p2p

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
)

// gate is the connection gater: Ed25519 keys only, nobody who is shut out,
// and no dial to an address that was not given for that very peer. It also
// holds for what libp2p dials of its own accord, so addresses learnt by the
// identify protocol are never used; hole punching alone may use what the
// reach policy allows.
type gate struct {
	reach   *reach
	accepts func(ma.Multiaddr) bool // may an address open one more connection
	relayed func(peer.ID) bool      // hole punching is on, and p is on a relayed path

	mu    sync.Mutex
	given map[peer.ID]grant     // addresses being dialled now
	quic  map[peer.ID]struct{}  // dialled over QUIC only, for now
	out   map[peer.ID]time.Time // shut out until then
}

var _ connmgr.ConnectionGater = (*gate)(nil)

// maxShutOut bounds the peers shut out at a time.
const maxShutOut = 4096

func newGate(r *reach) *gate {
	return &gate{
		reach: r, relayed: func(peer.ID) bool { return false }, accepts: func(ma.Multiaddr) bool { return true },
		given: map[peer.ID]grant{}, quic: map[peer.ID]struct{}{}, out: map[peer.ID]time.Time{},
	}
}

// grantTime is how long a grant is good at most.
const grantTime = 2 * dialTime

// grant is a leave to dial, good for one attempt.
type grant struct {
	addrs []ma.Multiaddr
	until time.Time
}

// allow lets addrs of p be dialled for the next attempt. Attempts may
// overlap, so what was allowed just before stays so.
func (g *gate) allow(p peer.ID, addrs []ma.Multiaddr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	old := g.given[p]
	if now.After(old.until) || len(old.addrs) > 4*id.MaxAddrs {
		old.addrs = nil
	}
	g.given[p] = grant{addrs: append(addrs[:len(addrs):len(addrs)], old.addrs...), until: now.Add(grantTime)}
}

// onlyQUIC keeps dials of p to QUIC, until it is called with false.
func (g *gate) onlyQUIC(p peer.ID, only bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if only {
		g.quic[p] = struct{}{}
	} else {
		delete(g.quic, p)
	}
}

// sweep forgets what has run out.
func (g *gate) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, a := range g.given {
		if now.After(a.until) {
			delete(g.given, p)
		}
	}
	for p, t := range g.out {
		if now.After(t) {
			delete(g.out, p)
		}
	}
}

// shut keeps p out for d.
func (g *gate) shut(p peer.ID, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if len(g.out) < maxShutOut && g.out[p].Before(now.Add(d)) {
		g.out[p] = now.Add(d)
	}
}

func (g *gate) isShut(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := g.out[p]
	return ok && time.Now().Before(t)
}

func (g *gate) InterceptPeerDial(p peer.ID) bool { return !g.isShut(p) }

func (g *gate) InterceptAddrDial(p peer.ID, m ma.Multiaddr) bool {
	g.mu.Lock()
	given := g.given[p]
	_, quic := g.quic[p]
	g.mu.Unlock()
	if quic && kindOf(m) != kindQUIC {
		return false
	}
	if ma.Contains(given.addrs, m) && time.Now().Before(given.until) {
		return true
	}
	// What hole punching dials came from the peer itself, over a relay that
	// serves members only.
	return kindOf(m) != kindRelay && g.relayed(p) && g.reach.allows(m)
}

func (g *gate) InterceptAccept(c network.ConnMultiaddrs) bool { return g.accepts(c.RemoteMultiaddr()) }

func (g *gate) InterceptSecured(_ network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	if p == "" { // a dial that is to learn the key
		k, ok := c.(interface{ RemotePublicKey() crypto.PubKey })
		return ok && k.RemotePublicKey() != nil && k.RemotePublicKey().Type() == crypto.Ed25519
	}
	_, ok := keyOf(p)
	return ok && !g.isShut(p)
}

func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// keyOf returns the Ed25519 key that p stands for; false for any other kind.
func keyOf(p peer.ID) (key [32]byte, ok bool) {
	pub, err := p.ExtractPublicKey()
	if err != nil || pub.Type() != crypto.Ed25519 {
		return key, false
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != len(key) {
		return key, false
	}
	return [32]byte(raw), true
}

// peerOf is the inverse of keyOf.
func peerOf(key [32]byte) (peer.ID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(key[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(pub)
}
