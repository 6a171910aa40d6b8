package diskstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Numbers of our own.
const (
	// shardFiles is the number of block files in one folder. Files are
	// numbered as they come, so writers at one time share one folder and one
	// fsync of it serves them all; folders by GUID would need one each.
	shardFiles = 4096

	// maxWriters bounds the files being written at once: each holds a thread
	// in fsync, and more gained nothing.
	maxWriters = 16

	// writeBuffer in bytes: a value goes to its file in parts of this size.
	writeBuffer = 128 << 10

	blockSuffix = ".blk"
	tempSuffix  = ".tmp" // of releases that wrote a block under another name first
)

// blockFiles keeps large blocks, one file each, under numbers that are never
// used twice:
//
//	DIR/blocks/0000000000/000000000000002a.blk
//	           shard      number, both hexadecimal
//
// A file is written and fsynced, and its folder fsynced; then only may a record
// in Pebble name it. A file no record names is an orphan, whole or torn, and is
// swept at the next start.
//
// Blocks pass through the page cache without staying: see dropCache.
type blockFiles struct {
	fs      *guard
	dir     string
	tag     tag
	planted planted
	writers chan struct{} // semaphore, maxWriters
	next    atomic.Uint64 // number of the next file
	buffers sync.Pool     // *[]byte of writeBuffer bytes

	mu     sync.Mutex
	shards map[uint64]*shard
}

// shard is one folder. Its rounds of fsync are a group commit: whoever comes
// while one is running waits for the next, which serves all who came.
type shard struct {
	dir  string
	made sync.Mutex // held while the folder is being made
	ok   bool       // folder exists and its name is durable

	mu      sync.Mutex
	running bool
	next    *syncRound // joined by those who come while one runs
}

type syncRound struct {
	done chan struct{}
	err  error
}

func newBlockFiles(g *guard, dir string, t tag, p planted) *blockFiles {
	b := &blockFiles{
		fs: g, dir: dir, tag: t, planted: p,
		writers: make(chan struct{}, maxWriters),
		shards:  make(map[uint64]*shard),
		buffers: sync.Pool{New: func() any {
			buf := make([]byte, 0, writeBuffer)
			return &buf
		}},
	}
	b.next.Store(1)
	return b
}

func isBlock(name string) bool { return strings.HasSuffix(name, blockSuffix) }

func isSegment(name string) bool { return strings.HasSuffix(name, segmentSuffix) }

func shardName(n uint64) string { return fmt.Sprintf("%010x", n) }

func (b *blockFiles) path(number uint64) string {
	return b.fs.PathJoin(b.dir, shardName(number/shardFiles), fmt.Sprintf("%016x%s", number, blockSuffix))
}

// shard returns the folder of a number, made durable if it is new.
func (b *blockFiles) shard(number uint64) (*shard, error) {
	n := number / shardFiles
	b.mu.Lock()
	sh := b.shards[n]
	if sh == nil {
		sh = &shard{dir: b.fs.PathJoin(b.dir, shardName(n))}
		b.shards[n] = sh
		for old := range b.shards {
			if old+2 < n { // nobody writes there any more
				delete(b.shards, old)
			}
		}
	}
	b.mu.Unlock()

	sh.made.Lock()
	defer sh.made.Unlock()
	if sh.ok {
		return sh, nil
	}
	if err := b.fs.MkdirAll(sh.dir, 0o700); err != nil {
		return nil, err
	}
	if err := syncDir(b.fs, b.dir); err != nil {
		return nil, err
	}
	sh.ok = true
	return sh, nil
}

// write stores value in a new file and returns its number once the file and
// its name are durable. After an error nothing is left.
func (b *blockFiles) write(key, value []byte, sum [32]byte) (uint64, error) {
	number := b.next.Add(1) - 1
	sh, err := b.shard(number)
	if err != nil {
		return 0, err
	}
	b.writers <- struct{}{}
	err = b.writeFile(number, key, value, sum)
	<-b.writers
	if err != nil {
		return 0, err
	}
	if !b.planted.skipDirSync {
		if err := sh.sync(b.fs); err != nil {
			b.remove(number)
			return 0, err
		}
	}
	return number, nil
}

func (b *blockFiles) writeFile(number uint64, key, value []byte, sum [32]byte) (err error) {
	f, err := b.fs.Create(b.path(number), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.remove(number)
		}
	}()
	err = b.fill(f, key, value, sum)
	if err == nil && !b.planted.recordFirst {
		err = f.Sync()
	}
	if err == nil {
		dropCache(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// fill writes envelope and value through a buffer: vfs.File may scribble over
// what it is given, and the value is not ours.
func (b *blockFiles) fill(f vfs.File, key, value []byte, sum [32]byte) error {
	buf := b.buffers.Get().(*[]byte)
	defer b.buffers.Put(buf)
	part := appendEnvelope((*buf)[:0], b.tag, key, &record{form: formInline, length: len(value), sum: sum})
	for {
		n := min(len(value), cap(part)-len(part))
		part = append(part, value[:n]...)
		value = value[n:]
		if _, err := f.Write(part); err != nil || len(value) == 0 {
			return err
		}
		part = (*buf)[:0]
	}
}

// read returns the verified value that rec, found under key, says is in a
// file, in a slice of its own.
func (b *blockFiles) read(key []byte, rec *record) ([]byte, error) {
	return readEnvelope(b.fs, b.path(rec.file), 0, b.tag, key, rec, readOnce)
}

// readEnvelope returns the verified value that rec, found under key, says is
// in a file at offset, in a slice of its own. read is readOnce or readFull.
func readEnvelope(fsys vfs.FS, path string, offset int64, t tag, key []byte, rec *record,
	read func(f vfs.File, buf []byte, offset int64) error,
) (value []byte, err error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	n := envelopeSize(key)
	buf := make([]byte, n+rec.length)
	if err := read(f, buf, offset); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: file ends early", store.ErrCorrupt)
		}
		return nil, err
	}
	head, value, err := parseEnvelope(t, key, buf)
	if err != nil {
		return nil, err
	}
	if head.form != formInline || !head.sameValue(rec.length, &rec.sum) {
		return nil, fmt.Errorf("%w: file of another value", store.ErrCorrupt)
	}
	return value[:len(value):len(value)], head.verify(value)
}

