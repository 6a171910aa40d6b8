package diskstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Numbers of our own.
const (
	// segmentMin in bytes: smaller blocks stay in Pebble. At 1 KiB a record is
	// an eighth of its block, and so are all its copies in logs and tables.
	segmentMin = 1 << 10

	// aloneBytes: see appendValues.
	aloneBytes = 6 << 10

	// segmentBytes is the length at which a segment is closed: small enough to
	// be rewritten in passing, and 100 GB of small blocks are 6,000 files.
	segmentBytes = 16 << 20

	segmentSuffix = ".seg"
)

// segments keeps the blocks that are too small for a file each and too large
// for a table that rewrites them: they are appended to shared files.
//
//	DIR/segments/000000000000002a.seg
//	             number, hexadecimal
//
//	0          n
//	envelope   value   envelope   value   …          each as in a block file
//
// A segment's name is durable before, and a value in it fsynced before, a
// record in Pebble says where it is (docs/adr/0011). What no record names is
// garbage: values that were overwritten, deleted or never acknowledged. So the
// end of a segment may be torn, and nothing is replayed. Numbers count up; a
// start never appends to an old segment.
//
// Only the appender appends. Others read segments by number.
type segments struct {
	fs      *guard
	dir     string
	tag     tag
	size    int64
	planted planted

	next   uint64   // number of the next segment, from 1
	file   vfs.File // the open one, nil if none
	number uint64
	length int64
	buf    []byte
	sealed []sealedSegment // since they were asked for last
}

// sealedSegment is one that will not grow any more.
type sealedSegment struct {
	number uint64
	size   int64
}

func newSegments(g *guard, dir string, o *Options, t tag) *segments {
	return &segments{fs: g, dir: dir, tag: t, size: o.segment, planted: o.planted, next: 1}
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func parseSegmentName(name string) (number uint64, ok bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(stem, 16, 64)
	return number, err == nil && segmentName(number) == name
}

func (g *segments) path(number uint64) string { return g.fs.PathJoin(g.dir, segmentName(number)) }

// append makes the values of changes durable with one write and one fsync, and
// notes in their records where they are. After an error none of them counts,
// and what the segment holds from there on is garbage.
func (g *segments) append(changes []*change) (err error) {
	defer func() {
		if err != nil {
			g.seal()
		}
	}()
	if g.file != nil && g.length >= g.size {
		g.seal()
	}
	if g.file == nil {
		if err := g.open(); err != nil {
			return err
		}
	}
	if cap(g.buf) > 2*groupBytes {
		g.buf = nil // one large batch
	}
	g.buf = g.buf[:0]
	for _, c := range changes {
		c.rec.file, c.rec.offset = g.number, uint32(g.length+int64(len(g.buf)))
		inline := c.rec
		inline.form = formInline
		g.buf = appendEnvelope(g.buf, g.tag, c.key, &inline)
		g.buf = append(g.buf, c.value...)
	}
	n, err := g.file.Write(g.buf)
	g.length += int64(n)
	if err == nil && !g.planted.segmentUnsynced {
		err = g.file.SyncData()
	}
	return err
}

// open begins a segment and makes its name durable.
func (g *segments) open() error {
	f, err := g.fs.Create(g.path(g.next), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	g.file, g.number, g.length = f, g.next, 0
	g.next++
	if g.planted.segmentUnnamed {
		return nil
	}
	return syncDir(g.fs, g.dir)
}

// seal ends the open segment, if any.
func (g *segments) seal() {
	if g.file == nil {
		return
	}
	_ = g.file.Close() // what counts was fsynced
	g.file = nil
	g.sealed = append(g.sealed, sealedSegment{g.number, g.length})
}

// takeSealed returns the segments that were sealed since the last call.
func (g *segments) takeSealed() []sealedSegment {
	s := g.sealed
	g.sealed = nil
	return s
}

// read returns the verified value that rec, found under key, says is in a
// segment, in a slice of its own.
func (g *segments) read(key []byte, rec *record) ([]byte, error) {
	return readEnvelope(g.fs, g.path(rec.file), int64(rec.offset), g.tag, key, rec, readFull)
}

// remove deletes a segment that no durable record names. What it cannot delete
// now is swept at the next start.
func (g *segments) remove(number uint64) { _ = g.fs.Remove(g.path(number)) }

// count returns the number of segments.
func (g *segments) count() (n int, err error) {
	names, err := g.fs.List(g.dir)
	for _, name := range names {
		if _, ok := parseSegmentName(name); ok {
			n++
		}
	}
	return n, err
}

// scan calls f for the values of a segment, in order of their offsets, until f
// returns an error, the segment ends or its rest makes no sense. What f is
// given is valid during the call only, and not verified.
func (g *segments) scan(number uint64, f func(offset uint32, key []byte, r *record, value []byte) error) error {
	file, err := g.fs.Open(g.path(number))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // nothing was written
	in := bufio.NewReaderSize(file, writeBuffer)
	var offset int64
	var buf []byte
	for {
		lead, err := in.Peek(envelopeKey)
		if err != nil {
			return nil // the end, or what the last write left torn
		}
		head := envelopeKey + int(lead[envelopeKey-1]) + envelopeSum
		buf = grow(buf[:0], head)
		if _, err := io.ReadFull(in, buf); err != nil {
			return nil
		}
		length := int(binary.BigEndian.Uint32(buf[head-envelopeSum:]))
		if length > store.MaxValue {
			return nil
		}
		buf = grow(buf, length)
		if _, err := io.ReadFull(in, buf[head:]); err != nil {
			return nil
		}
		key := buf[envelopeKey : head-envelopeSum]
		r, value, err := parseEnvelope(g.tag, key, buf)
		if err != nil || r.form != formInline {
			return nil
		}
		if err := f(uint32(offset), key, &r, value); err != nil {
			return err
		}
		offset += int64(head + length)
	}
}

// grow returns b with n more bytes, whatever they are.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, len(b)+n), b...)
	}
	return b[:len(b)+n]
}

