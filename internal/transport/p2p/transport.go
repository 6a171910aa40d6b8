package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// ErrInUse is wrapped by New if another process listens on the address.
var ErrInUse = errors.New("address already in use")

// Transport is a node's end of the network. Make one with New.
type Transport struct {
	cfg   Config
	host  transport.Host
	key   [32]byte
	log   *slog.Logger
	stats counters
	times times

	h      host.Host
	swarm  *swarm.Swarm
	reach  *reach
	gate   *gate
	blocks *blocks
	asks   *askLimit
	seen   sightings
	nat    natState

	ctx    context.Context // of everything the transport does by itself
	cancel context.CancelFunc
	done   chan struct{} // closed by Close
	wg     sync.WaitGroup
	dials  sync.WaitGroup // calls into libp2p's dialler
	queued atomic.Int64   // bytes in all queues

	dialing chan struct{} // places for dials
	shaking chan struct{} // places for handshakes others began
	longIn  chan struct{} // places for long frames coming in
	asking  chan struct{} // places for Host.Answer

	mu      sync.Mutex
	closed  bool
	remotes map[[32]byte]*remote
	conns   map[network.Conn]*connState
}

var _ transport.Transport = (*Transport)(nil)

var quiet sync.Once

// New starts a transport: it listens, and answers others through host, which
// must be ready to be called. Close it.
func New(cfg Config, h transport.Host) (*Transport, error) { return newWith(cfg, h, patience) }

func newWith(cfg Config, h transport.Host, times times) (*Transport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.fill()
	// libp2p logs to standard error, which is our user's; GOLOG_LOG_LEVEL
	// brings it back.
	quiet.Do(func() {
		if os.Getenv("GOLOG_LOG_LEVEL") == "" {
			gologshim.SetDefaultHandler(slog.DiscardHandler)
		}
	})
	t := &Transport{
		cfg: cfg, host: h, log: cfg.Log, times: times, key: [32]byte(cfg.Key.Public().(ed25519.PublicKey)),
		asks: newAskLimit(cfg.Limits.LocalAsks), done: make(chan struct{}),
		dialing: make(chan struct{}, maxDials), shaking: make(chan struct{}, maxShaking),
		longIn: make(chan struct{}, maxLongIn), asking: make(chan struct{}, maxAsks),
		remotes: map[[32]byte]*remote{}, conns: map[network.Conn]*connState{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.reach = newReach(cfg.Loopback, cfg.Private)
	for _, a := range cfg.Known {
		if m, err := parseEither(a); err == nil {
			t.reach.give(m)
		}
	}
	t.gate = newGate(t.reach)
	if err := t.start(); err != nil {
		t.cancel()
		return nil, err
	}
	return t, nil
}

// start makes the libp2p host and begins to listen.
func (t *Transport) start() error {
	key, err := crypto.UnmarshalEd25519PrivateKey(t.cfg.Key)
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	var listen []ma.Multiaddr
	if !t.cfg.NoListen {
		for _, l := range t.cfg.Listen {
			texts, err := ParseListen(l, !t.cfg.NoQUIC)
			if err != nil {
				return err
			}
			for _, s := range texts {
				listen = append(listen, ma.StringCast(s))
			}
		}
	}
	t.blocks = &blocks{stats: &t.stats, flood: t.flooded}
	res, err := newResources(t.cfg.Limits, t.blocks)
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	t.h, err = libp2p.New(t.options(key, res)...)
	if err != nil {
		_ = res.Close()
		return fmt.Errorf("p2p: %w", err)
	}
	t.swarm = t.h.Network().(*swarm.Swarm)
	if !t.cfg.NoRelay && !t.cfg.NoHolePunch {
		t.gate.relayed = t.onRelay
	}
	t.gate.accepts = t.accepts
	t.h.SetStreamHandler(linkProto, t.onLink)
	t.h.SetStreamHandler(bulkProto, t.onBulk)
	t.h.SetStreamHandler(askProto, t.onAsk)
	for _, m := range listen {
		if err := t.swarm.AddListenAddr(m); err != nil {
			_ = t.h.Close()
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("p2p: listen on %s: %w", textOf(m), ErrInUse)
			}
			return fmt.Errorf("p2p: listen on %s: %w", textOf(m), rootOf(err))
		}
	}
	if err := t.startNAT(); err != nil {
		_ = t.h.Close()
		return err
	}
	t.wg.Add(1)
	go t.sweep()
	return nil
}

func (t *Transport) options(key crypto.PrivKey, res network.ResourceManager) []libp2p.Option {
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.NoListenAddrs, // we listen ourselves, to fail if one address fails
		// No address reuse: a second process on a taken port must fail, and a
		// simultaneous open over TCP would make two clients. Hole punching
		// goes over QUIC.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, muxer{t}),
		libp2p.UserAgent(t.cfg.UserAgent),
		libp2p.ProtocolVersion("atoll/1"),
		libp2p.ConnectionGater(t.gate),
		libp2p.ResourceManager(res),
		libp2p.ConnectionManager(&connmgr.NullConnMgr{}), // sweep closes what is idle
		libp2p.SwarmOpts(swarm.WithDialRanker(rank)),
		libp2p.WithDialTimeout(dialTime),
		libp2p.UDPBlackHoleSuccessCounter(nil), // members that are down are no black hole
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
	}
	if !t.cfg.NoQUIC {
		opts = append(opts, libp2p.Transport(quic.NewTransport))
	}
	return append(opts, t.natOptions()...)
}

