package node

import (
	"context"
	"testing"
	"time"

	"atoll.example/atoll/internal/transport/transporttest"
)

// TestAllAddressesChanged restarts both members of a pool at addresses that
// the other has never heard of, as after an outage at home where the router
// hands out new ones. They find each other by multicast DNS.
func TestAllAddressesChanged(t *testing.T) {
	if !transporttest.OwnNet(t) {
		return
	}
	p := startPool(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var cfg [2]Config
	var old [2][]string
	for i, n := range p.nodes {
		cfg[i], old[i] = n.cfg, n.tr.Addrs()
		cfg[i].Listen, cfg[i].MDNS = []string{"127.0.0.1:0"}, true
		n.Close()
	}
	for i := range cfg {
		n, err := Open(ctx, cfg[i])
		if err != nil {
			t.Fatal(err)
		}
		p.nodes[i] = n
		if n.tr.Addrs()[0] == old[i][0] {
			t.Fatal("the address has not changed")
		}
	}
	begin := time.Now()
	p.until(ctx, "links", func() bool {
		return len(p.nodes[0].tr.Links()) > 0 && len(p.nodes[1].tr.Links()) > 0
	})
	p.until(ctx, "one ring", func() bool {
		return p.sees(0, 1) && p.sees(1, 0)
	})
	t.Logf("found after %v", time.Since(begin))
}

// sees reports whether node i has node j on its ring.
func (p *testPool) sees(i, j int) bool {
	for _, h := range p.nodes[i].neighbours(8) {
		if h.GUID == p.nodes[j].GUID() {
			return true
		}
	}
	return false
}
