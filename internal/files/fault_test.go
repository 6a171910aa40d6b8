package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// A pool that refuses one call in seven is worth the retries; time is fake.
func TestRandomFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk = 256
		want := data(1, chunk*600)
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		p.onAny = flaky(1, 7)
		r := put(t, c, want)
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Fatalf("got %s", describe(got))
		}
		if _, _, err := c.SaveFile(t.Context(), r.Link, t.TempDir(), SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Stat(t.Context(), r.Link); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Verify(t.Context(), r.VerifyLink, VerifyOptions{}); err != nil || v.OK != r.Blocks {
			t.Fatalf("%+v, %v", v, err)
		}
		if _, err := c.Remove(t.Context(), r.Link, nil); err != nil || len(p.guids()) != 0 {
			t.Fatalf("%d blocks left, %v", len(p.guids()), err)
		}
		p.reset()
		p.onAny = func(string) error { return refuse("unavailable") }
		if _, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(want)}); !hasCode(err, "unavailable") {
			t.Fatalf("a pool that is down: %v", err)
		}
		if calls := p.count("put"); calls > retryBurst+c.cfg.Window {
			t.Errorf("%d puts against a pool that is down", calls)
		}
		// A pool that takes its time to say so is not asked over and over.
		p.wait = func(ctx context.Context, op string) error {
			<-time.After(30 * time.Second) // fake time
			return nil
		}
		start := time.Now()
		if _, err := c.GetFile(t.Context(), r.Link, io.Discard, GetOptions{}); !hasCode(err, "unavailable") {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 31*time.Second {
			t.Errorf("it took %v to give up", took)
		}
	})
}

func TestBusyNarrowsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk = 256
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		limit := 3 // puts at once that the pool takes
		var mu sync.Mutex
		at, most, refused := 0, 0, 0
		p.wait = func(ctx context.Context, op string) error {
			if op != "put" {
				return nil
			}
			mu.Lock()
			if at >= limit {
				refused++
				mu.Unlock()
				return &refusal{code: "busy", after: 20}
			}
			at++
			most = max(most, at)
			mu.Unlock()
			<-time.After(50 * time.Millisecond) // fake time: the pool's own pace
			mu.Lock()
			at--
			mu.Unlock()
			return nil
		}
		start := time.Now()
		put(t, c, data(1, chunk*1000))
		took := time.Since(start)
		if most > limit || refused == 0 || refused > 100 || took > 20*time.Second {
			t.Errorf("%d at once, %d refused of 1,000 in %v; 16.7 s is the pool's own pace", most, refused, took)
		}
	})
}

// Full disks: another name is another place, three times.
func TestFileDiversion(t *testing.T) {
	const chunk = 256
	nodes := []id.GUID{{1}, {2}}
	want := data(1, chunk*600)
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	// Refuse each name with a share of 40 %, for good: it is a place.
	full := func(g id.GUID) bool { return g[0] < 102 }
	p.onPut = func(g id.GUID, b []byte) error {
		if full(g) && g[1] < 128 {
			// One replica took it before another one had no room.
			p.blocks[g], p.claims[g] = b, make(map[[16]byte]bool)
			return &refusal{code: "full", nodes: nodes}
		}
		return nil
	}
	r := put(t, c, want)
	salted := 0
	for g, b := range p.blocks {
		if h, _ := seal.ParseHeader(b); h.Salt > 0 {
			salted++
		}
		if full(g) && g[1] < 128 {
			t.Fatal("a name that was given up keeps its copies")
		}
	}
	if salted < 60 {
		t.Errorf("only %d blocks diverted", salted)
	}
	if got := get(t, c, r.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}
	dir := t.TempDir()
	cutAfter(p, "get", 1100, nil)
	if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	if _, s, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{}); err != nil || s.Resumed < 400*chunk {
		t.Fatalf("diverted blocks are not recognised in a part: %+v, %v", s, err)
	}
	if _, err := c.Remove(t.Context(), r.Link, nil); err != nil || len(p.guids()) != 0 {
		t.Fatalf("%d blocks left, %v", len(p.guids()), err)
	}

	tries := make(map[id.GUID]bool)
	p.onPut = func(g id.GUID, _ []byte) error {
		tries[g] = true
		return &refusal{code: "full", nodes: nodes}
	}
	_, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader([]byte("small"))})
	var f *FullError
	if !errors.As(err, &f) || Code(err) != "full" || f.Tries != 4 || len(tries) != 4 || !slices.Equal(f.Nodes(), nodes) {
		t.Fatalf("%v, %d names", err, len(tries))
	}
	if !strings.Contains(err.Error(), "full") {
		t.Error(err)
	}
}

