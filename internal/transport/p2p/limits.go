package p2p

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/x/rate"

	libp2p "github.com/libp2p/go-libp2p"
)

// Window sizes of a yamux stream. 256 KiB is the protocol's own start; 4 MiB
// carries 320 Mbit/s over 100 ms on one stream and four times that on the
// four bulk streams, at a quarter of libp2p's 16 MiB for a peer who never
// reads what we receive.
const maxWindow = 4 << 20

// muxer is libp2p's yamux with our window, and a bound on the streams of one
// connection. The resource manager has one too, but sees a stream only after
// yamux has reserved its window, and running out of memory ends connections
// of others as well; so a connection with too many streams is ended here.
type muxer struct{ t *Transport }

var _ network.Multiplexer = muxer{}

// Streams of one connection, both ways. A stranger needs identify, a link
// and a question; a member four bulk streams each way and perhaps circuits.
const (
	strangerStreams = 12
	memberStreams   = 96
)

func (m muxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	cfg := *yamux.DefaultTransport.Config() // its ReadBufSize is 0: TLS buffers below
	cfg.MaxStreamWindowSize = maxWindow
	if scope != nil {
		scope = &streamScope{PeerScope: scope, t: m.t}
	}
	return (*yamux.Transport)(&cfg).NewConn(c, isServer, scope)
}

// streamScope counts the streams of one connection by the spans that yamux
// begins for them.
type streamScope struct {
	network.PeerScope
	t    *Transport
	open atomic.Int32
}

var errStreams = errors.New("too many streams")

func (s *streamScope) BeginSpan() (network.ResourceScopeSpan, error) {
	n := s.open.Add(1)
	if n > strangerStreams && (n > memberStreams || !s.t.isLinked(s.Peer())) {
		s.open.Add(-1)
		s.t.stats.blockedStreams.Add(1)
		s.t.flooded(s.Peer())
		return nil, errStreams // which ends the connection
	}
	span, err := s.PeerScope.BeginSpan()
	if err != nil {
		s.open.Add(-1)
		return nil, err
	}
	return &streamSpan{ResourceScopeSpan: span, s: s}, nil
}

type streamSpan struct {
	network.ResourceScopeSpan
	s    *streamScope
	once sync.Once
}

func (s *streamSpan) Done() {
	s.once.Do(func() { s.s.open.Add(-1) })
	s.ResourceScopeSpan.Done()
}

// newResources builds the resource manager. Every limit that can bite is
// stated; what is left to libp2p's defaults are its own small services.
func newResources(l Limits, report rcmgr.MetricsReporter) (network.ResourceManager, error) {
	base := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&base)
	one := func(streams, conns int, mem int64) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Streams: rcmgr.LimitVal(streams), StreamsInbound: rcmgr.LimitVal(streams * 3 / 4), StreamsOutbound: rcmgr.LimitVal(streams),
			Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns * 3 / 4), ConnsOutbound: rcmgr.LimitVal(conns),
			FD: rcmgr.LimitVal(conns), Memory: rcmgr.LimitVal64(mem),
		}
	}
	streams := func(in, out int, mem int64) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Streams: rcmgr.LimitVal(in + out), StreamsInbound: rcmgr.LimitVal(in), StreamsOutbound: rcmgr.LimitVal(out),
			Memory: rcmgr.LimitVal64(mem),
		}
	}
	cfg := rcmgr.PartialLimitConfig{
		System:    one(l.Streams, l.Conns, l.Memory),
		Transient: one(max(64, l.Streams/8), max(64, l.Conns/4), l.Memory/4),
		// 4 windows of 4 MiB and as much again for control and slack.
		PeerDefault: one(64, 8, 32<<20),
		Conn:        rcmgr.ResourceLimits{Streams: rcmgr.Unlimited, StreamsInbound: rcmgr.Unlimited, StreamsOutbound: rcmgr.Unlimited, Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: 32 << 20},
		Stream:      rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: maxWindow + 1<<20},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			linkProto: streams(l.Conns, l.Conns, l.Memory),
			bulkProto: streams(l.Streams/2, l.Streams/2, l.Memory),
			askProto:  streams(64, 64, 16<<20),
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			linkProto: streams(2*maxLinks, 2*maxLinks, 16<<20),
			bulkProto: streams(2*maxBulk, 2*maxBulk, 32<<20),
			askProto:  streams(8, 8, 4<<20),
		},
	}
	loop := max(256, l.PerAddress)
	v4, v6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(cfg.Build(base.Scale(l.Memory, l.Conns))),
		rcmgr.WithMetrics(report),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: l.PerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: l.PerAddress}, {PrefixLength: 48, ConnCount: 4 * l.PerAddress}},
		),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: v4, ConnCount: loop}},
			[]rcmgr.NetworkPrefixLimit{{Network: v6, ConnCount: loop}},
		),
		// New connections: a machine of a pool may run many nodes, so more
		// than libp2p's one in five seconds.
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: v4}, {Prefix: v6}},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: 5, Burst: 2 * l.PerAddress}}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: rate.Limit{RPS: 5, Burst: 2 * l.PerAddress}}},
				GracePeriod:      time.Minute,
			},
		}),
	)
}