// readFull fills buf from what a file has at offset.
func readFull(f vfs.File, buf []byte, offset int64) error {
	_, err := io.ReadFull(io.NewSectionReader(f, offset, int64(len(buf))), buf)
	return err
}

// remove deletes a file that no durable record names. What it cannot delete
// now is swept at the next start.
func (b *blockFiles) remove(number uint64) { _ = b.fs.Remove(b.path(number)) }

// sync returns once an fsync of the folder that began after the call is done.
func (sh *shard) sync(g *guard) error {
	sh.mu.Lock()
	if sh.running {
		round := sh.next
		if round == nil {
			round = &syncRound{done: make(chan struct{})}
			sh.next = round
		}
		sh.mu.Unlock()
		<-round.done
		return round.err
	}
	sh.running = true
	sh.mu.Unlock()

	err := syncDir(g, sh.dir)
	sh.mu.Lock()
	if round := sh.next; round != nil {
		// Those who came meanwhile need a round of their own. It runs in a
		// goroutine so that this caller need not wait for it.
		sh.next = nil
		go sh.runRound(g, round)
	} else {
		sh.running = false
	}
	sh.mu.Unlock()
	return err
}

// runRound does one round after another until nobody waits. Each waiter in
// sync waits for it.
func (sh *shard) runRound(g *guard, round *syncRound) {
	for round != nil {
		round.err = syncDir(g, sh.dir)
		close(round.done)
		sh.mu.Lock()
		round, sh.next = sh.next, nil
		if round == nil {
			sh.running = false
		}
		sh.mu.Unlock()
	}
}

func syncDir(f vfs.FS, dir string) error {
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// count returns the number of block files.
func (b *blockFiles) count() (n int, err error) {
	shards, err := b.fs.List(b.dir)
	if err != nil {
		return 0, err
	}
	for _, name := range shards {
		files, err := b.fs.List(b.fs.PathJoin(b.dir, name))
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			if _, suffix, ok := parseBlockName(f); ok && suffix == blockSuffix {
				n++
			}
		}
	}
	return n, nil
}

// sweep deletes the files and temporary files that are not live, and empty
// folders. live is called with rising bounds and returns the sorted numbers in
// [lo, hi) that a record names. It returns how many of these have no file.
func (b *blockFiles) sweep(live func(lo, hi uint64) ([]uint64, error)) (missing int, err error) {
	names, err := b.fs.List(b.dir)
	if err != nil {
		return 0, err
	}
	shards := make(map[uint64]bool, len(names))
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 16, 64); err == nil && shardName(n) == name {
			shards[n] = true
		}
	}
	order := make([]uint64, 0, len(shards))
	for n := range shards {
		order = append(order, n)
	}
	slices.Sort(order)
	top, from := uint64(0), uint64(0)
	for _, n := range append(order, ^uint64(0)/shardFiles) {
		// Records of folders that are gone altogether.
		lost, err := live(from, n*shardFiles)
		if err != nil {
			return 0, err
		}
		missing += len(lost)
		if len(lost) > 0 {
			top = max(top, lost[len(lost)-1])
		}
		if !shards[n] {
			break
		}
		from = (n + 1) * shardFiles
		want, err := live(n*shardFiles, from)
		if err != nil {
			return 0, err
		}
		last, gone, err := b.sweepShard(n, want)
		if err != nil {
			return 0, err
		}
		missing += gone
		top = max(top, last)
	}
	b.next.Store(top + 1)
	return missing, nil
}

// sweepShard returns the highest number seen in a folder, live or not, and how
// many of want have no file.
func (b *blockFiles) sweepShard(n uint64, want []uint64) (last uint64, missing int, err error) {
	dir := b.fs.PathJoin(b.dir, shardName(n))
	names, err := b.fs.List(dir)
	if err != nil {
		return 0, 0, err
	}
	found, kept := 0, 0
	for _, name := range names {
		number, suffix, ok := parseBlockName(name)
		if !ok {
			kept++ // not ours to delete
			continue
		}
		last = max(last, number)
		if _, isLive := slices.BinarySearch(want, number); isLive && suffix == blockSuffix {
			found++
			continue
		}
		if err := b.fs.Remove(b.fs.PathJoin(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
	}
	if len(want) > 0 {
		last = max(last, want[len(want)-1])
	}
	if found+kept == 0 && len(want) == 0 {
		_ = b.fs.Remove(dir) // only tidiness: an empty folder does no harm
	}
	return last, len(want) - found, nil
}

func parseBlockName(name string) (number uint64, suffix string, ok bool) {
	stem, isBlock := strings.CutSuffix(name, blockSuffix)
	suffix = blockSuffix
	if !isBlock {
		var isTemp bool
		if stem, isTemp = strings.CutSuffix(name, tempSuffix); !isTemp {
			return 0, "", false
		}
		suffix = tempSuffix
	}
	number, err := strconv.ParseUint(stem, 16, 64)
	// Only the one way we write a number: a stranger's file is not swept.
	return number, suffix, err == nil && stem == fmt.Sprintf("%016x", number)
}
