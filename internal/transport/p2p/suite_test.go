package p2p

import (
	"testing"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopNet starts nodes on this machine.
type loopNet struct{ quicOnly bool }

func (n loopNet) Start(t testing.TB, h *transporttest.Host, addrs []string) transport.Transport {
	t.Helper()
	return start(t, h, n.config(t, addrs))
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
	transporttest.Run(t, func(testing.TB) transporttest.Net { return loopNet{} })
}

// TestConformanceQUIC also shows that QUIC handshakes work under this Go.
func TestConformanceQUIC(t *testing.T) {
	transporttest.Run(t, func(testing.TB) transporttest.Net { return loopNet{quicOnly: true} })
}
