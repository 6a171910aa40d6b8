package files

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
	"atoll.example/atoll/internal/wire"
)

// A journal (DIR/uploads/ID, mode 0600) lets a put go on after Ctrl-C, kill or
// power cut, and lets the blocks of a put that is never taken up again be
// removed. Records, each ending in the first 4 bytes of the BLAKE3 of all its
// bytes before them:
//
//	head    'H' len u16 · fields of journalHead      once, first
//	intent  'I' GUID 32                              before a block goes out
//	ack     'A' index u64, hole u8, length u32, min u8, target u8, new u8, GUID 32, r 32
//
// Reading ends at the first record that is torn. Records are written as they
// come, which a killed process does not lose, and synced every syncEvery
// intents: a power cut costs so many blocks sent again, and at worst leaves so
// many claims without a journal to end them.
type journal struct {
	path string
	head journalHead

	mu       sync.Mutex // guards all below
	f        *os.File
	buf      []byte
	unsynced int
	named    bool          // the directory was synced
	used     bool          // a block went out, now or before
	acked    map[int64]ack // as found when opened; not added to
}

const (
	syncEvery  = 64
	maxHead    = 2 << 10
	sumSize    = 4
	intentSize = 1 + id.Size + sumSize
	ackSize    = 1 + 8 + 1 + 4 + 3 + 32 + 32 + sumSize
)

// identity tells a source apart from others, so that a put finds its journal.
type identity struct {
	Device, Inode uint64 // of a path
	Size          int64
	Mtime         int64  // ns
	Key           string // of a stream: its resume key; of a path: its ctime
}

func (i identity) isZero() bool { return i == identity{} }

type journalHead struct {
	Source  identity
	Pool    [32]byte
	Claim   [16]byte
	Secret  [8]byte     // id of the member's secret
	Own     seal.Secret // of a unique put
	Unique  bool
	Clear   bool
	K, W    uint8
	Chunk   uint32
	Name    string
	Created int64 // Unix ms
}

// sameUpload reports whether a put described by h may go on with o's journal.
func (h journalHead) sameUpload(o journalHead) bool {
	return !h.Source.isZero() && h.Source == o.Source && h.Pool == o.Pool && h.Unique == o.Unique && h.Clear == o.Clear &&
		(h.Unique || h.Clear || h.Secret == o.Secret) && h.K == o.K && h.W == o.W && h.Chunk == o.Chunk && h.Name == o.Name
}

type ack struct {
	hole        bool
	length      uint32
	min, target uint8
	fresh       bool // was not in the pool before
	guid        id.GUID
	read        seal.ReadKey
}

func (h *journalHead) encode() []byte {
	var w wire.Writer
	w.U8(1) // version
	w.U64(h.Source.Device)
	w.U64(h.Source.Inode)
	w.U64(uint64(h.Source.Size))
	w.U64(uint64(h.Source.Mtime))
	w.Bytes16([]byte(h.Source.Key))
	w.Fixed(h.Pool[:])
	w.Fixed(h.Claim[:])
	w.Fixed(h.Secret[:])
	w.Fixed(h.Own[:])
	w.Bool(h.Unique)
	w.Bool(h.Clear)
	w.U8(h.K)
	w.U8(h.W)
	w.U32(h.Chunk)
	w.Bytes8([]byte(h.Name))
	w.U64(uint64(h.Created))
	return w.B
}

func decodeHead(b []byte) (h journalHead, err error) {
	r := wire.NewReader(b)
	if v := r.U8(); v != 1 {
		r.Fail(wire.ErrVersion)
	}
	h.Source.Device = r.U64()
	h.Source.Inode = r.U64()
	h.Source.Size = int64(r.U64())
	h.Source.Mtime = int64(r.U64())
	h.Source.Key = string(r.Bytes16(maxResumeKey))
	r.Into(h.Pool[:])
	r.Into(h.Claim[:])
	r.Into(h.Secret[:])
	r.Into(h.Own[:])
	h.Unique = r.Bool()
	h.Clear = r.Bool()
	h.K = r.U8()
	h.W = r.U8()
	h.Chunk = r.U32()
	h.Name = string(r.Bytes8(seal.MaxName))
	h.Created = int64(r.U64())
	return h, r.Close()
}

const maxResumeKey = 1 << 10

func appendSum(record []byte) []byte {
	sum := blake3.Sum256(record)
	return append(record, sum[:sumSize]...)
}

func sumOK(record []byte) bool {
	n := len(record) - sumSize
	sum := blake3.Sum256(record[:n])
	return [sumSize]byte(record[n:]) == [sumSize]byte(sum[:])
}

func encodeAck(index int64, a ack) []byte {
	w := wire.Writer{B: make([]byte, 0, ackSize)}
	w.U8('A')
	w.U64(uint64(index))
	w.Bool(a.hole)
	w.U32(a.length)
	w.U8(a.min)
	w.U8(a.target)
	w.Bool(a.fresh)
	w.GUID(a.guid)
	w.Fixed(a.read[:])
	return appendSum(w.B)
}

