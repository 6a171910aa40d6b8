package service

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/node"
)

// TestAlone: a member that lost its table and finds nobody says whom it looks for,
// in status and to those who want files, and is the pool's again as soon as one of
// them starts.
func TestAlone(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 2)
	cfgs := make([]node.Config, 2)
	for i, n := range p.nodes {
		cfgs[i] = node.Config{
			Dir: n.Dir(), Loopback: true, NoQUIC: true, NoRelay: true, Preset: node.Local,
		}
		_ = p.services[i].Close()
		n.Close()
	}
	if err := os.Remove(filepath.Join(cfgs[1].Dir, "table")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var err error
	if p.nodes[1], err = node.Open(ctx, cfgs[1]); err != nil {
		t.Fatal(err)
	}
	if p.services[1], err = Open(p.nodes[1], nil); err != nil {
		t.Fatal(err)
	}
	p.services[1].patience = 50 * time.Millisecond
	_, err = p.services[1].DHTPut(ctx, api.DHTPutRequest{Raw: []byte("x")})
	if e := api.AsError("dht put", err); err == nil || e.Code != api.Unavailable || !strings.Contains(e.Message, "keeps trying n0") {
		t.Fatalf("a put through a node that finds nobody: %v", err)
	}
	st, err := p.services[1].Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := strings.Join(st.Warnings, "\n")
	if !strings.Contains(w, "it keeps trying n0 ("+p.nodes[0].GUID().Short()+") at 127.0.0.1:") || !strings.Contains(w, "atoll join INVITE") || strings.Contains(w, "is away") {
		t.Errorf("warnings of a node that finds nobody: %s", w)
	}
	// With nobody else there it is the ring, and still reaches nobody.
	until(t, "it to be ready alone", func() bool {
		v, err := p.nodes[1].View()
		return err == nil && v.State == "ready"
	})
	st, err = p.services[1].Status(ctx)
	if w := strings.Join(st.Warnings, "\n"); err != nil || !strings.Contains(w, "reaches no other member; it keeps trying n0") || strings.Contains(w, "is away") {
		t.Errorf("warnings of a node that is alone: %s, %v", w, err)
	}
	if !slices.Equal(st.Safety.Silent, []id.GUID{p.nodes[0].GUID()}) {
		t.Errorf("a node that is alone names as not counted %v", st.Safety.Silent)
	}
	_, err = p.services[1].Verify(ctx, api.VerifyRequest{All: true}, nil)
	if e := api.AsError("verify", err); err == nil || e.Code != api.Unavailable || !strings.Contains(e.Message, "cannot be told") {
		t.Errorf("verify through a node that is alone: %v", err)
	}
	if p.nodes[0], err = node.Open(ctx, cfgs[0]); err != nil {
		t.Fatal(err)
	}
	if p.services[0], err = Open(p.nodes[0], nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the two to be a pool", func() bool {
		_, err := p.services[1].DHTPut(ctx, api.DHTPutRequest{Raw: []byte("x")})
		return err == nil
	})
	if st, err = p.services[1].Status(ctx); err != nil || strings.Contains(strings.Join(st.Warnings, "\n"), "keeps trying") {
		t.Errorf("warnings of a node that has found the other: %q, %v", st.Warnings, err)
	}
}
