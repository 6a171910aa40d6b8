package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

func TestRoundTripSizes(t *testing.T) {
	const mib = 1 << 20
	p := newPool()
	dir := t.TempDir()
	c := open(t, p, dir)
	out := t.TempDir()
	for i, n := range []int{0, 1, 4095, 4096, 4097, mib - 1, mib, mib + 1, 5*mib + 12345} {
		want := data(uint64(i), n)
		path := writeFile(t, fmt.Sprintf("f%d", n), want)
		r, err := c.PutFile(t.Context(), PutRequest{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		blocks := int64(1)
		if n > 4096 {
			blocks += int64((n + mib - 1) / mib)
		}
		if r.Size != int64(n) || r.Blocks != blocks || r.NewBlocks != blocks || r.Copies != (Copies{Min: 2, Target: 3}) {
			t.Errorf("%d bytes: %+v", n, r)
		}
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %s", n, describe(got))
		}
		info, saved, err := c.SaveFile(t.Context(), r.Link, out, SaveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, saved.Name))
		if err != nil || !bytes.Equal(got, want) || saved.Size != int64(n) {
			t.Errorf("%d bytes: saved %s, %v", n, describe(got), err)
		}
		was, _ := os.Stat(path)
		is, _ := os.Stat(filepath.Join(out, saved.Name))
		if is.Mode() != was.Mode() || is.ModTime().UnixMilli() != was.ModTime().UnixMilli() || info.Name != was.Name() {
			t.Errorf("%v %v %s", is.Mode(), is.ModTime(), info.Name)
		}
	}
	if left := uploads(t, dir); len(left) > 0 {
		t.Errorf("journals left: %v", left)
	}
	if names, _ := os.ReadDir(out); len(names) != 9 {
		t.Errorf("%d files in the output", len(names))
	}
}

// Trees of depth 1, 2 and 3, whose chunks are small so that 512 of them are.
func TestDepths(t *testing.T) {
	const chunk = 16
	for _, n := range []struct{ chunks, full, depth, blocks int }{
		{511, 511, 1, 512},
		{512, 512, 1, 513},
		{513, 513, 2, 516},
		{1024, 1024, 2, 1027},
		{512 * 512, 600, 2, 600 + 1 + 2 + 1 + 1},           // the last chunk is none of zeros
		{512*512 + 1, 600, 3, 600 + 1 + 2 + 1 + 1 + 1 + 1}, // depth 3: 512 MiB × 512 and one more
	} {
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		want := data(1, n.chunks*chunk-3)
		if n.full < n.chunks {
			clear(want[n.full*chunk : (n.chunks-1)*chunk])
		}
		r, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(want), Name: "deep"})
		if err != nil {
			t.Fatal(err)
		}
		if r.Blocks != int64(n.blocks) {
			t.Errorf("%d chunks: %d blocks, want %d", n.chunks, r.Blocks, n.blocks)
		}
		s, err := c.Stat(t.Context(), r.VerifyLink)
		if err != nil || s.Depth != n.depth || s.Blocks != r.Blocks || s.Size != -1 || s.Copies != (Spread{3, 3, 3}) {
			t.Errorf("%d chunks: %+v, %v", n.chunks, s, err)
		}
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Fatalf("%d chunks: got %s", n.chunks, describe(got))
		}
		v, err := c.Verify(t.Context(), r.VerifyLink, VerifyOptions{})
		if err != nil || v.Blocks != r.Blocks || v.OK != r.Blocks || !v.Sound() {
			t.Errorf("%d chunks: %+v, %v", n.chunks, v, err)
		}
		rm, err := c.Remove(t.Context(), r.Link, nil)
		if err != nil || rm.Blocks != r.Blocks || len(p.guids()) != 0 {
			t.Errorf("%d chunks: %+v, %v, %d blocks left", n.chunks, rm, err, len(p.guids()))
		}
	}
}

