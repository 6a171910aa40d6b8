package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// A manifest node (kind 3) lists up to 512 children: data blocks at level 0,
// manifests of the level below above it. All integers are big-endian.
//
//	header 8 | level u8, count u16, lenA u32 | A sealed with v | B sealed with the read key
//
//	A, per child:  GUID 32, flags u8 (1 = hole), and above level 0: v of the child 32
//	B, root only:  total u64, claim 16, name u8 + bytes, mode u32, mtime i64 (Unix ms),
//	               chunking u8 (1 = fixed), chunk size u32, inline data u16 + bytes
//	B, per child:  r of the child 32, length u64
//
// lenA is the length of A as stored, its tag included; B takes the rest. The
// AAD of each section is all that stands before it. r covers header, level,
// count, lenA, A and B in the clear. Holes have zero GUID and keys; clear
// manifests (suite 0) zero keys, and store A and B as they are. A hole above
// level 0 stands for a whole subtree of zeros.

// Bounds of manifests.
const (
	FanOut    = 512
	MaxLevel  = 2       // 128 TiB in chunks of 1 MiB
	MaxInline = 4 << 10 // a file up to this size stands in its root
	MaxName   = 255

	preambleSize = HeaderSize + 1 + 2 + 4
	flagHole     = 1
)

// ErrManifest: a block that opens, but is not a manifest of this version.
var ErrManifest = errors.New("not a valid manifest")

// Chunking says how a file was cut.
type Chunking uint8

// Fixed cuts every ChunkSize bytes.
const Fixed Chunking = 1

// Child is one entry of a manifest. Read and Length are known to readers only.
type Child struct {
	GUID   id.GUID
	Hole   bool      // zeros; nothing is stored
	Verify VerifyKey // above level 0; follows from Read
	Read   ReadKey
	Length uint64 // bytes of the file below this child, > 0
}

// Root is what only the root of a file's tree holds.
type Root struct {
	Total     uint64
	Claim     [16]byte // names the put, so that its owner can remove by link alone
	Name      string   // one path element or empty
	Mode      uint32   // permission bits, ≤ 0777
	Mtime     int64    // Unix ms
	Chunking  Chunking
	ChunkSize uint32 // 1 … MaxPlain
	Inline    []byte // the whole file, if that is ≤ MaxInline; then no children
}

// Manifest is a node of a file's tree.
type Manifest struct {
	Level    uint8
	Children []Child
	Root     *Root // set in the root only
}

// Span returns the bytes of a file below one full child of a node at level.
func Span(level uint8, chunk uint32) uint64 {
	n := uint64(chunk)
	for range level {
		n *= FanOut
	}
	return n
}

// ValidName reports whether name can be the name of a file in a directory:
// one path element of at most 255 bytes, without NUL. Empty is not valid.
func ValidName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= MaxName &&
		!strings.ContainsAny(name, "/\x00")
}

// check states all a manifest must satisfy, written or read.
func (m *Manifest) check(clear bool) error {
	if m.Level > MaxLevel {
		return fmt.Errorf("%w: level %d", ErrManifest, m.Level)
	}
	if len(m.Children) > FanOut {
		return fmt.Errorf("%w: %d children", ErrManifest, len(m.Children))
	}
	var sum uint64
	for i := range m.Children {
		c := &m.Children[i]
		if c.Length == 0 || c.Length > math.MaxInt64-sum {
			return fmt.Errorf("%w: length %d of child %d", ErrManifest, c.Length, i)
		}
		if keyless := c.Hole || clear; keyless != (c.Read == ReadKey{}) {
			return fmt.Errorf("%w: key of child %d", ErrManifest, i)
		}
		if c.Hole && !c.GUID.IsZero() {
			return fmt.Errorf("%w: hole %d has a GUID", ErrManifest, i)
		}
		sum += c.Length
	}
	r := m.Root
	switch {
	case r == nil && len(m.Children) == 0:
		return fmt.Errorf("%w: no children", ErrManifest)
	case r == nil:
		return nil
	case len(m.Children) == 0 && m.Level != 0:
		return fmt.Errorf("%w: inline file at level %d", ErrManifest, m.Level)
	case len(m.Children) > 0 && len(r.Inline) > 0 || len(r.Inline) > MaxInline:
		return fmt.Errorf("%w: %d bytes inline beside %d children", ErrManifest, len(r.Inline), len(m.Children))
	case r.Total != sum+uint64(len(r.Inline)):
		return fmt.Errorf("%w: total %d, children hold %d", ErrManifest, r.Total, sum)
	case r.Name != "" && !ValidName(r.Name):
		return fmt.Errorf("%w: name not valid", ErrManifest)
	case r.Mode > 0o777:
		return fmt.Errorf("%w: mode %#o", ErrManifest, r.Mode)
	case r.Chunking != Fixed:
		return fmt.Errorf("%w: chunking %d is not known to this version", ErrManifest, r.Chunking)
	case r.ChunkSize == 0 || r.ChunkSize > MaxPlain:
		return fmt.Errorf("%w: chunk size %d", ErrManifest, r.ChunkSize)
	}
	return nil
}

