package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// cutAfter ends a transfer at the n-th call of op, either as Ctrl-C does, after
// the call took effect, or as a refusal that no retry helps.
func cutAfter(p *pool, op string, n int, cancel context.CancelFunc) {
	p.onAny = func(o string) error {
		if o == op && p.calls[op] >= n {
			if cancel != nil {
				cancel()
				return nil
			}
			return errCut
		}
		return nil
	}
}

// A put of a path cut short at any of 20 points goes on where it was: what was
// acknowledged is not sent again, the file is whole, and no claim is left over.
func TestPutResumes(t *testing.T) {
	const chunk, chunks = 256, 600
	want := data(1, chunk*chunks-7)
	path := writeFile(t, "big", want)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 20 {
		at := 1 + r.IntN(chunks)
		p, dir := newPool(), t.TempDir()
		c := open(t, p, dir, chunkOf(chunk))
		ctx, cancel := context.WithCancel(t.Context())
		if i%2 == 0 {
			cutAfter(p, "put", at, cancel)
		} else {
			cutAfter(p, "put", at, nil)
		}
		_, err := c.PutFile(ctx, PutRequest{Path: path})
		cancel()
		if err == nil || i%2 == 0 && !errors.Is(err, context.Canceled) || i%2 == 1 && !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		if len(uploads(t, dir)) != 1 {
			t.Fatalf("cut at %d: %d journals", at, len(uploads(t, dir)))
		}
		journal, err := readWhole(uploads(t, dir)[0])
		if err != nil {
			t.Fatal(err)
		}
		acked := len(journal.acked)
		if acked < at-40 {
			t.Errorf("cut at %d: only %d chunks acknowledged", at, acked)
		}
		_ = c.Close()

		p.reset()
		c = open(t, p, dir, chunkOf(chunk)) // as after a restart
		res, err := c.PutFile(t.Context(), PutRequest{Path: path})
		if err != nil {
			t.Fatalf("cut at %d, resumed: %v", at, err)
		}
		if res.NewBlocks+res.Resumed > res.Blocks {
			t.Errorf("cut at %d: of %d blocks %d are new and %d from before", at, res.Blocks, res.NewBlocks, res.Resumed)
		}
		if res.Resumed != int64(acked) || p.count("put") > chunks-acked+4 {
			t.Errorf("cut at %d: %d resumed, %d acknowledged, %d puts", at, res.Resumed, acked, p.count("put"))
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: got %s", at, describe(got))
		}
		if len(uploads(t, dir)) != 0 {
			t.Errorf("journal left")
		}
		if n := p.claimCount(journal.head.Claim); int64(n) != res.Blocks {
			t.Errorf("cut at %d: %d claims for %d blocks", at, n, res.Blocks)
		}
		if _, err := c.Remove(t.Context(), res.Link, nil); err != nil || len(p.guids()) != 0 {
			t.Errorf("cut at %d: %d blocks left after rm, %v", at, len(p.guids()), err)
		}
	}
}

// A put repeated while the interrupted one still ends waits for its journal, and
// does not send everything under another claim.
func TestPutWaitsForTheInterruptedOne(t *testing.T) {
	const chunk = 256
	path := writeFile(t, "big", data(1, 8*chunk))
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	under, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.wait = func(_ context.Context, op string) error {
		if op == "put" {
			once.Do(func() { close(under) })
			<-ended
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error, 1)
	go func() {
		_, err := c.PutFile(ctx, PutRequest{Path: path})
		errs <- err
	}()
	<-under
	journal := uploads(t, dir)
	cancel()
	time.AfterFunc(partPatience/8, func() { close(ended) })
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path, Progress: func(Progress) {
		if now := uploads(t, dir); len(now) > 1 || len(now) == 1 && now[0] != journal[0] {
			t.Errorf("journals %q, want %q alone", now, journal)
		}
	}}); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Fatalf("the interrupted put: %v", err)
	}
	if n := len(uploads(t, dir)); n != 0 {
		t.Errorf("%d journals left", n)
	}
}