// A name that was refused for one chunk and taken for an equal one, later or
// before, is a name of the file: its claim stays.
func TestRefusedAndTaken(t *testing.T) {
	const chunk = 256
	for _, refuseAt := range []int{1, 2} {
		p, q := newPool(), newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		same := data(1, chunk)
		want := slices.Concat(same, data(2, chunk*(recentSize+200)), same)
		put(t, open(t, q, t.TempDir(), chunkOf(chunk)), same) // tells its name
		seen := 0
		p.onPut = func(g id.GUID, b []byte) error {
			if h, _ := seal.ParseHeader(b); q.blocks[g] == nil || h.Salt > 0 || len(b) != chunk+seal.Overhead {
				return nil
			}
			if seen++; seen == refuseAt {
				return &refusal{code: "full"}
			}
			return nil
		}
		r := put(t, c, want)
		if seen != 2 {
			t.Fatalf("asked %d times to take the chunk", seen)
		}
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Fatalf("got %s", describe(got))
		}
	}
}

// A pool that lies about what it has gets the bytes after all.
func TestHeadLies(t *testing.T) {
	const chunk = 256
	want := data(1, chunk*50)
	p := newPool()
	c := open(t, &liar{p}, t.TempDir(), chunkOf(chunk))
	r := put(t, c, want)
	if got := get(t, c, r.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}
	if r.NewBlocks != r.Blocks {
		t.Errorf("%+v", r)
	}
}

// A pool whose dead members make it slow to answer does not hold a put up, and
// a file that is new to it is not asked for batch by batch.
func TestSlowHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk = 256
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		p.wait = func(ctx context.Context, op string) error {
			d := time.Millisecond
			if op == "head" {
				d = time.Minute
			}
			select {
			case <-time.After(d): // fake time
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		start := time.Now()
		put(t, c, data(1, chunk*1000))
		if took := time.Since(start); took > 25*time.Second {
			t.Errorf("it took %v", took)
		}
		slow := p.count("head")
		p.reset()
		put(t, c, data(2, chunk*1000))
		if p.count("head") > 100 || slow > 25 {
			t.Errorf("%d questions, then %d", slow, p.count("head"))
		}
		p.reset()
		if r := put(t, c, data(1, chunk*1000)); r.NewBlocks != 1 || p.sent > 90*1000 {
			t.Errorf("a known file: %+v, %d bytes sent", r, p.sent)
		}
	})
}

type liar struct{ *pool }

func (l *liar) Head(_ context.Context, gs []id.GUID) ([]Presence, error) {
	out := make([]Presence, len(gs))
	for i := range out {
		out[i] = Presence{Copies: 3, Target: 3}
	}
	return out, nil
}

// Wrong bytes never reach a reader: they are asked for again, then refused.
func TestCorruptBlocks(t *testing.T) {
	const chunk = 256
	want := data(1, chunk*20)
	for _, clear := range []bool{false, true} {
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		r, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(want), Name: "file", Clear: clear})
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(1, 1))
		spoil := func(b []byte) []byte {
			bad := bytes.Clone(b)
			bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
			return bad
		}
		// Once each: another holder has it right.
		seen := make(map[id.GUID]bool)
		p.onGet = func(g id.GUID, b []byte) ([]byte, error) {
			if !seen[g] {
				seen[g] = true
				return spoil(b), nil
			}
			return b, nil
		}
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Fatalf("got %s", describe(got))
		}
		// For good: an error, and nothing but right bytes before it.
		for _, victim := range p.guids() {
			p.onGet = func(g id.GUID, b []byte) ([]byte, error) {
				if g == victim {
					return spoil(b), nil
				}
				return b, nil
			}
			var b bytes.Buffer
			_, err := c.GetFile(t.Context(), r.Link, &b, GetOptions{})
			if !errors.Is(err, ErrCorrupt) || Code(err) != "corrupt" || !bytes.HasPrefix(want, b.Bytes()) {
				t.Fatalf("%v after %d bytes", err, b.Len())
			}
			if _, _, err := c.SaveFile(t.Context(), r.Link, t.TempDir(), SaveOptions{}); !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
		// Another block of the same file in its place, right in itself.
		gs := p.guids()
		p.onGet = func(g id.GUID, b []byte) ([]byte, error) {
			if g != r.GUID {
				for _, other := range gs {
					if other != g && other != r.GUID {
						return p.blocks[other], nil
					}
				}
			}
			return b, nil
		}
		if _, err := c.GetFile(t.Context(), r.Link, io.Discard, GetOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	}
}

