package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/seal"
	"atoll.example/atoll/internal/store/diskstore"
)

// TestLeaveEndsMembership: the folder of a member that has left starts no more,
// and says what to do; the others list it as one that has left. A new invite makes
// it a member again.
func TestLeaveEndsMembership(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	gone := p.nodes[2]
	if err := gone.Leave(); err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p.until(ctx, "the others to hear of it", func() bool {
		for _, n := range p.nodes[:2] {
			v, err := n.View()
			if m, _ := v.Member(gone.GUID()); err != nil || m.Status != roster.Left || v.Members != 2 {
				return false
			}
		}
		return true
	})
	_, err := Open(ctx, gone.cfg)
	var f *Fault
	if !errors.As(err, &f) || f != ErrLeft || !strings.Contains(err.Error(), "atoll join INVITE") {
		t.Fatalf("a member that has left starts: %v", err)
	}
	found, err := Examine(ctx, gone.cfg.Dir, false)
	if err != nil || len(found) != 1 || found[0].OK || found[0].Detail != ErrLeft.Text {
		t.Fatalf("doctor of a member that has left: %+v, %v", found, err)
	}
	invite, _, err := p.nodes[0].Invite(InviteTerms{})
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []func() (*Node, error){
		func() (*Node, error) { return Join(ctx, gone.cfg, invite) },
		func() (*Node, error) { return Open(ctx, gone.cfg) },
	} {
		n, err := again()
		if err != nil {
			t.Fatal(err)
		}
		p.nodes[2] = n
		if err := n.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		p.until(ctx, "it to be counted again", func() bool {
			v, err := p.nodes[1].View()
			return err == nil && v.Members == 3
		})
		n.Close()
	}
}

// TestLeaveCutShort: a member signs off only once its folder says so; a crash in
// between leaves one that starts no more, of which doctor says what may be amiss.
func TestLeaveCutShort(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	cfg := p.nodes[2].cfg
	p.until(ctx, "its own word in its roster", func() bool { return p.nodes[2].home.has(rosterFile) })
	p.nodes[2].Close()
	pool, left := p.nodes[0].Pool().ID(), filepath.Join(cfg.Dir, leftFile)
	word := append([]byte{byte(roster.KindLeft), 1}, pool[:]...)
	var early atomic.Bool
	cfg.Distort = func(_ bool, frame []byte) []byte {
		if _, err := os.Lstat(left); err != nil && bytes.Contains(frame, word) {
			early.Store(true)
		}
		return frame
	}
	n := p.reopen(ctx, 2, cfg)

	// It cannot be written: the node stays a member, for all.
	if err := os.Mkdir(left+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.Leave(); err == nil {
		t.Fatal("left without a note of it")
	}
	if v, err := n.View(); err != nil || v.Members != 3 {
		t.Fatalf("signed off without a note of it: %d members, %v", v.Members, err)
	}
	if err := os.Remove(left + ".tmp"); err != nil {
		t.Fatal(err)
	}

	// A crash before anybody hears of it.
	n.Close()
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := Open(ctx, cfg); !errors.Is(err, ErrLeft) {
		if err == nil {
			n.Close()
		}
		t.Fatalf("start after a departure cut short: %v", err)
	}
	found, err := Examine(ctx, cfg.Dir, false)
	if err != nil || len(found) != 1 || found[0].OK || !strings.Contains(found[0].Fix, "atoll revoke "+n.GUID().Short()) || !strings.Contains(found[0].Fix, "atoll join") {
		t.Fatalf("doctor: %+v, %v", found, err)
	}
	if err := os.Remove(left); err != nil {
		t.Fatal(err)
	}

	if err := p.reopen(ctx, 2, cfg).Leave(); err != nil {
		t.Fatal(err)
	}
	p.until(ctx, "the others to hear of it", func() bool {
		v, err := p.nodes[0].View()
		return err == nil && v.Members == 2
	})
	if early.Load() {
		t.Error("the word was out before the folder said so")
	}
}

// TestAcceptDiskCutShort: a disk that failed is trusted again only once all of it was
// read back.
func TestAcceptDiskCutShort(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 1)
	sick := p.nodes[0]
	sick.Close()
	if err := os.WriteFile(filepath.Join(sick.cfg.Dir, "store", "FAILED"), []byte("sector 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cut, cancel := context.WithCancel(ctx)
	cancel()
	if found, err := Examine(cut, sick.cfg.Dir, true); !errors.Is(err, context.Canceled) {
		t.Fatalf("doctor that was stopped: %+v, %v", found, err)
	}
	if n, err := Open(ctx, sick.cfg); !errors.Is(err, ErrFailed) {
		if err == nil {
			n.Close()
		}
		t.Fatalf("start on a disk that was not checked: %v", err)
	}
	found, err := Examine(ctx, sick.cfg.Dir, true)
	if last := found[len(found)-1]; err != nil || last.Check != "store" || !last.OK {
		t.Fatalf("doctor: %+v, %v", found, err)
	}
	p.reopen(ctx, 0, sick.cfg)
}

// TestDamagedStore: a node whose index is damaged says what to do; doctor sets the
// store aside and keeps it, and the node fetches its copies anew.
func TestDamagedStore(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	block := seal.Header{Kind: seal.KindRaw, Suite: seal.Clear}.Append(nil)
	block = append(block, bytes.Repeat([]byte("low water "), 5_000)...)
	g := seal.BlockGUID(block)
	if _, err := p.nodes[0].PutBlock(ctx, g, block, [16]byte{1}, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	p.until(ctx, "the third copy", func() bool { return p.nodes[2].Usage().Blocks == 1 })
	sick := p.nodes[2]
	sick.Close()
	manifests, err := filepath.Glob(filepath.Join(sick.cfg.Dir, "store", "meta", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifest: %v", err)
	}
	for _, m := range manifests {
		b, err := os.ReadFile(m)
		if err == nil {
			b[len(b)/2] ^= 1
			err = os.WriteFile(m, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = Open(ctx, sick.cfg)
	if !errors.Is(err, ErrDamaged) || !errors.Is(err, diskstore.ErrDamaged) || !strings.Contains(err.Error(), "--accept-disk") {
		t.Fatalf("start on a damaged index: %v", err)
	}
	store := func(accept bool) Finding {
		t.Helper()
		found, err := Examine(ctx, sick.cfg.Dir, accept)
		if err != nil || found[len(found)-1].Check != "store" {
			t.Fatalf("doctor: %+v, %v", found, err)
		}
		return found[len(found)-1]
	}
	if f := store(false); f.OK || !strings.Contains(f.Fix, "--accept-disk") {
		t.Fatalf("doctor: %+v", f)
	}
	if f := store(true); !f.OK || !strings.Contains(f.Detail, "set aside as ") {
		t.Fatalf("doctor --accept-disk: %+v", f)
	}
	if kept, err := filepath.Glob(filepath.Join(sick.cfg.Dir, "store.damaged-*", "FORMAT")); err != nil || len(kept) != 1 {
		t.Fatalf("the damaged store is not kept: %v, %v", kept, err)
	}
	again, err := Open(ctx, sick.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.nodes[2] = again
	p.until(ctx, "its copy to be back", func() bool { return again.Usage().Blocks == 1 })
}