// enter counts one more goroutine that Close waits for; false once closed.
func (t *Transport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *Transport) isClosed() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// pauseFor waits until ch is closed; false after d or at the end.
func (t *Transport) pauseFor(ch <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
	case <-t.done:
	}
	return false
}

// remoteFor finds or makes the entry of a key and returns it locked.
func (t *Transport) remoteFor(key [32]byte) (*remote, error) {
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, transport.ErrClosed
		}
		p := t.remotes[key]
		if p == nil {
			if len(t.remotes) >= t.cfg.Limits.Peers {
				t.mu.Unlock()
				t.stats.queueFull.Add(1)
				return nil, transport.ErrQueueFull
			}
			pid, err := peerOf(key)
			if err != nil {
				t.mu.Unlock()
				return nil, fmt.Errorf("%w: %w", transport.ErrUnreachable, err)
			}
			p = &remote{t: t, key: key, pid: pid, kick: make(chan struct{}, 1), used: time.Now()}
			t.remotes[key] = p
		}
		t.mu.Unlock()
		p.mu.Lock()
		if !p.dead {
			return p, nil
		}
		p.mu.Unlock()
	}
}

func (t *Transport) allPeers() []*remote {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*remote, 0, len(t.remotes))
	for _, p := range t.remotes {
		out = append(out, p)
	}
	return out
}

// Drop implements transport.Transport.
func (t *Transport) Drop(g id.GUID) {
	for _, p := range t.allPeers() {
		p.mu.Lock()
		proved := p.own != nil && p.own.GUID == g
		if !proved && (p.own != nil || p.said == nil || p.said.GUID != g) {
			p.mu.Unlock()
			continue
		}
		p.flush()
		links := append([]*link(nil), p.links...)
		p.mu.Unlock()
		for _, l := range links {
			l.close()
		}
		if proved {
			_ = t.swarm.ClosePeer(p.pid)
		}
	}
}

// flooded shuts out a peer that goes on opening streams. It is called from
// inside libp2p's accounting and must not block.
func (t *Transport) flooded(p peer.ID) {
	if t.gate.isShut(p) || !t.enter() {
		return
	}
	t.stats.floods.Add(1)
	t.log.Warn("a peer floods us with streams; it is shut out for a while", "peer", p.String(), "for", shutTime)
	t.gate.shut(p, shutTime)
	go func() {
		defer t.wg.Done()
		_ = t.swarm.ClosePeer(p)
	}()
}

// accepts bounds the connections from one address that have not become
// links: a quarter of what is allowed in all, so that a stranger cannot use
// up what members behind the same address need.
func (t *Transport) accepts(m ma.Multiaddr) bool {
	ip, ok := ipOf(m)
	if !ok || kindOf(m) == kindRelay {
		return true
	}
	limit := max(8, t.cfg.Limits.PerAddress/4)
	if ip.IsLoopback() {
		limit *= 4
	}
	n := 0
	for _, c := range t.swarm.Conns() {
		if from, ok := ipOf(c.RemoteMultiaddr()); !ok || from != ip {
			continue
		}
		if cs := t.connOf(c); cs != nil && cs.bare() {
			n++
		}
	}
	if n >= limit {
		t.stats.blockedConns.Add(1)
		return false
	}
	return true
}

// Links lists live connections by peer, the one written on first.
func (t *Transport) Links() []transport.Link {
	var out []transport.Link
	for _, p := range t.allPeers() {
		p.mu.Lock()
		for _, l := range p.links {
			m := l.conn.RemoteMultiaddr()
			out = append(out, transport.Link{
				Peer: l.h.GUID, Addr: textOf(m), Proto: protoOf(m),
				Inbound: l.conn.Stat().Direction == network.DirInbound,
				RTT:     l.rtt, Agent: t.agentOf(p.pid),
			})
		}
		p.mu.Unlock()
	}
	slices.SortStableFunc(out, func(a, b transport.Link) int { return a.Peer.Cmp(b.Peer) })
	return out
}

// agentOf is what identify has told of a peer's program.
func (t *Transport) agentOf(p peer.ID) string {
	v, err := t.h.Peerstore().Get(p, "AgentVersion")
	s, ok := v.(string)
	if err != nil || !ok || s == "" {
		return ""
	}
	s = reasonOf(s)
	return strings.TrimSpace(strings.ToValidUTF8(s[:min(len(s), maxAgent)], ""))
}

// maxAgent bounds what is shown of a peer's program, in bytes. Chosen by us.
const maxAgent = 64

// Close ends all links and waits for their goroutines. Calls of the host
// under way are waited for too: a host that blocks in Receive must let go.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.wg.Wait()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	close(t.done)
	t.cancel()
	for _, p := range t.allPeers() {
		p.mu.Lock()
		p.flush()
		links := append([]*link(nil), p.links...)
		p.mu.Unlock()
		for _, l := range links {
			l.close()
		}
	}
	// libp2p's dialler looks for transports that a closing swarm has no more,
	// and panics.
	t.dials.Wait()
	t.closeNAT()
	err := t.h.Close()
	t.wg.Wait()
	return err
}
