//go:build unix && !aix

package files

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
)

// TestMtimeSetBackWhilePut: a file of the same size that is written while it is
// put is refused, though its mtime is set back.
func TestMtimeSetBackWhilePut(t *testing.T) {
	const chunk = 256
	path, before := oldFile(t, data(1, chunk*300))
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk), func(c *Config) { c.Window, c.Sealers = 1, 1 })
	p.onPut = func(id.GUID, []byte) error {
		if p.calls["put"] == 1 { // the next chunk is read, and there is no room for a third
			waitFor(t, "a chunk to wait", func() bool {
				j, err := readWhole(uploads(t, dir)[0])
				return err == nil && len(j.intents) == 2
			})
			rewrite(t, path, data(2, chunk*300), before)
		}
		return nil
	}
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	if c.Catalogue().Len() != 0 || len(p.guids()) != 0 {
		t.Errorf("%d listed, %d blocks left", c.Catalogue().Len(), len(p.guids()))
	}
}

// TestMtimeSetBackBeforeResume: a file that was rewritten after its put was cut
// short is put from its start, though size and mtime are as before. So it is if the
// journal is of a release that did not know the ctime.
func TestMtimeSetBackBeforeResume(t *testing.T) {
	const chunk = 256
	for _, release := range []string{"this", "earlier"} {
		path, before := oldFile(t, data(1, chunk*100))
		p, dir := newPool(), t.TempDir()
		c := open(t, p, dir, chunkOf(chunk))
		cutAfter(p, "put", 50, nil)
		if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		p.reset()
		if release == "earlier" {
			forgetKey(t, uploads(t, dir)[0])
		}
		rewrite(t, path, data(2, chunk*100), before)
		res, err := c.PutFile(t.Context(), PutRequest{Path: path})
		if err != nil || res.Resumed != 0 {
			t.Fatalf("journal of %s release: %d resumed, %v", release, res.Resumed, err)
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, data(2, chunk*100)) {
			t.Errorf("journal of %s release: got %s", release, describe(got))
		}
	}
}

// TestTouchedWhilePut: a file that is given other rights, a second name, or another
// one while it is put is read again, and stored.
func TestTouchedWhilePut(t *testing.T) {
	const chunk = 256
	want := data(1, chunk*300-7)
	clear(want[chunk*30 : chunk*32])
	touches := map[string]func(path string) error{
		"chmod":  func(path string) error { return os.Chmod(path, 0o400) },
		"link":   func(path string) error { return os.Link(path, path+"2") },
		"rename": func(path string) error { return os.Rename(path, path+"2") },
	}
	for _, r := range []PutRequest{{}, {Unique: true}, {Clear: true}} {
		for name, touch := range touches {
			path, before := oldFile(t, want)
			p := newPool()
			c := open(t, p, t.TempDir(), chunkOf(chunk))
			p.onPut = func(id.GUID, []byte) error {
				switch p.calls["put"] {
				case 20, 21:
					return refuse("full") // another name for this block
				case 50:
					return errors.Join(moved(t, path, before), touch(path))
				}
				return nil
			}
			r.Path = path
			res, err := c.PutFile(t.Context(), r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := get(t, c, res.Link); !bytes.Equal(got, want) || res.Holes == 0 {
				t.Errorf("%s: got %s, %d holes", name, describe(got), res.Holes)
			}
		}
	}
}

// TestTouchedBeforeResume: a put of a file that got other rights since it was cut
// short begins anew, but what was stored is not sent again.
func TestTouchedBeforeResume(t *testing.T) {
	const chunk, chunks = 256, 300
	want := data(1, chunk*chunks)
	path, before := oldFile(t, want)
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	cutAfter(p, "put", 200, nil)
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	have := len(p.guids())
	p.reset()
	if err := moved(t, path, before); err != nil {
		t.Fatal(err)
	}
	res, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if err != nil || res.Resumed != 0 {
		t.Fatalf("%d resumed, %v", res.Resumed, err)
	}
	sentLittle(t, p, chunk, chunks, have)
	if got := get(t, c, res.Link); !bytes.Equal(got, want) {
		t.Errorf("got %s", describe(got))
	}
}

// TestSmallFileIsCompared: a file that fits into its root is what is on the disk
// when the put ends, or refused.
func TestSmallFileIsCompared(t *testing.T) {
	path, before := oldFile(t, data(1, 100))
	c := open(t, newPool(), t.TempDir())
	src, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.close() }()
	rewrite(t, path, data(2, 100), before)
	u := &upload{c: c, src: src}
	for seed, refused := range map[uint64]bool{1: true, 2: false} {
		err := u.unmixed(t.Context(), func() (isSent, error) {
			return func(_ int64, plain []byte) bool { return bytes.Equal(plain, data(seed, 100)) }, nil
		})
		if errors.Is(err, ErrChanged) != refused || err != nil && !refused {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCut)
	if err := u.unmixed(ctx, func() (isSent, error) { return nil, nil }); !errors.Is(err, errCut) {
		t.Errorf("cut short: %v", err)
	}
	// What is never at rest is given up.
	err = u.unmixed(t.Context(), func() (isSent, error) {
		info, err := os.Stat(path)
		return func(int64, []byte) bool { return true }, errors.Join(err, moved(t, path, info))
	})
	if !errors.Is(err, ErrChanged) {
		t.Errorf("touched again and again: %v", err)
	}
}

// oldFile writes a file of an hour ago.
func oldFile(t *testing.T, b []byte) (path string, info os.FileInfo) {
	t.Helper()
	path = writeFile(t, "big", b)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, info
}

// rewrite writes a file in place and sets its mtime back.
func rewrite(t *testing.T, path string, b []byte, was os.FileInfo) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, b, 0o600), moved(t, path, was)); err != nil {
		t.Error(err)
	}
}

// moved sets the mtime of a file back until its ctime has moved: the clock of a
// file system ticks every few milliseconds.
func moved(t *testing.T, path string, was os.FileInfo) error {
	var err error
	waitFor(t, "another ctime", func() bool {
		var now os.FileInfo
		if err = os.Chtimes(path, was.ModTime(), was.ModTime()); err == nil {
			now, err = os.Stat(path)
		}
		return err != nil || ctime(now) != ctime(was)
	})
	return err
}

// forgetKey makes a journal one of a release that kept no ctime.
func forgetKey(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := readHead(path)
	if err != nil {
		t.Fatal(err)
	}
	records := b[3+len(h.encode())+sumSize:]
	h.Source.Key = ""
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	j, err := createJournal(filepath.Dir(path), bytes.NewReader(make([]byte, 8)), h)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.write(records), j.f.Close()); err != nil {
		t.Fatal(err)
	}
}