func TestHoles(t *testing.T) {
	const chunk = 4096
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	for name, want := range map[string][]byte{
		"only zeros":      make([]byte, 10*chunk+5),
		"zeros at end":    append(data(1, 3*chunk), make([]byte, 5*chunk)...),
		"zeros between":   append(append(data(2, chunk), make([]byte, 7*chunk)...), data(3, 100)...),
		"a hole subtree":  append(append(data(4, 512*chunk), make([]byte, 512*chunk)...), data(5, chunk)...),
		"all is subtrees": make([]byte, 1030*chunk),
	} {
		r := put(t, c, want)
		if r.Holes == 0 || r.Blocks+r.Holes < int64(len(want)/chunk) {
			t.Errorf("%s: %+v", name, r)
		}
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Errorf("%s: got %s", name, describe(got))
		}
		out := t.TempDir()
		if _, _, err := c.SaveFile(t.Context(), r.Link, out, SaveOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(filepath.Join(out, "file")); !bytes.Equal(got, want) {
			t.Errorf("%s: saved %s", name, describe(got))
		}
		if s, err := c.Stat(t.Context(), r.Link); err != nil || s.Blocks != r.Blocks {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestRanges(t *testing.T) {
	const chunk = 64
	c := open(t, newPool(), t.TempDir(), chunkOf(chunk))
	whole := data(1, 700*chunk+17)
	copy(whole[520*chunk:], make([]byte, 20*chunk)) // holes
	small := data(2, 100)
	for _, want := range [][]byte{whole, small} {
		r := put(t, c, want)
		f, err := c.OpenFile(t.Context(), r.Link)
		if err != nil {
			t.Fatal(err)
		}
		size := len(want)
		for _, off := range []int{0, 1, chunk - 1, chunk, chunk + 1, 512 * chunk, 525*chunk + 3, size - 1, size} {
			for _, n := range []int{0, 1, chunk, 3*chunk + 1, 100 * chunk, size} {
				if off > size || off+n > size {
					continue
				}
				part := want[off : off+n]
				if n == 0 {
					part = want[off:]
				}
				var b bytes.Buffer
				m, err := f.CopyTo(t.Context(), &b, GetOptions{Offset: int64(off), Length: int64(n)})
				if err != nil || int(m) != len(part) || !bytes.Equal(b.Bytes(), part) {
					t.Fatalf("[%d, +%d) of %d: %s, %v", off, n, size, describe(b.Bytes()), err)
				}
			}
		}
		for _, bad := range []GetOptions{{Offset: -1}, {Length: -1}, {Offset: int64(size) + 1}, {Offset: 1, Length: int64(size)}, {Offset: 1 << 62, Length: 1 << 62}} {
			if _, err := f.CopyTo(t.Context(), io.Discard, bad); !errors.Is(err, ErrRange) || Code(err) != "bad_request" {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	}
}

func TestClearAndUnique(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(4096))
	want := data(1, 40_000)
	req := func(f func(*PutRequest)) Result {
		r := PutRequest{Source: bytes.NewReader(want), Name: "n"}
		f(&r)
		res, err := c.PutFile(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, want) {
			t.Fatalf("got %s", describe(got))
		}
		return res
	}
	first := req(func(*PutRequest) {})
	again := req(func(*PutRequest) {})
	if again.NewBlocks != 1 || again.GUID == first.GUID { // only the root, whose claim is new
		t.Errorf("same file again: %+v", again)
	}
	if unique := req(func(r *PutRequest) { r.Unique = true }); unique.NewBlocks != unique.Blocks {
		t.Errorf("unique: %+v", unique)
	}
	plain := req(func(r *PutRequest) { r.Clear = true })
	if plain.Link.Cap != seal.CanClear || plain.VerifyLink != plain.Link || plain.NewBlocks != plain.Blocks {
		t.Errorf("clear: %+v", plain)
	}
	if v, err := c.Verify(t.Context(), plain.Link, VerifyOptions{}); err != nil || v.OK != plain.Blocks {
		t.Errorf("clear: %+v, %v", v, err)
	}
	other := open(t, p, t.TempDir(), chunkOf(4096), func(c *Config) { c.Secret = seal.Secret{2} })
	if r := put(t, other, want); r.NewBlocks != r.Blocks {
		t.Errorf("another member's file shares blocks: %+v", r)
	}
	if got := get(t, other, first.Link); !bytes.Equal(got, want) {
		t.Error("a link does not open elsewhere")
	}
}

func TestLinkFaults(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(64))
	r := put(t, c, data(1, 10_000))
	text := r.Link.Text()
	for i := range len(text) {
		bad := text[:i] + string(text[i]^1) + text[i+1:]
		if _, err := c.ParseLink(bad); !hasCode(err, "bad_link") {
			t.Fatalf("character %d: %v", i, err)
		}
	}
	foreign := open(t, p, t.TempDir(), func(c *Config) { c.Pool = [32]byte{9} })
	if _, err := foreign.ParseLink(text); !hasCode(err, "wrong_pool") {
		t.Error(err)
	}
	if _, err := foreign.OpenFile(t.Context(), r.Link); !hasCode(err, "wrong_pool") {
		t.Error(err)
	}
	if _, err := c.OpenFile(t.Context(), r.VerifyLink); !errors.Is(err, ErrForbidden) || Code(err) != "forbidden" {
		t.Error(err)
	}
	if _, err := c.Remove(t.Context(), r.VerifyLink, nil); !hasCode(err, "forbidden") {
		t.Error(err)
	}
	if _, err := c.OpenFile(t.Context(), seal.Link{}); !hasCode(err, "bad_link") {
		t.Error(err)
	}
	// A key that is whole, and wrong: a link put together by hand.
	wrong := seal.NewLink(testPool, r.GUID, seal.ReadKey{1})
	if _, err := c.OpenFile(t.Context(), wrong); !errors.Is(err, ErrCorrupt) || Code(err) != "corrupt" {
		t.Error(err)
	}
	nowhere := seal.NewLink(testPool, [32]byte{1}, seal.ReadKey{1})
	if _, err := c.OpenFile(t.Context(), nowhere); !hasCode(err, "not_found") {
		t.Error(err)
	}
}

func TestBadRequests(t *testing.T) {
	c := open(t, newPool(), t.TempDir())
	dir := t.TempDir()
	for name, r := range map[string]PutRequest{
		"nothing":      {},
		"both":         {Path: "x", Source: bytes.NewReader(nil)},
		"w over k":     {Source: bytes.NewReader(nil), K: 2, W: 3},
		"k":            {Source: bytes.NewReader(nil), K: 9},
		"name":         {Source: bytes.NewReader(nil), Name: "a/b"},
		"a directory":  {Path: dir},
		"a device":     {Path: os.DevNull},
		"a resume key": {Source: bytes.NewReader(nil), ResumeKey: string(make([]byte, 2000))},
	} {
		if _, err := c.PutFile(t.Context(), r); !hasCode(err, "bad_request") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.PutFile(t.Context(), PutRequest{Path: filepath.Join(dir, "nothing")}); !hasCode(err, "bad_request") {
		t.Error(err)
	}
	for _, cfg := range []Config{
		{},
		{Dir: dir},
		{Dir: dir, Blocks: newPool()},
		{Dir: dir, Blocks: newPool(), Secret: seal.Secret{1}, Window: 257},
		{Dir: dir, Blocks: newPool(), Secret: seal.Secret{1}, Sealers: -1},
		{Dir: dir, Blocks: newPool(), Secret: seal.Secret{1}, ChunkSize: 1<<20 + 1},
	} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
}

func TestNeverOverwrites(t *testing.T) {
	c := open(t, newPool(), t.TempDir(), chunkOf(64))
	r := put(t, c, data(1, 10_000))
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{}); !errors.Is(err, ErrExists) || Code(err) != "exists" {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Fatal("overwritten")
	}
	if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); len(b) != 10_000 {
		t.Fatal("not replaced")
	}
	// Nothing but a file is replaced, by force or not.
	special := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", special)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, force := range []bool{false, true} {
		if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Name: "socket", Force: force}); !errors.Is(err, ErrNotFile) {
			t.Errorf("over a socket, force %v: %v", force, err)
		}
	}
	if info, err := os.Lstat(special); err != nil || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the socket is gone: %v", err)
	}
	// A file that appears while the get runs is left alone, too.
	p := c.cfg.Blocks.(*pool)
	late := filepath.Join(dir, "late")
	p.reset()
	p.onGet = func(_ id.GUID, b []byte) ([]byte, error) {
		if p.calls["get"] < 50 {
			return b, nil
		}
		return b, os.WriteFile(late, []byte("mine"), 0o600)
	}
	if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Name: "late"}); err == nil {
		t.Fatal("the get had a name that was taken")
	} else if !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(late); string(b) != "mine" {
		t.Fatal("overwritten")
	}
	if err := os.Remove(late); err != nil {
		t.Fatal(err)
	}
	p.reset()
	_, saved, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Name: "late"})
	if err != nil || saved.Resumed != 10_000 {
		t.Fatalf("%+v, %v", saved, err)
	}
}

