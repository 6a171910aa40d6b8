package files

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSweep(t *testing.T) {
	const chunk = 256
	p, dir := newPool(), t.TempDir()
	now := time.Now()
	c := open(t, p, dir, chunkOf(chunk), func(c *Config) { c.Now = func() time.Time { return now } })
	kept := put(t, c, data(1, chunk*100))
	// Shares all chunks with the file that stays, and is never finished.
	cutAfter(p, "put", 90, nil)
	both := append(data(1, chunk*100), data(2, chunk*100)...)
	if _, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(both)}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	cutAfter(p, "put", 150, nil)
	if _, err := c.PutFile(t.Context(), PutRequest{Path: writeFile(t, "x", both)}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	if err := os.WriteFile(filepath.Join(dir, "uploads", "torn"), []byte("H"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Sweep(t.Context()); err != nil || s != (Swept{}) || len(uploads(t, dir)) != 3 {
		t.Fatalf("too early: %+v, %v", s, err)
	}
	now = now.Add(SweepAfter + time.Minute)
	// The first try meets a pool that is down.
	p.onAny = func(op string) error {
		if op == "remove" && p.calls[op] > 50 {
			return refuse("no_quorum")
		}
		return nil
	}
	if _, err := c.Sweep(t.Context()); !hasCode(err, "no_quorum") {
		t.Fatal(err)
	}
	p.reset()
	// What the sweep has begun on is not taken up any more.
	if len(uploads(t, dir)) == 0 {
		t.Fatal("journals gone before their claims")
	}
	s, err := c.Sweep(t.Context())
	if err != nil || s.Uploads == 0 || len(uploads(t, dir)) != 0 {
		t.Fatalf("%+v, %v, %v", s, err, uploads(t, dir))
	}
	if int64(len(p.guids())) != kept.Blocks {
		t.Errorf("%d blocks left, the file has %d", len(p.guids()), kept.Blocks)
	}
	if got := get(t, c, kept.Link); !bytes.Equal(got, data(1, chunk*100)) {
		t.Errorf("got %s", describe(got))
	}
}

func TestDeadJournalIsNotResumed(t *testing.T) {
	const chunk = 256
	path := writeFile(t, "x", data(1, chunk*100))
	p, dir := newPool(), t.TempDir()
	now := time.Now()
	c := open(t, p, dir, chunkOf(chunk), func(c *Config) { c.Now = func() time.Time { return now } })
	cutAfter(p, "put", 50, nil)
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	now = now.Add(SweepAfter + time.Minute)
	p.onAny = func(op string) error {
		if op == "remove" && p.calls[op] > 20 {
			return refuse("no_quorum")
		}
		return nil
	}
	if _, err := c.Sweep(t.Context()); err == nil {
		t.Fatal("swept")
	}
	p.reset()
	res, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if err != nil || res.Resumed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, c, res.Link); !bytes.Equal(got, data(1, chunk*100)) {
		t.Fatalf("got %s", describe(got))
	}
}
