package service

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/store"
)

// TestNoRoom: a store that takes no more says whether its limit or other files
// are the cause.
func TestNoRoom(t *testing.T) {
	for _, c := range []struct {
		name    string
		u       store.Usage
		want    string // empty: nothing
		foreign bool
	}{
		{"half full", store.Usage{Limit: 1000, Used: 500, Reserve: 100, Free: 400}, "", false},
		{"nearly full by others", store.Usage{Limit: 1000, Used: 500, Reserve: 100, Free: 1}, "", true},
		{"full", store.Usage{Limit: 1000, Used: 950, Reserve: 100}, "raise --limit", false},
		{"full by others", store.Usage{Limit: 1000, Used: 76, Reserve: 100}, "its file system has no more free", true},
	} {
		if w := noRoom(c.u); (w == "") != (c.want == "") || !strings.Contains(w, c.want) {
			t.Errorf("%s: %q, want %q", c.name, w, c.want)
		}
		// A lower limit makes no room where others have taken it.
		if got := checkRoom(c.u, ""); !got.OK && strings.Contains(got.Fix, "lower --limit") || got.OK && got.Fix != "" && !c.foreign {
			t.Errorf("%s: doctor: %+v", c.name, got)
		}
		if got := strangers(c.u) != ""; got != c.foreign {
			t.Errorf("%s: filled by others: %t", c.name, got)
		}
		var f fillRate
		if in := f.fullIn(c.u.Used, c.u.Free); (in != nil) != (c.u.Free == 0) || in != nil && *in != 0 {
			t.Errorf("%s: full in %v", c.name, in)
		}
	}
}

// TestOverGranted: a limit above what the file system has is told, with what there
// is, and to the doctor no fault as long as there is room.
func TestOverGranted(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		u    store.Usage
		want string
		room int64
	}{
		{store.Usage{Limit: 1000 * gib, Used: 10 * gib, Reserve: 50 * gib, Free: 50 * gib}, "limit is 1000.0 GiB, but its disk has only 100.0 GiB free, 50.0 GiB of them kept in reserve: it takes at most 50.0 GiB more", 110 * gib},
		{store.Usage{Limit: 100 * gib, Used: 10 * gib, Reserve: 5 * gib, Free: 85 * gib}, "", 100 * gib},
		{store.Usage{Limit: 100 * gib, Used: 10 * gib, Reserve: 5 * gib}, "", 15 * gib}, // noRoom tells of it
	} {
		if got := overGranted(c.u); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c.u, got)
		}
		if got := room(c.u); got != c.room {
			t.Errorf("%+v: room for %d, want %d", c.u, got, c.room)
		}
	}
	ctx := context.Background()
	n, err := node.Create(ctx, node.Config{
		Dir: filepath.Join(t.TempDir(), "n"), Name: "n", Loopback: true, NoQUIC: true, NoRelay: true, Preset: node.Local, Limit: 1 << 60,
	}, node.PoolParams{Name: "test", K: 3, Overlay: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); n.Close() })
	// Such a limit is more than any disk has; the reserve is that of what it has.
	if c := checkDisk(ctx, s, node.View{}); !c.OK || !strings.Contains(c.Detail, "it takes at most") || !strings.Contains(c.Fix, "lower --limit") {
		t.Errorf("doctor: %+v", c)
	}
	if st, err := s.Status(ctx); err != nil || !strings.Contains(strings.Join(st.Warnings, "; "), "it takes at most") || OverGranted(n) == "" {
		t.Errorf("status: %q, %v", st.Warnings, err)
	}
}

