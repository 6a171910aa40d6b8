package files

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"

	"atoll.example/atoll/internal/cputime"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// sink takes blocks and forgets them.
type sink struct {
	pool
	flying, most atomic.Int64
}

func (s *sink) Put(context.Context, id.GUID, []byte, [16]byte, PutOptions) (Copies, error) {
	if n := s.flying.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	s.flying.Add(-1)
	return Copies{Min: 3, Target: 3}, nil
}

func (s *sink) Head(_ context.Context, gs []id.GUID) ([]Presence, error) {
	return make([]Presence, len(gs)), nil
}

// counter yields chunks that differ, at no cost.
type counter struct{ left, n int64 }

func (c *counter) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.left)
	c.left -= n
	c.n++
	for i := range 8 {
		p[i%len(p)] = byte(c.n >> (8 * i))
	}
	return int(n), nil
}

// BenchmarkPut is the client's share of a put: read, seal, name, journal.
func BenchmarkPut(b *testing.B) {
	const size = 256 << 20
	c := open(b, &sink{}, b.TempDir())
	b.SetBytes(size)
	start := cputime.Used()
	for b.Loop() {
		if _, err := c.PutFile(b.Context(), PutRequest{Source: &counter{left: size}}); err != nil {
			b.Fatal(err)
		}
	}
	if used := cputime.Used() - start; used > 0 {
		b.ReportMetric(used.Seconds()*1e3/float64(b.N)/(size>>20), "CPU-ms/MiB")
	}
}

// BenchmarkGet is the client's share of a get, to a writer and to a path.
func BenchmarkGet(b *testing.B) {
	const size = 64 << 20
	p := newPool()
	c := open(b, p, b.TempDir())
	r, err := c.PutFile(b.Context(), PutRequest{Source: &counter{left: size}, Name: "x"})
	if err != nil {
		b.Fatal(err)
	}
	for name, get := range map[string]func() error{
		"stream": func() error { _, err := c.GetFile(b.Context(), r.Link, io.Discard, GetOptions{}); return err },
		"path": func() error {
			_, _, err := c.SaveFile(b.Context(), r.Link, b.TempDir(), SaveOptions{})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			start := cputime.Used()
			for b.Loop() {
				if err := get(); err != nil {
					b.Fatal(err)
				}
			}
			if used := cputime.Used() - start; used > 0 {
				b.ReportMetric(used.Seconds()*1e3/float64(b.N)/(size>>20), "CPU-ms/MiB")
			}
		})
	}
}

// BenchmarkPutSmall is a put of 4 KiB: one block, one synced line.
func BenchmarkPutSmall(b *testing.B) {
	c := open(b, &sink{}, b.TempDir())
	small := data(1, 4096)
	for b.Loop() {
		if _, err := c.PutFile(b.Context(), PutRequest{Source: bytes.NewReader(small), Name: "s"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCatalogue(b *testing.B) {
	c := openCatalogue(b, b.TempDir()+"/catalogue")
	for i := range 10_000 {
		e := entry(i, fmt.Sprintf("dir%d/file%d", i%100, i))
		c.entries[e.Link.Root] = e
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if len(c.List("dir42/")) != 100 {
				b.Fatal("list")
			}
		}
	})
	b.Run("add", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if err := c.Add(entry(i, "new")); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// held keeps every block from a Put's begin to its end, and measures what is
// alive meanwhile.
type held struct {
	sink
	puts atomic.Int64
	peak atomic.Uint64
}

func (h *held) Put(ctx context.Context, g id.GUID, block []byte, c [16]byte, o PutOptions) (Copies, error) {
	if h.puts.Add(1)%16 == 0 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		for {
			old := h.peak.Load()
			if m.HeapAlloc <= old || h.peak.CompareAndSwap(old, m.HeapAlloc) {
				break
			}
		}
	}
	runtime.KeepAlive(block)
	return h.sink.Put(ctx, g, block, c, o)
}

// However large the file, what is alive is the window, the stage and change.
func TestMemoryIsBounded(t *testing.T) {
	const size = 300 << 20
	h := &held{}
	c := open(t, h, t.TempDir())
	if _, err := c.PutFile(t.Context(), PutRequest{Source: &counter{left: size}}); err != nil {
		t.Fatal(err)
	}
	// Twice what is held, since others allocate between collection and measure.
	limit := 2 * uint64(c.cfg.Window+c.cfg.Window/2+2*c.cfg.Sealers+8) * seal.MaxBlock
	if peak := h.peak.Load(); peak == 0 || peak > limit {
		t.Errorf("%d MiB alive while putting, at most %d", peak>>20, limit>>20)
	}
	if n := h.most.Load(); n > int64(c.cfg.Window) {
		t.Errorf("%d puts at once", n)
	}
}

// The window bounds calls under way, of whatever kind.
func TestWindowBoundsCalls(t *testing.T) {
	const chunk = 64
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk), func(c *Config) { c.Window = 4 })
	p.wait = func(context.Context, string) error { runtime.Gosched(); return nil }
	r := put(t, c, data(1, chunk*1100))
	if p.most > 4+1 { // and one Head
		t.Errorf("put: %d at once", p.most)
	}
	p.most = 0
	get(t, c, r.Link)
	if p.most > 4 {
		t.Errorf("get: %d at once", p.most)
	}
}
