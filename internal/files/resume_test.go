package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
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
		if limit := int64(chunks-have)*(chunk+seal.Overhead) + 80*chunks; p.sent > limit {
			t.Errorf("key %q: %d bytes sent for %d missing chunks", key, p.sent, chunks-have)
		}
		if (res.Resumed > 0) != (key != "") {
			t.Errorf("key %q: %d resumed", key, res.Resumed)
		}
		if key != "" && len(uploads(t, dir)) != 0 {
			t.Error("journal left")
		}
	}
}

// A journal is for the same source under the same terms only.
func TestJournalOfAnotherPut(t *testing.T) {
	const chunk = 256
	path := writeFile(t, "big", data(1, chunk*100))
	for name, change := range map[string]func(c *Client, r *PutRequest){
		"k":         func(_ *Client, r *PutRequest) { r.K = 2 },
		"unique":    func(_ *Client, r *PutRequest) { r.Unique = true },
		"clear":     func(_ *Client, r *PutRequest) { r.Clear = true },
		"name":      func(_ *Client, r *PutRequest) { r.Name = "other" },
		"no resume": func(_ *Client, r *PutRequest) { r.NoResume = true },
		"secret":    func(c *Client, _ *PutRequest) { c.cfg.Secret = seal.Secret{9} },
		"pool":      func(c *Client, _ *PutRequest) { c.cfg.Pool = [32]byte{9} },
		"touched": func(_ *Client, r *PutRequest) {
			now := time.Now().Add(time.Hour)
			if err := os.Chtimes(r.Path, now, now); err != nil {
				t.Fatal(err)
			}
		},
	} {
		p, dir := newPool(), t.TempDir()
		c := open(t, p, dir, chunkOf(chunk))
		cutAfter(p, "put", 50, nil)
		if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		p.reset()
		r := PutRequest{Path: path}
		change(c, &r)
		res, err := c.PutFile(t.Context(), r)
		if err != nil || res.Resumed != 0 {
			t.Errorf("%s: %d resumed, %v", name, res.Resumed, err)
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, data(1, chunk*100)) {
			t.Errorf("%s: got %s", name, describe(got))
		}
		if len(uploads(t, dir)) != 1 {
			t.Errorf("%s: %d journals", name, len(uploads(t, dir)))
		}
	}
}

func TestUniqueResumesWithItsSecret(t *testing.T) {
	path := writeFile(t, "big", data(1, 256*100))
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(256))
	cutAfter(p, "put", 50, nil)
	r := PutRequest{Path: path, Unique: true}
	if _, err := c.PutFile(t.Context(), r); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	res, err := c.PutFile(t.Context(), r)
	if err != nil || res.Resumed == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := get(t, c, res.Link); !bytes.Equal(got, data(1, 256*100)) {
		t.Fatalf("got %s", describe(got))
	}
}

// A journal that outlived its file must not be taken up: the file may have
// been removed, and what the journal calls acknowledged with it.
func TestJournalOfFinishedFile(t *testing.T) {
	const chunk = 256
	want := data(1, chunk*100)
	path := writeFile(t, "big", want)
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	// The process is killed between catalogue entry and end of journal: keep a
	// copy of the journal as it is when the root has been stored.
	var saved []byte
	var at string
	p.onPut = func(id.GUID, []byte) error {
		if names := uploads(t, dir); len(names) == 1 {
			at = names[0]
			saved, _ = os.ReadFile(at)
		}
		return nil
	}
	res, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		t.Helper()
		if err := os.WriteFile(at, saved, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.reset()
	restore()
	if _, err := c.Remove(t.Context(), res.Link, nil); err != nil {
		t.Fatal(err)
	}
	if len(uploads(t, dir)) != 0 {
		t.Error("rm left the journal")
	}
	again, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if err != nil || again.Resumed != 0 {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := get(t, c, again.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}

	// Found at the next start, it is dropped.
	p, dir = newPool(), t.TempDir()
	c = open(t, p, dir, chunkOf(chunk))
	p.onPut = func(id.GUID, []byte) error {
		if names := uploads(t, dir); len(names) == 1 {
			at = names[0]
			saved, _ = os.ReadFile(at)
		}
		return nil
	}
	if _, err = c.PutFile(t.Context(), PutRequest{Path: path}); err != nil {
		t.Fatal(err)
	}
	restore()
	_ = c.Close()
	open(t, p, dir, chunkOf(chunk))
	if len(uploads(t, dir)) != 0 {
		t.Error("the start left the journal")
	}
}

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

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, s)
	return errors.Join(err, f.Close())
}