// TestRottenDisk: a node whose disk gives back wrong bytes says so in its log, in
// its status and to the doctor.
func TestRottenDisk(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 3)
	path, _ := randomFile(t, 5<<20, 3)
	put, err := p.services[0].Put(ctx, api.PutParams{Path: path, Size: -1}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "all blocks at k", func() bool {
		st, err := p.services[0].Status(ctx)
		return err == nil && st.Safety.Full == st.Safety.Blocks
	})
	var log apitest.Output
	cfg := node.Config{
		Dir: p.nodes[2].Dir(), Loopback: true, NoQUIC: true, NoRelay: true, Preset: node.Local,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	_ = p.services[2].Close()
	p.nodes[2].Close()
	rotten := 0
	err = filepath.Walk(filepath.Join(cfg.Dir, "store", "blocks"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			b[len(b)/2] ^= 1
			rotten++
			err = os.WriteFile(path, b, 0o600)
		}
		return err
	})
	if err != nil || rotten == 0 {
		t.Fatalf("%d block files, %v", rotten, err)
	}
	if p.nodes[2], err = node.Open(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if p.services[2], err = Open(p.nodes[2], nil); err != nil {
		t.Fatal(err)
	}
	s := p.services[2]
	if before := checkDisk(ctx, s, node.View{}); !before.OK {
		t.Fatalf("doctor before: %+v", before)
	}
	until(t, "the damage to be found", func() bool {
		_, err := s.Verify(ctx, api.VerifyRequest{Link: put.Link, Deep: true}, quiet)
		n, since := p.nodes[2].BadBlocks()
		return err == nil && n > 0 && time.Since(since) < time.Minute
	})
	st, err := s.Status(ctx)
	if w := strings.Join(st.Warnings, "\n"); err != nil || !strings.Contains(w, "on this node's disk failed") || !strings.Contains(w, "smartctl") {
		t.Errorf("status: %q, %v", w, err)
	}
	res, err := s.Doctor(ctx, api.DoctorRequest{Checks: []string{"disk"}})
	if err != nil || res.Results[0].OK || res.Results[0].Level != "fail" || !strings.Contains(res.Results[0].Detail, "failed their check since") {
		t.Errorf("doctor: %+v, %v", res, err)
	}
	if !strings.Contains(log.String(), "check the disk") {
		t.Errorf("nothing of it in the log: %s", log.String())
	}
}

// TestRevokeAsks: what cannot be is refused before any count is taken.
func TestRevokeAsks(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 3)
	target := api.RevokeRequest{GUID: p.nodes[2].GUID(), DryRun: true}
	if _, err := p.services[1].Revoke(ctx, target); err == nil || api.AsError("revoke", err).Code != api.Forbidden {
		t.Errorf("a member asks what a revocation would do: %v", err)
	}
	if _, err := p.services[0].Revoke(ctx, target); err != nil {
		t.Fatal(err)
	}
	target.DryRun = false
	if _, err := p.services[0].Revoke(ctx, target); err != nil {
		t.Fatal(err)
	}
	if _, err := p.services[0].Revoke(ctx, target); err == nil || !strings.Contains(err.Error(), "revoked already") {
		t.Errorf("revoked twice: %v", err)
	}
}

// TestLastMemberStays: who leaves hands over what it holds, and the last has nobody to hand it to.
func TestLastMemberStays(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 1)
	s := p.services[0]
	if st, err := s.Status(ctx); err != nil || !strings.Contains(strings.Join(st.Warnings, "; "), "has 1 member: add members") {
		t.Errorf("warned of %q, %v", st.Warnings, err)
	}
	path, _ := randomFile(t, 100, 1)
	put, err := s.Put(ctx, api.PutParams{Path: path, Size: -1}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Leave(ctx, api.LeaveRequest{}, quiet); err == nil || !strings.Contains(err.Error(), "last member of the pool") {
		t.Fatalf("left with the only copy: %v", err)
	}
	if _, err := s.Rm(ctx, api.LinkRequest{Link: put.Link}); err != nil {
		t.Fatalf("a member that may not leave serves no more: %v", err)
	}
	if _, err := s.Leave(ctx, api.LeaveRequest{}, quiet); err != nil {
		t.Fatalf("with nothing to hand over: %v", err)
	}
}

