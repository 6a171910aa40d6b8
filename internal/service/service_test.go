package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/node"
)

func quiet(api.Progress) {}

// pool is real members with their services, over loopback sockets and folders.
type pool struct {
	nodes    []*node.Node
	services []*Service
}

func startPool(t testing.TB, num int) *pool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	cfg := func(i int) node.Config {
		name := fmt.Sprintf("n%d", i)
		return node.Config{
			Dir: filepath.Join(dir, name), Name: name, Domain: "domain-" + name, Loopback: true,
			NoQUIC: true, NoRelay: true, Limit: 2 << 30, Preset: node.Local,
			Version: "test-" + name,
		}
	}
	p := &pool{nodes: make([]*node.Node, num)}
	t.Cleanup(p.close)
	var err error
	if p.nodes[0], err = node.Create(ctx, cfg(0), node.PoolParams{Name: "test", K: 3, Overlay: 1}); err != nil {
		t.Fatal(err)
	}
	invite, _, err := p.nodes[0].Invite(node.InviteTerms{Uses: max(num-1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, num)
	var all sync.WaitGroup
	for i := 1; i < num; i++ {
		all.Go(func() { p.nodes[i], errs[i] = node.Join(ctx, cfg(i), invite) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, n := range p.nodes {
		if err := n.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		s, err := Open(n, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.services = append(p.services, s)
	}
	until(t, "all members counted by all", func() bool {
		for _, n := range p.nodes {
			if v, err := n.View(); err != nil || v.Members < num {
				return false
			}
		}
		return true
	})
	return p
}

func (p *pool) close() {
	var all sync.WaitGroup
	for _, s := range p.services {
		_ = s.Close()
	}
	for _, n := range p.nodes {
		if n != nil {
			all.Go(n.Close)
		}
	}
	all.Wait()
}

// until waits for a condition, a minute at most.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.After(time.Minute)
	glance := time.NewTicker(20 * time.Millisecond)
	defer glance.Stop()
	for !holds() {
		select {
		case <-glance.C:
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func randomFile(t testing.TB, size int, seed uint64) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = src.Read(content)
	path = filepath.Join(t.TempDir(), fmt.Sprintf("file-%d", size))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestFileGoesInAndComesOutElsewhere(t *testing.T) {
	p := startPool(t, 4)
	ctx := context.Background()
	for i, size := range []int{0, 1, 4096, 1<<20 - 1, 5<<20 + 17} {
		path, content := randomFile(t, size, uint64(i))
		put, err := p.services[i%4].Put(ctx, api.PutParams{Path: path, Size: -1}, nil, quiet)
		if err != nil {
			t.Fatalf("put %d bytes: %v", size, err)
		}
		var got bytes.Buffer
		res, err := p.services[(i+1)%4].Get(ctx, api.GetRequest{Link: put.Link}, func(api.GetHead) (io.Writer, error) { return &got, nil }, quiet)
		if err != nil || !bytes.Equal(got.Bytes(), content) {
			t.Fatalf("get %d bytes: got %d, %v", size, got.Len(), err)
		}
		if res.Size != int64(size) || !res.Verified {
			t.Fatalf("result %+v of %d bytes", res, size)
		}
		out := filepath.Join(t.TempDir(), "out")
		if _, err := p.services[(i+2)%4].Get(ctx, api.GetRequest{Link: put.Link, Out: out}, nil, quiet); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, content) {
			t.Fatalf("file of %d bytes differs: %v", size, err)
		}
		st, err := p.services[(i+3)%4].Stat(ctx, api.LinkRequest{Link: put.Link})
		if err != nil || *st.Size != int64(size) || st.Mtime == nil || st.Copies.Min < 2 {
			t.Fatalf("stat: %+v, %v", st, err)
		}
		if st, err = p.services[0].Stat(ctx, api.LinkRequest{Link: put.VerifyLink}); err != nil || st.Size != nil || st.Mtime != nil || st.GUID != put.GUID {
			t.Fatalf("stat of a verify link: %+v, %v", st, err)
		}
		if _, err := p.services[i%4].Rm(ctx, api.LinkRequest{Link: put.Link}); err != nil {
			t.Fatalf("rm: %v", err)
		}
		until(t, "no member to have it any more", func() bool { // one of three may hear of it a moment later
			_, err = p.services[(i+1)%4].Stat(ctx, api.LinkRequest{Link: put.Link})
			code := api.AsError("stat", err).Code
			return err != nil && (code == api.Removed || code == api.NotFound)
		})
	}
}

func TestSignedBlockThroughTheService(t *testing.T) {
	p := startPool(t, 3)
	ctx := context.Background()
	v := &api.SignedValue{Salt: []byte("tide"), Value: []byte("high")}
	put, err := p.services[0].DHTPut(ctx, api.DHTPutRequest{Signed: v})
	if err != nil || put.Seq != 1 {
		t.Fatalf("first: %+v, %v", put, err)
	}
	v.Value = []byte("low")
	if put, err = p.services[0].DHTPut(ctx, api.DHTPutRequest{Signed: v}); err != nil || put.Seq != 2 {
		t.Fatalf("second: %+v, %v", put, err)
	}
	got, err := p.services[2].DHTGet(ctx, api.DHTGetRequest{GUID: put.GUID})
	if err != nil || string(got.Value) != "low" || *got.Seq != 2 {
		t.Fatalf("get: %+v, %v", got, err)
	}
	zero := uint64(0)
	v.CAS = &zero
	_, err = p.services[0].DHTPut(ctx, api.DHTPutRequest{Signed: v})
	if err == nil || api.AsError("dht put", err).Code != api.CAS {
		t.Fatalf("cas of 0 over seq 2: %v", err)
	}
}

// TestPeersTellOfAll: each member shows how far the others are and what they run.
func TestPeersTellOfAll(t *testing.T) {
	p := startPool(t, 4)
	for i, s := range p.services {
		until(t, "round trips and versions of all", func() bool {
			peers, err := s.Peers(context.Background())
			if err != nil || len(peers.Peers) != 4 {
				return false
			}
			for _, m := range peers.Peers {
				if m.State == "self" {
					continue
				}
				if m.State != "live" || m.RTTMs == nil || *m.RTTMs <= 0 || *m.RTTMs > 10_000 || m.Version != "test-"+m.Name {
					t.Logf("node %d: %s is %s, %v ms, version %q", i, m.Name, m.State, m.RTTMs, m.Version)
					return false
				}
			}
			return true
		})
	}
}

// TestRemoveSaysWhatIsNot: without its key a signed block is not removed, nor is one
// that was never put, and neither passes for done.
func TestRemoveSaysWhatIsNot(t *testing.T) {
	p := startPool(t, 3)
	ctx := context.Background()
	put, err := p.services[0].DHTPut(ctx, api.DHTPutRequest{Signed: &api.SignedValue{Salt: []byte("ebb"), Value: []byte("low")}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.services[0].DHTRemove(ctx, api.DHTRemoveRequest{GUID: put.GUID})
	if e := api.AsError("dht remove", err); err == nil || e.Code != api.BadRequest || !strings.Contains(e.Message, "--sign") {
		t.Errorf("a signed block without its key: %v", err)
	}
	if _, err := p.services[1].DHTGet(ctx, api.DHTGetRequest{GUID: put.GUID}); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	_, err = p.services[0].DHTRemove(ctx, api.DHTRemoveRequest{GUID: id.GUID{7}})
	if err == nil || api.AsError("dht remove", err).Code != api.NotFound {
		t.Errorf("a block that was never put: %v", err)
	}
}

func TestStatusCountsEveryCopy(t *testing.T) {
	p := startPool(t, 4)
	ctx := context.Background()
	path, _ := randomFile(t, 3<<20, 9)
	if _, err := p.services[0].Put(ctx, api.PutParams{Path: path, Size: -1}, nil, quiet); err != nil {
		t.Fatal(err)
	}
	until(t, "all blocks at k", func() bool {
		st, err := p.services[1].Status(ctx)
		return err == nil && st.Safety.Blocks == 4 && st.Safety.Full == 4 && st.Members.Total == 4
	})
}
