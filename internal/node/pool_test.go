package node

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/seal"
)

// testPool is real members in this process, over loopback sockets and real
// folders.
type testPool struct {
	t     *testing.T
	nodes []*Node
}

func testConfig(dir, name string) Config {
	return Config{
		Dir: filepath.Join(dir, name), Name: name, Domain: "domain-" + name, Loopback: true,
		NoQUIC: true, NoRelay: true, Limit: 512 << 20, Preset: Local,
	}
}

// minute is a context for as long as a test here may take.
func minute(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startPool(t *testing.T, num int) *testPool {
	t.Helper()
	ctx := minute(t)
	dir := t.TempDir()
	first, err := Create(ctx, testConfig(dir, "n0"), PoolParams{Name: "test", K: 3, Overlay: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := &testPool{t: t, nodes: make([]*Node, num)}
	p.nodes[0] = first
	t.Cleanup(p.close)
	invite, _, err := first.Invite(InviteTerms{Uses: max(1, num-1)})
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, num)
	var all sync.WaitGroup
	for i := 1; i < num; i++ {
		all.Go(func() { p.nodes[i], errs[i] = Join(ctx, testConfig(dir, fmt.Sprintf("n%d", i)), invite) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("join of node %d: %v", i, err)
		}
	}
	for i, n := range p.nodes {
		if err := n.Ready(ctx); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	p.until(ctx, "all members counted by all", func() bool {
		for _, n := range p.nodes {
			if v, err := n.View(); err != nil || v.Members < num {
				return false
			}
		}
		return true
	})
	return p
}

func (p *testPool) close() {
	var all sync.WaitGroup
	for _, n := range p.nodes {
		if n != nil {
			all.Go(n.Close)
		}
	}
	all.Wait()
}

// reopen starts member i anew and waits until it is ready.
func (p *testPool) reopen(ctx context.Context, i int, cfg Config) *Node {
	p.t.Helper()
	n, err := Open(ctx, cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.nodes[i] = n
	if err := n.Ready(ctx); err != nil {
		p.t.Fatalf("node %d: %v", i, err)
	}
	return n
}

func (p *testPool) until(ctx context.Context, what string, holds func() bool) {
	p.t.Helper()
	glance := time.NewTicker(20 * time.Millisecond)
	defer glance.Stop()
	for !holds() {
		select {
		case <-glance.C:
		case <-ctx.Done():
			p.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestPoolStoresAndGivesBack(t *testing.T) {
	for _, num := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(num), func(t *testing.T) {
			p := startPool(t, num)
			ctx := minute(t)
			block := seal.Header{Kind: seal.KindRaw, Suite: seal.Clear}.Append(nil)
			block = append(block, bytes.Repeat([]byte("the tide comes in "), 40_000)...)
			g := seal.BlockGUID(block)
			done, err := p.nodes[0].PutBlock(ctx, g, block, [16]byte{1}, PutOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if want := (min(num, 3) + 2) / 2; len(done.Receipts) < want {
				t.Fatalf("%d receipts, want at least %d", len(done.Receipts), want)
			}
			for i, n := range p.nodes {
				got, err := n.Blocks().Get(ctx, g)
				if err != nil || !bytes.Equal(got, block) {
					t.Fatalf("get through node %d: %d bytes, %v", i, len(got), err)
				}
			}
		})
	}
}
