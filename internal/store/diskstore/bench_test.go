//go:build unix

package diskstore

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"atoll.example/atoll/internal/cputime"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Figures of 20-dht §11. A disk is shared and varies, so each is to be read
// beside BenchmarkPlain of the same run: files written and fsynced one by one
// by as many goroutines.
//
//	go test -run - -bench . ./internal/store/diskstore

func benchStore(b *testing.B, o Options) *Store {
	b.Helper()
	o.Pool = testPool
	o.Limit = 1 << 40
	s := mustOpen(b, filepath.Join(b.TempDir(), "store"), o)
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// callers spreads b.N calls over goroutines and reports calls per second.
func callers(b *testing.B, n int, f func(i uint64) error) {
	b.Helper()
	var next atomic.Uint64
	var wg sync.WaitGroup
	cpu := cputime.Used()
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > uint64(b.N) {
					return
				}
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cputime.Used()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(0, "ns/op")
}

func benchPut(b *testing.B, o Options, size, n int) {
	fs := &countingFS{FS: vfs.Default}
	o.FS = fs
	s := benchStore(b, o)
	device := deviceBytes()
	v := storetest.Value(1, size)
	b.SetBytes(int64(size))
	callers(b, n, func(i uint64) error {
		op := storetest.Put(store.Block, storetest.GUID(i*0x9e3779b97f4a7c15), "", v)
		return s.Apply(b.Context(), store.Batch{Ops: []store.Op{op}})
	})
	logical := float64(b.N * size)
	if err := s.table.Flush(); err != nil { // else the last memtable would not count
		b.Error(err)
	}
	if err := s.Close(); err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(fs.bytes.Load())/logical, "B/B")
	b.ReportMetric(float64(deviceBytes()-device)/logical, "disk-B/B")
}

// countingFS counts the bytes that a store writes: log, tables, manifests,
// segments and block files.
type countingFS struct {
	vfs.FS
	bytes atomic.Int64
}

func (f *countingFS) count(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &countingFile{File: file, fs: f}, nil
}

func (f *countingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.count(f.FS.Create(name, c))
}

func (f *countingFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.count(f.FS.ReuseForWrite(oldname, newname, c))
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (f *countingFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.fs.bytes.Add(int64(n))
	return n, err
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.fs.bytes.Add(int64(n))
	return n, err
}

// deviceBytes is what the process has made the kernel write, in whole pages;
// 0 where the kernel does not say.
func deviceBytes() (n int64) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return 0
}

func BenchmarkPut(b *testing.B) {
	for _, c := range []struct{ size, callers int }{{4 << 10, 1}, {4 << 10, 4}, {4 << 10, 16}, {4 << 10, 64}, {1 << 20, 1}, {1 << 20, 16}} {
		b.Run(fmt.Sprintf("%dKiB/callers=%d", c.size>>10, c.callers), func(b *testing.B) {
			benchPut(b, Options{}, c.size, c.callers)
		})
	}
}

// BenchmarkPutPebble is Pebble alone with its defaults, a synced Set for each
// block: the limit of a tree of tables.
func BenchmarkPutPebble(b *testing.B) {
	const size = 4 << 10
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dKiB/callers=%d", size>>10, n), func(b *testing.B) {
			fs := &countingFS{FS: vfs.Default}
			db, err := pebble.Open(b.TempDir(), &pebble.Options{FS: fs, Logger: &logger{}})
			if err != nil {
				b.Fatal(err)
			}
			device := deviceBytes()
			v := storetest.Value(1, size)
			b.SetBytes(size)
			callers(b, n, func(i uint64) error {
				g := storetest.GUID(i * 0x9e3779b97f4a7c15)
				return db.Set(g[:], v, pebble.Sync)
			})
			if err := db.Flush(); err != nil { // else the last memtable would not count
				b.Error(err)
			}
			if err := db.Close(); err != nil {
				b.Error(err)
			}
			b.ReportMetric(float64(fs.bytes.Load())/float64(b.N*size), "B/B")
			b.ReportMetric(float64(deviceBytes()-device)/float64(b.N*size), "disk-B/B")
		})
	}
}

// BenchmarkPlain is what a loop of create, write, fsync and close does.
func BenchmarkPlain(b *testing.B) {
	for _, c := range []struct{ size, callers int }{{4 << 10, 1}, {4 << 10, 64}, {1 << 20, 1}, {1 << 20, 16}} {
		b.Run(fmt.Sprintf("%dKiB/callers=%d", c.size>>10, c.callers), func(b *testing.B) {
			dir := b.TempDir()
			v := storetest.Value(1, c.size)
			b.SetBytes(int64(c.size))
			callers(b, c.callers, func(i uint64) error {
				f, err := os.Create(filepath.Join(dir, strconv.FormatUint(i, 16)))
				if err != nil {
					return err
				}
				if _, err := f.Write(v); err != nil {
					return err
				}
				if err := f.Sync(); err != nil {
					return err
				}
				return f.Close()
			})
		})
	}
}

// BenchmarkThreshold puts blocks of one size into segments and into files, to find the
// size from which a file is cheaper.
func BenchmarkThreshold(b *testing.B) {
	for _, size := range []int{32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20} {
		for _, where := range []string{"segment", "file"} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, where), func(b *testing.B) {
				o := Options{Threshold: size}
				if where == "segment" {
					o.Threshold = size + 1
				}
				benchPut(b, o, size, 16)
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, c := range []struct{ size, callers int }{{4 << 10, 16}, {1 << 20, 1}, {1 << 20, 4}} {
		b.Run(fmt.Sprintf("%dKiB/callers=%d", c.size>>10, c.callers), func(b *testing.B) {
			s := benchStore(b, Options{})
			const blocks = 64
			var all store.Batch // one batch: the small ones go into a segment
			for i := range uint64(blocks) {
				all.Ops = append(all.Ops, storetest.Put(store.Block, storetest.GUID(i), "", storetest.Value(i, c.size)))
			}
			if err := s.Apply(b.Context(), all); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(c.size))
			callers(b, c.callers, func(i uint64) error {
				_, err := s.Get(b.Context(), store.Key{Family: store.Block, GUID: storetest.GUID(i % blocks)})
				return err
			})
		})
	}
}
