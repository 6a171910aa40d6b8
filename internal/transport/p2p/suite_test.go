package p2p

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopNet starts nodes on this machine.
type loopNet struct {
	quicOnly bool
	queued   time.Duration // 0: as ever
}

func (n loopNet) Start(t testing.TB, h *transporttest.Host, addrs []string) transport.Transport {
	t.Helper()
	c, patience := n.config(t, addrs), patience
	if n.queued > 0 {
		patience.queued = n.queued
	}
	c.Key = h.Key
	tr, err := newWith(c, h, patience)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func (n loopNet) config(t testing.TB, addrs []string) Config {
	t.Helper()
	c := Config{Loopback: true, Limits: Limits{LocalAsks: askBurst}, Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}}
	if n.quicOnly {
		c.Listen = c.Listen[1:]
	}
	if addrs != nil {
		c.Listen = nil
		for _, a := range addrs {
			m, err := decodeAddr(a)
			if err != nil {
				t.Fatal(err)
			}
			c.Listen = append(c.Listen, m.String())
		}
	}
	return c
}

func start(t testing.TB, h *transporttest.Host, c Config) *Transport {
	t.Helper()
	c.Key = h.Key
	tr, err := New(c, h)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func (n loopNet) Nowhere() string {
	a, err := ParseAddr("127.0.0.1:1")
	if err != nil {
		panic(err)
	}
	return a
}

func TestConformanceTCP(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(queued time.Duration) transporttest.Net { return loopNet{queued: queued} })
}

// TestConformanceQUIC also shows that QUIC handshakes work under this Go.
func TestConformanceQUIC(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(queued time.Duration) transporttest.Net { return loopNet{true, queued} })
}