// The same with the journal cut at any byte, as a power cut may.
func TestPutResumesWithTornJournal(t *testing.T) {
	const chunk, chunks = 256, 100
	want := data(1, chunk*chunks)
	path := writeFile(t, "big", want)
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	cutAfter(p, "put", 90, nil)
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	whole, err := os.ReadFile(uploads(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		dir := t.TempDir()
		c := open(t, p, dir, chunkOf(chunk))
		torn := bytes.Clone(whole[:r.IntN(len(whole)+1)])
		if r.IntN(3) == 0 && len(torn) > 0 {
			torn[r.IntN(len(torn))] ^= 4
		}
		if err := os.WriteFile(filepath.Join(dir, "uploads", "0123456789abcdef"), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		res, err := c.PutFile(t.Context(), PutRequest{Path: path})
		if err != nil {
			t.Fatalf("journal cut to %d: %v", len(torn), err)
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, want) {
			t.Fatalf("journal cut to %d: got %s", len(torn), describe(got))
		}
	}
}

// `put -` with the same stream again sends only what is missing, by asking; a
// resume key spares the asking.
func TestStreamResumes(t *testing.T) {
	const chunk, chunks = 256, 300
	want := data(1, chunk*chunks)
	for _, key := range []string{"", "a key"} {
		p, dir := newPool(), t.TempDir()
		c := open(t, p, dir, chunkOf(chunk))
		cutAfter(p, "put", 200, nil)
		req := func() PutRequest { return PutRequest{Source: bytes.NewReader(want), Name: "s", ResumeKey: key} }
		if _, err := c.PutFile(t.Context(), req()); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		have := len(p.guids())
		p.reset()
		res, err := c.PutFile(t.Context(), req())
		if err != nil {
			t.Fatal(err)
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, want) {
			t.Fatalf("got %s", describe(got))
		}
		sentLittle(t, p, chunk, chunks, have)
		if (res.Resumed > 0) != (key != "") {
			t.Errorf("key %q: %d resumed", key, res.Resumed)
		}
		if key != "" && len(uploads(t, dir)) != 0 {
			t.Error("journal left")
		}
	}
}

// A file that changes while it is put is refused and not listed.
func TestFileChangesWhilePut(t *testing.T) {
	const chunk = 256
	for name, change := range map[string]func(path string) error{
		"grows":   func(path string) error { return appendTo(path, "more") },
		"shrinks": func(path string) error { return os.Truncate(path, 1000) },
		"is touched": func(path string) error {
			return os.Chtimes(path, time.Now().Add(time.Hour), time.Now().Add(time.Hour))
		},
	} {
		path := writeFile(t, "big", data(1, chunk*300))
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		p.onPut = func(id.GUID, []byte) error {
			if p.calls["put"] == 20 {
				return change(path)
			}
			return nil
		}
		if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, ErrChanged) || Code(err) != "changed" {
			t.Errorf("%s: %v", name, err)
		}
		if c.Catalogue().Len() != 0 {
			t.Errorf("%s: listed", name)
		}
	}
	c := open(t, newPool(), t.TempDir(), chunkOf(chunk))
	for _, n := range []int64{1, 99, 101, 5000, 1 << 30} {
		_, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(data(1, 100)), Size: n})
		if !errors.Is(err, ErrChanged) {
			t.Errorf("%d bytes announced, 100 sent: %v", n, err)
		}
		_, err = c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(data(1, 10_000)), Size: n})
		if !errors.Is(err, ErrChanged) {
			t.Errorf("%d bytes announced, 10,000 sent: %v", n, err)
		}
	}
	if names := uploads(t, c.cfg.Dir); len(names) > 10 {
		t.Errorf("%d journals", len(names))
	}
}

// sentLittle checks that a put of a file of which the pool has most chunks sent
// the missing ones, the tree, and few of the others: after a question in vain
// some go unasked, and how they are staged is a matter of chance.
func sentLittle(t *testing.T, p *pool, chunk, chunks, have int) {
	t.Helper()
	few := chunks - have + have/4
	if limit := int64(few*(chunk+seal.Overhead) + 80*chunks); p.sent > limit {
		t.Errorf("%d bytes sent for %d missing chunks of %d", p.sent, chunks-have, chunks)
	}
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, s)
	return errors.Join(err, f.Close())
}