// A get to a path cut short at any of 20 points goes on where it was.
func TestGetResumes(t *testing.T) {
	const chunk, chunks = 256, 600
	want := data(1, chunk*chunks-7)
	copy(want[100*chunk:200*chunk], make([]byte, 100*chunk))
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	res := put(t, c, want)
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 20 {
		at := 5 + r.IntN(chunks-110)
		dir := t.TempDir()
		p.reset()
		ctx, cancel := context.WithCancel(t.Context())
		if i%2 == 0 {
			cutAfter(p, "get", at, cancel)
		} else {
			cutAfter(p, "get", at, nil)
		}
		if _, _, err := c.SaveFile(ctx, res.Link, dir, SaveOptions{}); err == nil {
			t.Fatal("not cut")
		}
		cancel()
		if _, err := os.Stat(filepath.Join(dir, "file")); err == nil {
			t.Fatal("half a file has its name")
		}
		part := filepath.Join(dir, "file"+partSuffix)
		damaged := i%4 == 3
		if damaged { // somebody, or a power cut, spoils what was written
			b, err := os.ReadFile(part)
			if err != nil {
				t.Fatal(err)
			}
			for j := range b {
				b[j] ^= 0x55 // in the holes, too
			}
			if err := os.WriteFile(part, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p.reset()
		_, saved, err := c.SaveFile(t.Context(), res.Link, dir, SaveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(filepath.Join(dir, "file"))
		if !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: got %s", at, describe(got))
		}
		if low := int64(at-40) * chunk; !damaged && saved.Resumed < low || damaged && saved.Resumed != 0 {
			t.Errorf("cut at %d: %d bytes resumed", at, saved.Resumed)
		}
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("%d files left", len(names))
		}
	}
}

// A part of another file, a link, or a file with a second name is not gone on
// with, and whatever it stood for is not touched.
func TestForeignPart(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(64))
	first, second := data(1, 10_000), data(2, 9_000)
	clear(second[64*3 : 64*20]) // holes where the first has data
	a, b := put(t, c, first), put(t, c, second)
	dir := t.TempDir()
	cutAfter(p, "get", 30, nil)
	if _, _, err := c.SaveFile(t.Context(), a.Link, dir, SaveOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	if _, s, err := c.SaveFile(t.Context(), b.Link, dir, SaveOptions{}); err != nil || s.Resumed != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "file")); !bytes.Equal(got, second) {
		t.Fatalf("got %s", describe(got))
	}
	mine := filepath.Join(dir, "mine")
	for name, make := range map[string]func(part string) error{
		"symlink":  func(part string) error { return os.Symlink("mine", part) },
		"hardlink": func(part string) error { return os.Link(mine, part) },
	} {
		if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := make(filepath.Join(dir, "x"+partSuffix)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.SaveFile(t.Context(), a.Link, dir, SaveOptions{Name: "x", Force: true}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "x")); !bytes.Equal(got, first) {
			t.Errorf("%s: got %s", name, describe(got))
		}
		if got, _ := os.ReadFile(mine); string(got) != "mine" {
			t.Errorf("%s: the file behind it was written to", name)
		}
	}
}

// Two gets of one output do not write over each other.
func TestPartInUse(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(64))
	r := put(t, c, data(1, 10_000))
	dir := t.TempDir()
	f, err := c.OpenFile(t.Context(), r.Link)
	if err != nil {
		t.Fatal(err)
	}
	block := make(chan struct{})
	p.mu.Lock()
	p.wait = func(ctx context.Context, _ string) error {
		select {
		case <-block:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Unlock()
	first := make(chan error)
	go func() {
		_, err := f.SaveTo(t.Context(), dir, SaveOptions{})
		first <- err
	}()
	waitFor(t, "a part", func() bool { return p.count("get") > 1 })
	if _, err := f.SaveTo(t.Context(), dir, SaveOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("second get: %v", err)
	}
	close(block)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
}

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

func FuzzReadJournal(f *testing.F) {
	h := journalHead{Source: identity{Size: 5, Key: "k"}, Claim: [16]byte{1}, Chunk: 7, Name: "n"}
	body := h.encode()
	head := appendSum(append([]byte{'H', byte(len(body) >> 8), byte(len(body))}, body...))
	f.Add(head)
	f.Add(append(bytes.Clone(head), encodeAck(3, ack{length: 7, guid: id.GUID{1}})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readJournal(bytes.NewReader(b), false, true)
		if err != nil {
			return
		}
		if c.end > int64(len(b)) {
			t.Fatalf("ends at %d of %d", c.end, len(b))
		}
		if h, err := decodeHead(c.head.encode()); err != nil || h != c.head {
			t.Fatalf("%+v, %v", h, err)
		}
	})
}

func FuzzJournalRecords(f *testing.F) {
	h := journalHead{Source: identity{Size: 5, Key: "k"}, Claim: [16]byte{1}, Chunk: 7, Name: "n"}
	f.Add(h.encode(), encodeAck(3, ack{length: 7, guid: id.GUID{1}}))
	f.Fuzz(func(t *testing.T, head, record []byte) {
		if h, err := decodeHead(head); err == nil && !bytes.Equal(h.encode(), head) {
			t.Fatalf("%x encodes to %x", head, h.encode())
		}
		if len(record) != ackSize || record[0] != 'A' {
			return
		}
		if i, a, err := decodeAck(record); err == nil {
			if again := encodeAck(i, a); !bytes.Equal(again[:ackSize-sumSize], record[:ackSize-sumSize]) {
				t.Fatalf("%x encodes to %x", record, again)
			}
		}
	})
}
