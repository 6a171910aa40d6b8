package node

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// copyIdentity copies what a node's folder holds beside its store.
func copyIdentity(t *testing.T, from, to string) {
	t.Helper()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // was being written
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwin: of a node and a copy of its folder the second does not start, and says
// where the first one runs.
func TestTwin(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	cfg := p.nodes[2].cfg
	p.nodes[2].Close()
	twin := cfg
	twin.Dir = filepath.Join(t.TempDir(), "copy")
	copyIdentity(t, cfg.Dir, twin.Dir)
	v, err := p.reopen(ctx, 2, cfg).View()
	if err != nil {
		t.Fatal(err)
	}
	before := readEpoch(t, twin.Dir)
	n, err := Open(ctx, twin)
	if err == nil {
		n.Close()
	}
	if !errors.Is(err, ErrTwin) {
		t.Fatalf("the copy: %v", err)
	}
	for _, word := range []string{v.Addr(v.Handle.GUID), twin.Dir, "stop that one", "atoll invite", "atoll join"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("no %q in: %s", word, err)
		}
	}
	if readEpoch(t, twin.Dir) != before {
		t.Error("the copy has counted a boot")
	}
	p.nodes[2].Close()
	p.reopen(ctx, 2, twin) // the copy, alone
}

// TestTwinWithin: a copy that could not find the first one gets in, since its boot
// epoch is higher; the first one stops, and does not come back while the copy runs.
func TestTwinWithin(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	first := p.nodes[2]
	twin := first.cfg
	twin.Dir = filepath.Join(t.TempDir(), "copy")
	p.until(ctx, "a table to find the others by", func() bool { return first.home.has(rosterFile) })
	copyIdentity(t, first.cfg.Dir, twin.Dir)
	for _, name := range []string{rosterFile, tableFile} {
		if err := os.Remove(filepath.Join(twin.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	later := binary.BigEndian.AppendUint32(nil, readEpoch(t, twin.Dir)+5)
	if err := os.WriteFile(filepath.Join(twin.Dir, epochFile), later, 0o600); err != nil {
		t.Fatal(err)
	}
	invite, _, err := p.nodes[0].Invite(InviteTerms{}) // tells it where the others are
	if err != nil {
		t.Fatal(err)
	}
	n, err := Join(ctx, twin, invite)
	if err != nil {
		t.Fatal(err)
	}
	p.nodes = append(p.nodes, n)
	select {
	case <-first.Failed():
	case <-ctx.Done():
		t.Fatal("the first one goes on")
	}
	if err := first.Failure(); !errors.Is(err, ErrJumped) {
		t.Fatalf("the first one: %v", err)
	}
	first.Close()
	again, err := Open(ctx, first.cfg)
	if err == nil {
		again.Close()
	}
	if !errors.Is(err, ErrTwin) {
		t.Fatalf("the first one, started again: %v", err)
	}
}

func readEpoch(t *testing.T, dir string) uint32 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, epochFile))
	if err != nil || len(b) != 4 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	return binary.BigEndian.Uint32(b)
}