// segment is what the committer knows of one.
type segment struct {
	sealed bool
	size   int64     // once sealed
	live   int64     // bytes that records name
	tried  time.Time // when the compactor was given it last
}

func (g *segment) dead() int64 { return g.size - g.live }

// extent is the length of a value in a segment, its envelope included.
func extent(key []byte, length int) int64 { return int64(envelopeSize(key) + length) }

// readLive returns the live bytes of each segment, as the last durable group
// left them.
func (s *Store) readLive() (map[uint64]int64, error) {
	it, err := s.table.NewIter(&pebble.IterOptions{LowerBound: segmentKey(0), UpperBound: segmentKey(^uint64(0))})
	if err != nil {
		return nil, err
	}
	live := make(map[uint64]int64)
	for it.First(); it.Valid(); it.Next() {
		if len(it.Key()) != len(segmentKey(0)) || len(it.Value()) != 8 {
			continue
		}
		live[binary.BigEndian.Uint64(it.Key()[2:])] = int64(binary.BigEndian.Uint64(it.Value()))
	}
	return live, it.Close()
}

// sweepSegments deletes the segments in which nothing lives, at start, and
// takes note of the others. It returns how many of these have no file.
func (s *Store) sweepSegments(live map[uint64]int64) (missing int, err error) {
	names, err := s.segments.fs.List(s.segments.dir)
	if err != nil {
		return 0, err
	}
	s.segs = make(map[uint64]*segment, len(live))
	top := uint64(0)
	for _, name := range names {
		number, ok := parseSegmentName(name)
		if !ok {
			continue // not ours to delete
		}
		top = max(top, number)
		if live[number] <= 0 {
			if err := s.segments.fs.Remove(s.segments.path(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
			continue
		}
		info, err := s.segments.fs.Stat(s.segments.path(number))
		if err != nil {
			return 0, err
		}
		s.segs[number] = &segment{sealed: true, size: info.Size()}
	}
	for number, n := range live {
		top = max(top, number)
		g := s.segs[number]
		if g == nil {
			g = &segment{sealed: true}
			s.segs[number] = g
			if n > 0 {
				missing++
			}
		}
		g.live = n
		if n <= 0 {
			s.unchecked = append(s.unchecked, number)
		}
	}
	s.segments.next = top + 1
	return missing, nil
}

// reloadSegments takes over the live bytes that a reopened Pebble has.
func (s *Store) reloadSegments(live map[uint64]int64) {
	s.unchecked = nil
	for number, g := range s.segs {
		g.live = live[number]
		delete(live, number)
		s.unchecked = append(s.unchecked, number)
	}
	for number, n := range live { // emptied by groups that were lost
		g := &segment{sealed: true, size: n, live: n}
		if info, err := s.segments.fs.Stat(s.segments.path(number)); err == nil {
			g.size = info.Size()
		}
		s.segs[number] = g
	}
}
