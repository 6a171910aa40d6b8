package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/roster"
)

// TestRevokedIsOnDisk: an acknowledged revocation survives a crash of the only one
// who knows of it.
func TestRevokedIsOnDisk(t *testing.T) {
	p := startPool(t, 2)
	target := p.nodes[1].GUID()
	p.nodes[1].Close()
	if err := p.nodes[0].Revoke(target, "laptop stolen"); err != nil {
		t.Fatal(err)
	}
	b, err := p.nodes[0].home.read(rosterFile)
	if err != nil {
		t.Fatal(err)
	}
	r := roster.New(roster.Config{Self: p.nodes[0].GUID()}, p.nodes[0].who.pool)
	if err := r.Restore(b); err != nil {
		t.Fatal(err)
	}
	if m, ok := r.Info(target); !ok || m.Status != roster.WasRevoked {
		t.Errorf("on the disk it is %q", m.Status)
	}
}

func TestSaverFlush(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	s := newSaver(&home{dir: dir}, slog.New(slog.DiscardHandler))
	s.save("a", []byte("1"))
	if err := s.flush("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is gone: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.save("a", []byte("2"))
	s.save("a", []byte("3"))
	if err := s.flush("a"); err != nil {
		t.Errorf("the folder is back: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a")); string(b) != "3" {
		t.Errorf("%q, %v", b, err)
	}
	s.close()
	s.save("a", []byte("4"))
	if err := s.flush("a"); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v", err)
	}
}
