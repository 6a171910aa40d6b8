package node

import (
	"errors"
	"strings"
	"testing"

	"atoll.example/atoll/internal/transport/p2p"
)

// TestLoopbackListens: a node that is to stay on this machine listens nowhere else.
func TestLoopbackListens(t *testing.T) {
	for _, c := range []struct {
		listen string
		stays  bool
	}{
		{"127.0.0.1:0", true},
		{"127.8.0.1:4001", true},
		{"[::1]:0", true},
		{"/ip4/127.0.0.1/tcp/0", true},
		{"/ip4/127.0.0.1/udp/0/quic-v1", true},
		{"0.0.0.0:0", false},
		{":4001", false},
		{"[::]:0", false},
		{"192.168.1.7:4001", false},
		{"/ip4/0.0.0.0/udp/0/quic-v1", false},
	} {
		cfg := Config{Dir: t.TempDir(), Listen: []string{"127.0.0.1:0", c.listen}, Loopback: true}
		err := cfg.Validate()
		if c.stays != (err == nil) || err != nil && (!errors.Is(err, p2p.ErrBadAddr) || !strings.Contains(err.Error(), "--loopback")) {
			t.Errorf("%s: %v", c.listen, err)
		}
		if cfg.Loopback = false; cfg.Validate() != nil {
			t.Errorf("%s, without loopback: %v", c.listen, cfg.Validate())
		}
	}
}