func (m *Manifest) appendA(w *wire.Writer, d deriver) {
	for i := range m.Children {
		c := &m.Children[i]
		w.GUID(c.GUID)
		if c.Hole {
			w.U8(flagHole)
		} else {
			w.U8(0)
		}
		if m.Level > 0 {
			var v VerifyKey
			if c.Read != (ReadKey{}) {
				v = d.key(c.Read)
			}
			w.Fixed(v[:])
		}
	}
}

func (m *Manifest) appendB(w *wire.Writer) {
	if r := m.Root; r != nil {
		w.U64(r.Total)
		w.Fixed(r.Claim[:])
		w.Bytes8([]byte(r.Name))
		w.U32(r.Mode)
		w.U64(uint64(r.Mtime))
		w.U8(uint8(r.Chunking))
		w.U32(r.ChunkSize)
		w.Bytes16(r.Inline)
	}
	for i := range m.Children {
		c := &m.Children[i]
		w.Fixed(c.Read[:])
		w.U64(c.Length)
	}
}

func perChildA(level uint8) int {
	if level > 0 {
		return id.Size + 1 + 32
	}
	return id.Size + 1
}

// Manifest makes the block of m. Child.Verify is not read: it follows from
// Child.Read.
func (s *Sealer) Manifest(m *Manifest, salt uint8) (block []byte, r ReadKey, err error) {
	if err := m.check(s.clear); err != nil {
		return nil, r, fmt.Errorf("seal: %w", err)
	}
	var a, b wire.Writer
	a.B = make([]byte, 0, len(m.Children)*perChildA(m.Level))
	m.appendA(&a, s.verify)
	m.appendB(&b)

	suite, lenA := AES, len(a.B)+tagSize
	if s.clear {
		suite, lenA = Clear, len(a.B)
	}
	w := wire.Writer{B: make([]byte, 0, preambleSize+lenA+len(b.B)+tagSize)}
	w.B = Header{KindManifest, suite, salt}.Append(w.B)
	w.U8(m.Level)
	w.Count(len(m.Children))
	w.U32(uint32(lenA))
	if s.clear {
		w.Fixed(a.B)
		w.Fixed(b.B)
		return w.B, r, nil
	}
	r = s.readKey(w.B, a.B, b.B)
	vk, bk := s.verify.key(r), s.read.key(r)
	w.B = aead(&vk).Seal(w.B, zeroNonce[:], a.B, w.B)
	w.B = aead(&bk).Seal(w.B, zeroNonce[:], b.B, w.B)
	return w.B, r, nil
}

// frame is a manifest cut into its parts, still sealed.
type frame struct {
	clear  bool
	salt   uint8
	level  uint8
	count  int
	block  []byte
	startB int
}

func parseFrame(block []byte) (frame, error) {
	h, err := ParseHeader(block)
	if err != nil {
		return frame{}, err
	}
	if h.Kind != KindManifest || h.Suite > AES {
		return frame{}, fmt.Errorf("%w: kind %d of suite %d where a manifest was expected", ErrBlock, h.Kind, h.Suite)
	}
	if len(block) < preambleSize {
		return frame{}, fmt.Errorf("%w: %d bytes", ErrManifest, len(block))
	}
	f := frame{
		clear: h.Suite == Clear, salt: h.Salt, level: block[HeaderSize],
		count: int(binary.BigEndian.Uint16(block[HeaderSize+1:])), block: block,
	}
	lenA := uint64(binary.BigEndian.Uint32(block[HeaderSize+3:]))
	want := f.count * perChildA(f.level)
	if !f.clear {
		want += tagSize
	}
	if f.level > MaxLevel || f.count > FanOut || lenA != uint64(want) || want > len(block)-preambleSize {
		return frame{}, fmt.Errorf("%w: level %d, %d children, section of %d in %d bytes",
			ErrManifest, f.level, f.count, lenA, len(block))
	}
	f.startB = preambleSize + want
	return f, nil
}

