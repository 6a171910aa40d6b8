package files

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

// TestFolderGone: where the output's folder is away, that is named, and no file of
// this package's own.
func TestFolderGone(t *testing.T) {
	c := open(t, newPool(), t.TempDir())
	r := put(t, c, data(1, 5000))
	f, err := c.OpenFile(t.Context(), r.Link)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	_, err = f.takePart(t.Context(), root, "x", false)
	if err == nil || !strings.Contains(err.Error(), dir+": no such") || strings.Contains(err.Error(), "atoll-") {
		t.Errorf("%v", err)
	}
}

// TestRemovedLeavesNoPart: a part serves to go on. Of a file that was removed, while
// it was got or since the last try, nothing stays; other errors, and a part that
// another file has or another get writes, change nothing.
func TestRemovedLeavesNoPart(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(64))
	gone, kept := put(t, c, data(1, 10_000)), put(t, c, data(2, 10_000))
	long := strings.Repeat("x", 250) // too long for a suffix
	dir := t.TempDir()
	left := func() int {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	save := func(r Result, name string) error {
		_, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Name: name})
		return err
	}
	for _, name := range []string{"kept", "gone", long} {
		p.reset()
		cutAfter(p, "get", 30, nil)
		r := gone
		if name == "kept" {
			r = kept
		}
		if err := save(r, name); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	if n := left(); n != 6 {
		t.Fatalf("%d files of three parts", n)
	}
	p.reset()
	p.onAny = func(op string) error {
		if op == "get" && p.calls[op] > 5 {
			return refuse("removed")
		}
		return nil
	}
	if err := save(gone, "gone"); Code(err) != codeRemoved || left() != 4 {
		t.Errorf("removed under way: %v, %d files left", err, left())
	}
	p.reset()
	if _, err := c.Remove(t.Context(), gone.Link, nil); err != nil {
		t.Fatal(err)
	}
	busy, err := os.OpenFile(filepath.Join(dir, beside(long, mapSuffix)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock(busy); err != nil {
		t.Fatal(err)
	}
	if err := save(gone, "other"); !errors.Is(err, ErrRemoved) || left() != 4 {
		t.Errorf("another get writes it: %v, %d files left", err, left())
	}
	_ = busy.Close()
	if err := save(gone, "other"); !errors.Is(err, ErrRemoved) || left() != 2 {
		t.Errorf("removed since: %v, %d files left", err, left())
	}
	if err := save(kept, "kept"); err != nil || left() != 1 {
		t.Errorf("the other file: %v, %d files left", err, left())
	}
}
