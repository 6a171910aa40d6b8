package node

import (
	"errors"
	"os"
	"strings"
	"testing"

	"atoll.example/atoll/internal/ident"
)

// TestRevokedIsTold: a member that runs when it is revoked stops and says why, and
// so does one that was down and starts again: it asks those who refuse it.
func TestRevokedIsTold(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 4)
	down, running := p.nodes[2], p.nodes[3]
	down.Close()
	for _, n := range []*Node{down, running} {
		if err := p.nodes[0].Revoke(n.GUID(), "laptop stolen"); err != nil {
			t.Fatal(err)
		}
	}
	told := func(err error) {
		t.Helper()
		if !errors.Is(err, ident.ErrRevoked) || !strings.Contains(err.Error(), "root key on 20") || !strings.Contains(err.Error(), "laptop stolen") {
			t.Fatalf("a revoked node was told: %v", err)
		}
	}
	select {
	case <-running.Failed():
		told(running.Failure())
	case <-ctx.Done():
		t.Fatal("a running node did not hear that it was revoked")
	}
	p.until(ctx, "the other to know of both", func() bool {
		return p.nodes[1].barred(down.chain()) != nil && p.nodes[1].barred(running.chain()) != nil
	})
	if b, err := down.home.read(rosterFile); err != nil || strings.Contains(string(b), "laptop stolen") {
		t.Fatalf("the node that was down knows already: %v", err)
	}
	again, err := Open(ctx, down.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.nodes[2] = again
	told(again.Ready(ctx))
	again.Close()
	if _, err := Open(ctx, down.cfg); err == nil {
		t.Fatal("it started although it knows by now")
	} else {
		told(err)
	}
	found, err := Examine(ctx, down.cfg.Dir, false)
	if err != nil || len(found) != 1 || found[0].OK || !strings.Contains(found[0].Detail, "laptop stolen") {
		t.Fatalf("doctor of a revoked node: %+v, %v", found, err)
	}
}

// TestFalseRefusal: a member that refuses a node without grounds stops it from
// nothing.
func TestFalseRefusal(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	victim, liar := p.nodes[1], p.nodes[2]
	if err := victim.askStanding(liar.self); err != nil {
		t.Fatal(err)
	}
	other := ident.EncodeQuestion(&ident.Standing{Chain: liar.chain()})
	if _, _, err := victim.tr.Ask(ctx, p.nodes[0].self, other); err == nil || !strings.Contains(err.Error(), ident.ErrForbidden.Error()) {
		t.Fatalf("asked for another's standing: %v", err)
	}
	select {
	case <-victim.Failed():
		t.Fatalf("stopped without grounds: %v", victim.Failure())
	default:
	}
	if _, err := os.Stat(victim.home.path(memberFile)); err != nil {
		t.Fatal(err)
	}
}