func (f *frame) openA(v VerifyKey) ([]byte, error) {
	a := f.block[preambleSize:f.startB]
	if f.clear != (v == VerifyKey{}) {
		return nil, ErrSeal
	}
	if f.clear {
		return a, nil
	}
	key := [32]byte(v)
	a, err := aead(&key).Open(nil, zeroNonce[:], a, f.block[:preambleSize])
	if err != nil {
		return nil, ErrSeal
	}
	return a, nil
}

func (f *frame) openB(r ReadKey) ([]byte, error) {
	b := f.block[f.startB:]
	if f.clear != (r == ReadKey{}) {
		return nil, ErrSeal
	}
	if f.clear {
		return b, nil
	}
	key := r.body()
	b, err := aead(&key).Open(nil, zeroNonce[:], b, f.block[:f.startB])
	if err != nil {
		return nil, ErrSeal
	}
	return b, nil
}

// parseA reads section A, of a length that parseFrame has checked.
func parseA(a []byte, level uint8, count int, clear bool) ([]Child, error) {
	r := wire.NewReader(a)
	children := make([]Child, count)
	for i := range children {
		c := &children[i]
		c.GUID = r.GUID()
		flags := r.U8()
		c.Hole = flags&flagHole != 0
		if level > 0 {
			r.Into(c.Verify[:])
		}
		keyless := c.Hole || clear || level == 0
		if flags&^flagHole != 0 || c.Hole && !c.GUID.IsZero() || keyless != (c.Verify == VerifyKey{}) {
			r.Fail(wire.ErrValue)
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: section A: %w", ErrManifest, err)
	}
	return children, nil
}

// parseB reads section B into m, whose Level and Children come from A.
func parseB(b []byte, m *Manifest, root bool) error {
	r := wire.NewReader(b)
	if root {
		t := &Root{Total: r.U64()}
		r.Into(t.Claim[:])
		t.Name = string(r.Bytes8(MaxName))
		t.Mode = r.U32()
		t.Mtime = int64(r.U64())
		t.Chunking = Chunking(r.U8())
		t.ChunkSize = r.U32()
		t.Inline = r.Bytes16(MaxInline)
		m.Root = t
	}
	for i := range m.Children {
		r.Into(m.Children[i].Read[:])
		m.Children[i].Length = r.U64()
	}
	if err := r.Close(); err != nil {
		return fmt.Errorf("%w: section B: %w", ErrManifest, err)
	}
	return nil
}

// OpenManifest opens a manifest for reading: r is its read key, zero if it is
// clear; root says whether it is the root of its tree. Root.Inline may alias
// block if that is clear.
func OpenManifest(block []byte, r ReadKey, root bool) (*Manifest, error) {
	f, err := parseFrame(block)
	if err != nil {
		return nil, err
	}
	var v VerifyKey
	d := newDeriver(verifyContext)
	if r != (ReadKey{}) {
		v = d.key(r)
	}
	a, err := f.openA(v)
	if err != nil {
		return nil, err
	}
	b, err := f.openB(r)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Level: f.level}
	if m.Children, err = parseA(a, f.level, f.count, f.clear); err != nil {
		return nil, err
	}
	if err := parseB(b, m, root); err != nil {
		return nil, err
	}
	if err := m.check(f.clear); err != nil {
		return nil, err
	}
	if f.level > 0 && !f.clear {
		for i := range m.Children {
			if c := &m.Children[i]; !c.Hole && c.Verify != d.key(c.Read) {
				return nil, fmt.Errorf("%w: keys of child %d disagree", ErrManifest, i)
			}
		}
	}
	return m, nil
}

// OpenVerify opens section A only: GUIDs, holes and verify keys of the
// children. v is zero if the manifest is clear. Lengths and read keys stay
// zero, Root nil.
func OpenVerify(block []byte, v VerifyKey) (*Manifest, error) {
	f, err := parseFrame(block)
	if err != nil {
		return nil, err
	}
	a, err := f.openA(v)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Level: f.level}
	if m.Children, err = parseA(a, f.level, f.count, f.clear); err != nil {
		return nil, err
	}
	return m, nil
}