func TestNames(t *testing.T) {
	c := open(t, newPool(), t.TempDir())
	r, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader([]byte("x"))})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{}); !errors.Is(err, ErrName) {
		t.Errorf("a file without name: %v", err)
	}
	for _, bad := range []string{"..", ".", "a/b", "/abs", "../up", "a\x00b"} {
		if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Name: bad}); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	long := string(bytes.Repeat([]byte("n"), 255))
	if _, s, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{Name: long}); err != nil || s.Name != long {
		t.Errorf("name of 255 bytes: %v", err)
	}
	if _, _, err := c.SaveFile(t.Context(), r.Link, filepath.Join(dir, "no"), SaveOptions{Name: "x"}); !hasCode(err, "bad_request") {
		t.Errorf("no directory: %v", err)
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 1 {
		t.Errorf("%d files", len(names))
	}
}

func TestCancel(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(64))
	r := put(t, c, data(1, 10_000))
	p.wait = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, f := range map[string]func(context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := c.PutFile(ctx, PutRequest{Source: bytes.NewReader(data(2, 10_000))})
			return err
		},
		"get": func(ctx context.Context) error {
			_, err := c.GetFile(ctx, r.Link, io.Discard, GetOptions{})
			return err
		},
		"save": func(ctx context.Context) error {
			_, _, err := c.SaveFile(ctx, r.Link, t.TempDir(), SaveOptions{})
			return err
		},
		"stat":   func(ctx context.Context) error { _, err := c.Stat(ctx, r.Link); return err },
		"rm":     func(ctx context.Context) error { _, err := c.Remove(ctx, r.Link, nil); return err },
		"verify": func(ctx context.Context) error { _, err := c.Verify(ctx, r.Link, VerifyOptions{}); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}
