package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atoll.example/atoll/internal/ident"
)

// TestFailedJoin: a folder in which a join failed does not found a pool, nor does
// one that was made for it. The same invite, burnt by an answer that was lost,
// still admits the folder's keys, and nobody else; another invite does too.
func TestFailedJoin(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 1)
	invite, _, err := p.nodes[0].Invite(InviteTerms{})
	if err != nil {
		t.Fatal(err)
	}
	foundersCfg := p.nodes[0].cfg
	p.nodes[0].Close()

	dir := t.TempDir()
	first, second, third := testConfig(dir, "first"), testConfig(dir, "second"), testConfig(dir, "third")
	for _, cfg := range []Config{first, second} {
		if _, err := Join(ctx, cfg, invite); !errors.Is(err, ident.ErrUnavailable) {
			t.Fatalf("join while nobody is there: %v", err)
		} else if !strings.HasPrefix(err.Error(), "no member named in the invite answers: 127.0.0.1:") || !strings.Contains(err.Error(), "(nothing listens there); check") {
			t.Fatalf("words of a failed join: %v", err)
		}
		if _, err := Open(ctx, cfg); !errors.Is(err, ErrPending) {
			t.Fatalf("open after a failed join: %v", err)
		}
		if _, err := Create(ctx, cfg, PoolParams{K: 3, Overlay: ident.Pastry}); !errors.Is(err, ErrPending) {
			t.Fatalf("create after a failed join: %v", err)
		}
	}

	if p.nodes[0], err = Open(ctx, foundersCfg); err != nil {
		t.Fatal(err)
	}
	burn(t, p.nodes[0], first, invite)
	if _, err := Join(ctx, second, invite); !errors.Is(err, ident.ErrInviteUsed) {
		t.Fatalf("a used invite admits another folder: %v", err)
	}
	again, _, err := p.nodes[0].Invite(InviteTerms{})
	if err != nil {
		t.Fatal(err)
	}
	for cfg, invite := range map[*Config]string{&first: invite, &second: again} {
		n, err := Join(ctx, *cfg, invite)
		if err != nil {
			t.Fatalf("join of %s: %v", cfg.Name, err)
		}
		if n.home.has(pendingFile) {
			t.Errorf("%s is a member, and its join still pending", cfg.Name)
		}
		n.Close()
	}
	if _, err := Examine(ctx, third.Dir, false); err != nil {
		t.Fatal(err)
	}
	h, err := openHome(third.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if h.has(nodeKeyFile) {
		t.Error("looking at an empty folder made keys in it")
	}
}

// burn has the issuer answer the join of a folder, and loses the answer.
func burn(t *testing.T, issuer *Node, cfg Config, invite string) {
	t.Helper()
	h, err := openHome(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	who, err := h.keys()
	if err != nil {
		t.Fatal(err)
	}
	v, err := ident.ParseInvite(invite)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ident.NewJoinRequest(v, ident.Subject{
		Node: who.node.Public(), Owner: who.owner.Public(), Name: cfg.Name, Domain: cfg.Domain,
	}, issuer.cfg.Wall())
	if err != nil {
		t.Fatal(err)
	}
	_, err = issuer.issue(func(i *ident.Issuer) (ident.Chain, bool, error) { return i.Issue(q, issuer.cfg.Wall()) })
	if err != nil {
		t.Fatal(err)
	}
}

// TestFoundAgainByInvite: a pool whose members have all moved comes together when
// one of them joins once more by an invite of another.
func TestFoundAgainByInvite(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 2)
	for i, n := range p.nodes {
		n.Close()
		lost := []string{portFile, tableFile}
		for _, name := range lost[:1+i] { // one of them remembers that there was a ring
			if err := n.home.remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := p.nodes[1].tr.Addrs()
	var err error
	for i, n := range p.nodes {
		if p.nodes[i], err = Open(ctx, n.cfg); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Equal(old, p.nodes[1].tr.Addrs()) {
		t.Fatal("it has not moved")
	}
	if v, err := p.nodes[1].View(); err != nil || v.State != "joining" {
		t.Fatalf("%s, %v: it found the other without being told", v.State, err)
	}
	invite, _, err := p.nodes[0].Invite(InviteTerms{})
	if err != nil {
		t.Fatal(err)
	}
	p.nodes[1].Close()
	if p.nodes[1], err = Join(ctx, p.nodes[1].cfg, invite); err != nil {
		t.Fatal(err)
	}
	for i, n := range p.nodes {
		if err := n.Ready(ctx); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
}

// TestInviteNotKept: while the issuer cannot write what an invite was used for,
// nobody gets in by it, nor at the second try: after a crash it would be good again.
func TestInviteNotKept(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 1)
	invite, _, err := p.nodes[0].Invite(InviteTerms{})
	if err != nil {
		t.Fatal(err)
	}
	inTheWay := p.nodes[0].home.path(inviteFile + ".tmp")
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inTheWay, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t.TempDir(), "late")
	for range 2 {
		n, err := Join(ctx, cfg, invite)
		if err == nil {
			n.Close()
		}
		if !errors.Is(err, ident.ErrInternal) || !strings.Contains(err.Error(), "could not be kept") {
			t.Fatalf("join: %v", err)
		}
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	n, err := Join(ctx, cfg, invite)
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}
