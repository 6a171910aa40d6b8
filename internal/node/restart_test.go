package node

import (
	"os"
	"testing"
	"time"
)

// TestRestart: a member alone in its pool is ready at once when it starts
// again, and one that lost its routing table finds the others by the roster.
func TestRestart(t *testing.T) {
	ctx := minute(t)
	for _, num := range []int{1, 3} {
		p := startPool(t, num)
		last := p.nodes[num-1]
		cfg := last.cfg
		last.Close()
		if err := os.Remove(last.home.path(tableFile)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		begin := time.Now()
		p.reopen(ctx, num-1, cfg)
		t.Logf("pool of %d: ready %s after it started again", num, time.Since(begin))
	}
}

// TestAllTablesLost: members that have all been restored from backups hold no
// table; they find one another by the roster and are the ring again.
func TestAllTablesLost(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	for _, n := range p.nodes {
		n.Close()
		if err := os.Remove(n.home.path(tableFile)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	for i, n := range p.nodes {
		again, err := Open(ctx, n.cfg)
		if err != nil {
			t.Fatal(err)
		}
		p.nodes[i] = again
	}
	for i, n := range p.nodes {
		if err := n.Ready(ctx); err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
	}
}