// TestKeyGone: a key that vanishes while the node runs is told before it stops, and
// no backup is made without it; so is a list of files that was begun anew.
func TestKeyGone(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 1)
	s, key := p.services[0], filepath.Join(p.nodes[0].Dir(), "owner.key")
	folder := func() api.Check {
		res, err := s.Doctor(ctx, api.DoctorRequest{Checks: []string{"folder"}})
		if err != nil {
			t.Fatal(err)
		}
		return res.Results[0]
	}
	if c := folder(); c.Level != "ok" {
		t.Fatalf("before: %+v", c)
	}
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if c := folder(); c.Level != "fail" || !strings.Contains(c.Detail, "owner.key is missing") {
		t.Errorf("doctor: %+v", c)
	}
	if _, err := s.Doctor(ctx, api.DoctorRequest{Backup: filepath.Join(t.TempDir(), "b")}); err == nil || api.AsError("doctor", err).Code != api.BadDir {
		t.Errorf("backup without a key: %v", err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	p.nodes[0].Close()
	if err := os.Remove(filepath.Join(p.nodes[0].Dir(), "catalogue")); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.nodes[0], err = node.Open(ctx, node.Config{Dir: p.nodes[0].Dir(), Loopback: true, NoQUIC: true, NoRelay: true, Preset: node.Local}); err != nil {
		t.Fatal(err)
	}
	if p.services[0], err = Open(p.nodes[0], nil); err != nil {
		t.Fatal(err)
	}
	s = p.services[0]
	if c := folder(); c.Level != "warn" || !strings.Contains(c.Detail, "catalogue was missing") {
		t.Errorf("doctor: %+v", c)
	}
}

// TestLastAdminStays: an admin leaves only where another answers, or where told that
// it is the last; what is left of the pool says that it has none.
func TestLastAdminStays(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 2)
	first, member := p.services[0], p.services[1]
	if _, err := first.Leave(ctx, api.LeaveRequest{}, quiet); err == nil || !strings.Contains(err.Error(), "only admin") || !strings.Contains(err.Error(), "atoll invite --role admin") {
		t.Fatalf("the only admin left: %v", err)
	}
	text, _, err := p.nodes[0].Invite(node.InviteTerms{Role: ident.Admin})
	if err != nil {
		t.Fatal(err)
	}
	second, err := node.Join(ctx, node.Config{
		Dir: filepath.Join(t.TempDir(), "second"), Name: "second", Loopback: true, NoQUIC: true, NoRelay: true, Preset: node.Local, Limit: 1 << 30,
	}, text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	s, err := Open(second, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := second.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, "the first admin to hear of the second", func() bool { return first.mayLeave(ctx, false) == nil })
	if _, err := first.Leave(ctx, api.LeaveRequest{}, quiet); err != nil {
		t.Fatalf("with another admin there: %v", err)
	}
	until(t, "the second admin to hear of it", func() bool { v, err := second.View(); return err == nil && v.Admins == 1 })
	if _, err := s.Leave(ctx, api.LeaveRequest{LastAdmin: true}, quiet); err != nil {
		t.Fatalf("told to: %v", err)
	}
	until(t, "the member to hear of it", func() bool { v, err := p.nodes[1].View(); return err == nil && v.Admins == 0 })
	if _, err := member.Invite(ctx, api.InviteRequest{}); err == nil || !strings.Contains(err.Error(), "no admin any more") || api.AsError("invite", err).Code != api.Forbidden {
		t.Errorf("invite: %v", err)
	}
	if res, err := member.Doctor(ctx, api.DoctorRequest{Checks: []string{"admins"}}); err != nil || res.Results[0].OK || !strings.Contains(res.Results[0].Detail, "no admin any more") {
		t.Errorf("doctor: %+v, %v", res, err)
	}
}

func TestOffence(t *testing.T) {
	for want, o := range map[string]stack.Offender{
		`b sent what no honest member sends (frame that does not decode; refused once) in the last hour: see to that machine, or put it out with "atoll revoke 65a1fc00"`: {
			Peer: id.FromPrefix("65a1fc"), Bad: 1, What: "frame that does not decode",
		},
		`b sent what no honest member sends (bytes; refused 12 times) and sent more than is allowed (7 above 200 messages a second, dropped) in the last hour, and is shut out for some minutes: see to that machine, or put it out with "atoll revoke 65a1fc00"`: {
			Peer: id.FromPrefix("65a1fc"), Bad: 12, What: "bytes", Flood: 7, Shut: true,
		},
	} {
		if got := offence("b", o); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// TestOffenceOfRevoked: whoever was put out, as the warning says, is not told of on.
func TestOffenceOfRevoked(t *testing.T) {
	g := id.FromPrefix("65a1fc")
	for status, want := range map[roster.Status]int{roster.Ready: 1, roster.WasRevoked: 0, roster.Left: 0} {
		v := node.View{
			Roster:    []roster.Info{{GUID: g, Status: status}},
			Offenders: []stack.Offender{{Peer: g, Bad: 1, What: "bytes"}},
		}
		if got := offences(v); len(got) != want {
			t.Errorf("%v: %q", status, got)
		}
	}
}