// A tree whose maker lies about lengths and levels is refused.
func TestHostileTrees(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir())
	s := seal.NewSealer(seal.Secret{5})
	store := func(m *seal.Manifest) seal.Child {
		b, r, err := s.Manifest(m, 0)
		if err != nil {
			t.Fatal(err)
		}
		g := seal.BlockGUID(b)
		p.blocks[g] = b
		return seal.Child{GUID: g, Read: r}
	}
	block, key, _ := s.Data(data(1, 100), 0)
	chunk := seal.Child{GUID: seal.BlockGUID(block), Read: key, Length: 100}
	p.blocks[chunk.GUID] = block
	root := func(level uint8, total uint64, size uint32, children ...seal.Child) seal.Link {
		r := store(&seal.Manifest{Level: level, Children: children, Root: &seal.Root{Total: total, Chunking: seal.Fixed, ChunkSize: size, Name: "n"}})
		return seal.NewLink(testPool, r.GUID, r.Read)
	}
	with := func(c seal.Child, n uint64) seal.Child { c.Length = n; return c }
	leafOf := func(children ...seal.Child) seal.Child { return store(&seal.Manifest{Children: children}) }
	nested := store(&seal.Manifest{Level: 1, Children: []seal.Child{with(leafOf(chunk), 100)}})
	for name, l := range map[string]seal.Link{
		"chunk longer than the chunk size": root(0, 100, 50, chunk),
		"chunk shorter":                    root(0, 200, 200, with(chunk, 100), with(chunk, 100)),
		"chunk of another length inside":   root(0, 99, 100, with(chunk, 99)),
		"leaf holds less than promised":    root(1, 200, 100, with(leafOf(chunk), 200)),
		"leaf holds more than promised":    root(1, 100, 100, with(leafOf(chunk, chunk), 100)),
		"level 1 below level 1":            root(1, 100, 100, with(nested, 100)),
		"data where a manifest should be":  root(1, 100, 100, with(chunk, 100)),
		"a manifest where data should be":  root(0, 100, 100, with(leafOf(chunk), 100)),
		"a child too few at level 2":       root(2, 100, 100, with(leafOf(chunk), 100)),
	} {
		if _, err := c.GetFile(t.Context(), l, io.Discard, GetOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: get: %v", name, err)
		}
		if _, _, err := c.SaveFile(t.Context(), l, t.TempDir(), SaveOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: save: %v", name, err)
		}
	}
	good := root(1, 100, 100, with(leafOf(chunk), 100))
	if got := get(t, c, good); !bytes.Equal(got, data(1, 100)) {
		t.Errorf("the good one: %s", describe(got))
	}
	// 128 TiB of nothing costs neither memory nor blocks, only what is asked.
	huge := root(2, 128<<40, 1<<20, slices.Repeat([]seal.Child{{Hole: true, Length: 256 << 30}}, 512)...)
	var b bytes.Buffer
	f, err := c.OpenFile(t.Context(), huge)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.CopyTo(t.Context(), &b, GetOptions{Offset: 100 << 40, Length: 3 << 20}); err != nil || b.Len() != 3<<20 {
		t.Fatalf("%d bytes, %v", b.Len(), err)
	}
}

// Equal chunks in one file are stored and sent once.
func TestEqualChunks(t *testing.T) {
	const chunk = 256
	want := bytes.Repeat(data(1, chunk), 300)
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	r := put(t, c, want)
	if r.Blocks != 301 || r.NewBlocks != 2 || p.count("put") != 2 {
		t.Errorf("%+v, %d puts", r, p.count("put"))
	}
	if got := get(t, c, r.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}
	if _, err := c.Remove(t.Context(), r.Link, nil); err != nil || len(p.guids()) != 0 {
		t.Fatalf("%d left, %v", len(p.guids()), err)
	}
}

// A stream that gives nothing more does not keep a put that has failed.
func TestStalledStream(t *testing.T) {
	const chunk = 256
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	cutAfter(p, "put", 3, nil)
	r, w := io.Pipe()
	go func() { _, _ = w.Write(data(1, chunk*20+5)) }()
	if _, err := c.PutFile(t.Context(), PutRequest{Source: r}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	// Nor one that gave nothing at all, when its client has gone.
	r, _ = io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.PutFile(ctx, PutRequest{Source: r}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// And one that was read to its end is left open.
	p.reset()
	s := &closer{Reader: bytes.NewReader(data(1, chunk*20))}
	if _, err := c.PutFile(t.Context(), PutRequest{Source: s}); err != nil || s.closed {
		t.Fatalf("closed: %v, %v", s.closed, err)
	}
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }
