package service

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/roster"
)

// TestLate: a change that runs out of time below the write quorum says so, names who
// is away, and that the same again goes on; with all members there it says the rest.
func TestLate(t *testing.T) {
	p := startPool(t, 3)
	s := p.services[0]
	path, _ := randomFile(t, 2<<20, 5)
	kept, err := s.Put(context.Background(), api.PutParams{Path: path, Size: -1}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.late("put", 3, 0, context.DeadlineExceeded); api.AsError("put", err).Code != api.Deadline || !strings.Contains(err.Error(), "same put again") ||
		!strings.Contains(err.Error(), "3 of 3 members seem within reach") {
		t.Errorf("with all there: %v", err)
	}
	if err := s.late("put", 3, 0, context.Canceled); err != context.Canceled {
		t.Errorf("another error: %v", err)
	}
	for _, n := range p.nodes[1:] {
		n.Close()
	}
	until(t, "the others to be taken for gone", func() bool {
		v, err := p.nodes[0].View()
		return err == nil && alone(v)
	})
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("neap"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, put := s.Put(soon(), api.PutParams{Path: other, Size: -1}, nil, quiet)
	_, rm := s.Rm(soon(), api.LinkRequest{Link: kept.Link})
	_, raw := s.DHTPut(soon(), api.DHTPutRequest{Raw: []byte("neap")})
	for op, err := range map[string]error{"put": put, "rm": rm, "dht put": raw} {
		if err == nil {
			t.Errorf("%s: done by one of three", op)
			continue
		}
		e := api.AsError(op, err)
		if e.Code != api.NoQuorum || e.Exit() != api.ExitUnavailable || e.Detail == nil || len(e.Detail.Nodes) != 2 || !e.Retry {
			t.Errorf("%s: %+v", op, e)
		}
		for _, want := range []string{"it takes 2 members within reach, this node included, and finds 1 of 3", "n1", "n2", "nothing that was acknowledged is lost", "the same " + op + " again goes on from there"} {
			if !strings.Contains(e.Message, want) {
				t.Errorf("%s: %q lacks %q", op, e.Message, want)
			}
		}
	}
}

// TestJustGone: members whose connection has ended are named before the overlay takes
// them for gone.
func TestJustGone(t *testing.T) {
	self, here, gone, left := id.FromPrefix("1"), id.FromPrefix("2"), id.FromPrefix("3"), id.FromPrefix("4")
	v := node.View{Handle: &id.Handle{GUID: self}, Members: 3, Near: map[id.GUID]bool{here: true, gone: true}}
	for _, g := range []id.GUID{self, here, gone} {
		v.Roster = append(v.Roster, roster.Info{GUID: g, Status: roster.Ready})
	}
	v.Roster = append(v.Roster, roster.Info{GUID: left, Status: roster.Left})
	e := lateOf("put", v, map[id.GUID]time.Duration{here: 0}, 2)
	if e.Code != api.Deadline || e.Detail == nil || len(e.Detail.Nodes) != 1 || e.Detail.Nodes[0] != gone ||
		!strings.Contains(e.Message, "it takes 2 of 3 members, and this node has no connection with "+gone.Short()) {
		t.Errorf("%+v", e)
	}
}

// TestNamesakes: a second file of a name says that there is an older one, its removal
// by name alone is refused with a command for each, and that command works.
func TestNamesakes(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 1)
	s := p.services[0]
	path, _ := randomFile(t, 10, 1)
	first, err := s.Put(ctx, api.PutParams{Path: path, Size: -1, Name: "x"}, nil, quiet)
	if err != nil || first.Older != nil {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := s.Put(ctx, api.PutParams{Path: path, Size: -1, Name: "x"}, nil, quiet)
	if err != nil || len(second.Older) != 1 || second.Older[0] != first.GUID {
		t.Fatalf("older than the second: %v, %v", second.Older, err)
	}
	_, err = s.Rm(ctx, api.LinkRequest{Link: "x"})
	if err == nil {
		t.Fatal("one of two was removed")
	}
	e := api.AsError("rm", err)
	if e.Code != api.BadRequest || e.Detail == nil {
		t.Fatalf("%+v", e)
	}
	lines := strings.Split(e.Detail.Text, "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	for i, g := range []id.GUID{first.GUID, second.GUID} {
		command, note, _ := strings.Cut(lines[i], "  # ")
		if command != "atoll rm "+g.Short() || !strings.HasSuffix(note, ", 10 bytes") {
			t.Errorf("%q", lines[i])
		}
	}
	if _, err := s.Rm(ctx, api.LinkRequest{Link: first.GUID.Short()}); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Ls(ctx, ""); err != nil || len(left.Files) != 1 || left.Files[0].GUID != second.GUID {
		t.Errorf("left: %+v, %v", left, err)
	}
}

// TestGetOfRemovedLeavesNoPart: what an earlier get has left of a file that was
// removed goes when the next one hears of it.
func TestGetOfRemovedLeavesNoPart(t *testing.T) {
	ctx := context.Background()
	s := startPool(t, 1).services[0]
	path, _ := randomFile(t, 10, 1)
	put, err := s.Put(ctx, api.PutParams{Path: path, Size: -1}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rm(ctx, api.LinkRequest{Link: put.Link}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string]string{"x.atoll-part": "bytes", "x.atoll-map": "ATM1" + string(put.GUID[:])} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Get(ctx, api.GetRequest{Link: put.Link, Out: filepath.Join(dir, "x")}, nil, quiet)
	if e := api.AsError("get", err); e.Code != api.Removed || strings.Contains(e.Message, "get:") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
