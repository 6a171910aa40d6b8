package node

import (
	"context"
	"errors"
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

// TestRosterLost: a member that remembers nobody does not take itself for the pool,
// and promise on one copy: it waits for one of those by whose invite it came.
func TestRosterLost(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 2)
	first, lost := p.nodes[0].cfg, p.nodes[1].cfg
	p.until(ctx, "the port to stay on", func() bool { return p.nodes[0].home.has(portFile) })
	for _, n := range p.nodes {
		n.Close()
	}
	for _, name := range []string{rosterFile, tableFile} {
		if err := os.Remove(p.nodes[1].home.path(name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	n, err := Open(ctx, lost)
	if err != nil {
		t.Fatal(err)
	}
	p.nodes[1] = n
	brief, cancel := context.WithTimeout(ctx, 2*time.Second) // it would be ready at once
	defer cancel()
	if err := n.Ready(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("alone: %v", err)
	}
	p.reopen(ctx, 0, first)
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	p.until(ctx, "both to know of both", func() bool {
		v, err := n.View()
		return err == nil && v.Members == 2
	})
}
