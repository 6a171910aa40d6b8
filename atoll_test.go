package atoll_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll"
)

// TestErrorsHaveCodes: what goes wrong has a code of docs/guide/trouble.md, and
// leaves the node working.
func TestErrorsHaveCodes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := atoll.Options{Dir: filepath.Join(t.TempDir(), "a"), Loopback: true, Limit: 256 << 20}
	n, err := atoll.Create(ctx, o, atoll.Pool{Name: "codes"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	link, err := n.Put(ctx, strings.NewReader("text"), atoll.PutOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	invite, err := n.Invite(ctx, atoll.InviteOptions{Uses: 2, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	other := o
	other.Dir = filepath.Join(t.TempDir(), "b")
	mistyped := []byte(invite)
	mistyped[40] ^= 1
	absent := atoll.GUID{7}
	for want, do := range map[string]func() error{
		"dir_in_use":  func() error { _, err := atoll.Open(ctx, o); return err },
		"bad_dir":     func() error { _, err := atoll.Open(ctx, other); return err },
		"bad_invite":  func() error { _, err := atoll.Join(ctx, other, string(mistyped)); return err },
		"bad_link":    func() error { _, err := atoll.ParseLink(link.Text()[1:]); return err },
		"forbidden":   func() error { _, err := n.Get(ctx, link.ForVerify(), io.Discard); return err },
		"not_found":   func() error { _, err := n.GetBlock(ctx, absent); return err },
		"bad_request": func() error { _, err := n.Put(ctx, strings.NewReader(""), atoll.PutOptions{K: 1, W: 2}); return err },
		"cas": func() error {
			seven := uint64(7)
			_, _, err := n.PutSigned(ctx, atoll.Signed{Value: []byte("v")}, &seven)
			return err
		},
		"cancelled": func() error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, err := n.Get(ctx, link, io.Discard)
			return err
		},
		"": func() error { _, err := n.Get(ctx, link, io.Discard); return err },
	} {
		if err := do(); atoll.Code(err) != want {
			t.Errorf("code %q, want %q: %v", atoll.Code(err), want, err)
		}
	}
	st, err := n.Status(ctx)
	if err != nil || st.Blocks != 1 || st.Members != 1 || st.State != "ready" || st.Pool != "codes" {
		t.Errorf("status: %+v, %v", st, err)
	}
	if n.Err() != nil {
		t.Error(n.Err())
	}
	if atoll.Code(errors.New("else")) != "internal" {
		t.Error("an error of others has a code")
	}
	if s := link.String(); strings.Contains(s, link.Text()[20:]) {
		t.Errorf("a link prints as itself: %s", s)
	}
}

// TestWrongArguments: what cannot be meant is a bad request, and nobody is asked;
// after its end a node says that it does not run.
func TestWrongArguments(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := atoll.Options{Dir: filepath.Join(t.TempDir(), "a"), Loopback: true, Limit: 256 << 20}
	n, err := atoll.Create(ctx, o, atoll.Pool{Name: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	invite := func(io atoll.InviteOptions) error { _, err := n.Invite(ctx, io); return err }
	signed := func(v atoll.Signed) error { _, _, err := n.PutSigned(ctx, v, nil); return err }
	create := func(o atoll.Options, k int) error { _, err := atoll.Create(ctx, o, atoll.Pool{K: k}); return err }
	empty := filepath.Join(t.TempDir(), "b")
	for what, err := range map[string]error{
		"salt":      signed(atoll.Signed{Salt: make([]byte, 65)}),
		"value":     signed(atoll.Signed{Value: make([]byte, 64<<10+1)}),
		"remove":    n.RemoveSigned(ctx, atoll.GUID{1}, make([]byte, 65)),
		"uses":      invite(atoll.InviteOptions{Uses: -1}),
		"long":      invite(atoll.InviteOptions{TTL: 401 * 24 * time.Hour}),
		"past":      invite(atoll.InviteOptions{TTL: -time.Second}),
		"copies":    create(atoll.Options{Dir: empty, Loopback: true}, 9),
		"no folder": create(atoll.Options{Loopback: true}, 3),
		"limit":     create(atoll.Options{Dir: empty, Loopback: true, Limit: 1 << 20}, 3),
		"address":   create(atoll.Options{Dir: empty, Listen: []string{"here"}}, 3),
	} {
		if atoll.Code(err) != "bad_request" {
			t.Errorf("%s: code %q: %v", what, atoll.Code(err), err)
		}
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("a folder was made")
	}
	if _, err := atoll.ParseGUID("65a1fc"); atoll.Code(err) != "bad_request" {
		t.Errorf("six digits: code %q: %v", atoll.Code(err), err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.PutBlock(ctx, nil); atoll.Code(err) != "not_running" {
		t.Errorf("after Close: code %q: %v", atoll.Code(err), err)
	}
}

// TestEndsOfThings: a file put by its path, a GUID as text, and the end of a signed
// block.
func TestEndsOfThings(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	n, err := atoll.Create(ctx, atoll.Options{Dir: filepath.Join(dir, "a"), Loopback: true, Limit: 256 << 20}, atoll.Pool{Name: "ends"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	path := filepath.Join(dir, "tides.txt")
	if err := os.WriteFile(path, []byte("high water 04:12"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, err := n.PutFile(ctx, path, atoll.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if f, err := n.Get(ctx, link, &got); err != nil || f.Name != "tides.txt" || got.String() != "high water 04:12" {
		t.Errorf("%+v, %q, %v", f, got.String(), err)
	}
	g, _, err := n.PutSigned(ctx, atoll.Signed{Salt: []byte("tide"), Value: []byte("high")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := atoll.ParseGUID(g.String()); err != nil || again != g {
		t.Errorf("%s read back: %s, %v", g, again, err)
	}
	if _, err := atoll.ParseGUID(g.String()[1:]); err == nil {
		t.Error("63 digits are a GUID")
	}
	if err := n.RemoveSigned(ctx, g, []byte("tide")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.GetSigned(ctx, g); atoll.Code(err) != "removed" {
		t.Errorf("a signed block that was removed: %v", err)
	}
	select {
	case <-n.Failed():
		t.Error(n.Err())
	default:
	}
}