// blocks counts what the resource manager refuses, and meters the streams that
// peers open.
type blocks struct {
	stats *counters
	flood func(peer.ID) // called when a peer has used up its budget; must not block
	meter streamMeter
}

var _ rcmgr.MetricsReporter = (*blocks)(nil)

// A stream that a peer opens and the resource manager lets pass costs
// streamCost, a refused one refusedCost. Who owes more than floodTime is shut
// out for shutTime. An honest peer opens ten streams or so and reuses them; a
// member that keeps trying to reach many others through a relay opens one or
// two a second for each. Opening and resetting streams as fast as possible,
// which never holds many, is stopped so after 1,280.
const (
	streamCost  = floodTime / 1280
	refusedCost = floodTime / 32
	floodTime   = 10 * time.Second
	shutTime    = 5 * time.Minute
	maxMetered  = 4096
)

// streamMeter keeps for each peer when it will owe nothing more.
type streamMeter struct {
	mu   sync.Mutex
	paid map[peer.ID]time.Time
}

// charge reports whether p owes too much now.
func (m *streamMeter) charge(p peer.ID, cost time.Duration, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paid == nil {
		m.paid = map[peer.ID]time.Time{}
	}
	at, ok := m.paid[p]
	if !ok && len(m.paid) >= maxMetered {
		return false // more peers than can be connected: the sweep is due
	}
	if at.Before(now) {
		at = now
	}
	at = at.Add(cost)
	m.paid[p] = at
	return at.Sub(now) > floodTime
}

func (m *streamMeter) sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, at := range m.paid {
		if at.Before(now) {
			delete(m.paid, p)
		}
	}
}

func (b *blocks) charge(p peer.ID, dir network.Direction, cost time.Duration) {
	if dir == network.DirInbound && b.meter.charge(p, cost, time.Now()) {
		b.flood(p)
	}
}

func (b *blocks) BlockStream(p peer.ID, dir network.Direction) {
	b.stats.blockedStreams.Add(1)
	b.charge(p, dir, refusedCost)
}

func (b *blocks) AllowStream(p peer.ID, dir network.Direction) { b.charge(p, dir, streamCost) }

func (b *blocks) BlockConn(network.Direction, bool) { b.stats.blockedConns.Add(1) }
func (b *blocks) BlockPeer(peer.ID)                 { b.stats.blockedConns.Add(1) }
func (b *blocks) BlockProtocolPeer(_ protocol.ID, p peer.ID) {
	b.BlockStream(p, network.DirInbound)
}
func (b *blocks) BlockProtocol(protocol.ID)         { b.stats.blockedStreams.Add(1) }
func (b *blocks) BlockService(string)               { b.stats.blockedStreams.Add(1) }
func (b *blocks) BlockServicePeer(string, peer.ID)  { b.stats.blockedStreams.Add(1) }
func (b *blocks) BlockMemory(int)                   { b.stats.blockedMemory.Add(1) }
func (b *blocks) AllowConn(network.Direction, bool) {}
func (b *blocks) AllowPeer(peer.ID)                 {}
func (b *blocks) AllowProtocol(protocol.ID)         {}
func (b *blocks) AllowService(string)               {}
func (b *blocks) AllowMemory(int)                   {}