func decodeAck(record []byte) (index int64, a ack, err error) {
	r := wire.NewReader(record[1 : len(record)-sumSize])
	index = int64(r.U64())
	a.hole = r.Bool()
	a.length = r.U32()
	a.min = r.U8()
	a.target = r.U8()
	a.fresh = r.Bool()
	a.guid = r.GUID()
	r.Into(a.read[:])
	return index, a, r.Close()
}

// createJournal starts the journal of a new put.
func createJournal(dir string, random io.Reader, h journalHead) (*journal, error) {
	var name [8]byte
	if _, err := io.ReadFull(random, name[:]); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, hex.EncodeToString(name[:]))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	body := h.encode()
	w := wire.Writer{}
	w.U8('H')
	w.Bytes16(body)
	j := &journal{path: path, head: h, f: f}
	if err := j.write(appendSum(w.B)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return j, nil
}

// contents is what a journal says.
type contents struct {
	head    journalHead
	acked   map[int64]ack
	intents map[id.GUID]struct{} // nil unless asked for
	end     int64                // of the last whole record
}

var errJournal = errors.New("not a journal of this version")

// readJournal reads a journal up to the first torn record. headOnly stops
// after the head.
func readJournal(f io.Reader, headOnly, intents bool) (c contents, err error) {
	r := bufio.NewReaderSize(f, 64<<10)
	start := make([]byte, 3, maxHead+3+sumSize)
	if _, err := io.ReadFull(r, start); err != nil || start[0] != 'H' {
		return c, errJournal
	}
	n := int(start[1])<<8 | int(start[2])
	if n > maxHead {
		return c, errJournal
	}
	record := start[:3+n+sumSize]
	if _, err := io.ReadFull(r, record[3:]); err != nil || !sumOK(record) {
		return c, errJournal
	}
	if c.head, err = decodeHead(record[3 : 3+n]); err != nil {
		return c, fmt.Errorf("%w: %w", errJournal, err)
	}
	c.end = int64(len(record))
	if headOnly {
		return c, nil
	}
	c.acked = make(map[int64]ack)
	if intents {
		c.intents = make(map[id.GUID]struct{})
	}
	var buf [ackSize]byte
	for {
		kind, err := r.ReadByte()
		if err != nil {
			return c, nil
		}
		size := map[byte]int{'I': intentSize, 'A': ackSize}[kind]
		if size == 0 {
			return c, nil
		}
		buf[0] = kind
		record := buf[:size]
		if _, err := io.ReadFull(r, record[1:]); err != nil || !sumOK(record) {
			return c, nil
		}
		switch kind {
		case 'I':
			if intents {
				c.intents[id.GUID(record[1:1+id.Size])] = struct{}{}
			}
		case 'A':
			index, a, err := decodeAck(record)
			if err != nil {
				return c, nil
			}
			c.acked[index] = a
		}
		c.end += int64(size)
	}
}

// resumeJournal opens the journal at path to go on with it.
func resumeJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c, err := readJournal(f, false, false)
	if err == nil {
		err = f.Truncate(c.end)
	}
	if err == nil {
		_, err = f.Seek(c.end, io.SeekStart)
	}
	if err == nil { // it is being touched: the sweep counts from now
		now := time.Now()
		err = os.Chtimes(path, now, now)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &journal{path: path, head: c.head, f: f, acked: c.acked, used: true}, nil
}

// read gives back what was written so far, of this process or those before.
func (j *journal) read() (contents, error) {
	return readJournal(io.NewSectionReader(j.f, 0, math.MaxInt64), false, false)
}

func (j *journal) write(record []byte) error {
	if _, err := j.f.Write(record); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// intend records that these blocks are about to go out.
func (j *journal) intend(gs ...id.GUID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.used = true
	j.buf = j.buf[:0]
	for _, g := range gs {
		at := len(j.buf)
		j.buf = append(append(j.buf, 'I'), g[:]...)
		sum := blake3.Sum256(j.buf[at:])
		j.buf = append(j.buf, sum[:sumSize]...)
	}
	if err := j.write(j.buf); err != nil {
		return err
	}
	if j.unsynced += len(gs); j.unsynced >= syncEvery {
		return j.syncLocked()
	}
	return nil
}

func (j *journal) acknowledge(index int64, a ack) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.write(encodeAck(index, a))
}

func (j *journal) syncLocked() error {
	if err := j.f.Sync(); err != nil {
		return wrap(codeDiskFailed, fmt.Errorf("journal: %w", err))
	}
	if !j.named {
		if err := syncDir(filepath.Dir(j.path)); err != nil {
			return wrap(codeDiskFailed, fmt.Errorf("journal: %w", err))
		}
	}
	j.unsynced, j.named = 0, true
	return nil
}

// keep closes the journal for a later put to go on with; one that never sent
// a block is of no use and removed.
func (j *journal) keep() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.used {
		return errors.Join(j.f.Close(), os.Remove(j.path))
	}
	return errors.Join(j.f.Sync(), j.f.Close())
}

// discard ends a put whose file is in the catalogue.
func (j *journal) discard() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.f.Close(), os.Remove(j.path))
}
