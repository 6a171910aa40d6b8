// Package wire is the one codec for what is sent, signed, hashed and stored:
// big-endian, canonical (a value has one encoding), bounded (a count is
// checked against its cap and against the bytes at hand before anything is
// allocated). Unknown versions are refused; a new field is a new version.
//
// A message is  kind u8 · version u8 · fields.  A frame on a stream is
// length u32 · message.
package wire

import (
	"encoding/binary"

	"atoll.example/atoll/internal/id"
)

// Writer appends fields to B. The zero Writer is ready for use.
type Writer struct {
	B []byte
	// Apart keeps a Bytes32 of apartFrom bytes or more out of B, uncopied; Parts
	// then gives the whole.
	Apart bool
	cuts  []cut
}

// cut is a field kept out of B, which goes on with it before B[at].
type cut struct {
	at int
	b  []byte
}

const apartFrom = 16 << 10

// Parts is what was written, in one or more pieces: B, and what was kept apart
// from it.
func (w *Writer) Parts() [][]byte {
	parts := make([][]byte, 0, 2*len(w.cuts)+1)
	from := 0
	for _, c := range w.cuts {
		parts = append(parts, w.B[from:c.at], c.b)
		from = c.at
	}
	if from < len(w.B) {
		parts = append(parts, w.B[from:])
	}
	return parts
}

func (w *Writer) U8(v uint8)   { w.B = append(w.B, v) }
func (w *Writer) U16(v uint16) { w.B = binary.BigEndian.AppendUint16(w.B, v) }
func (w *Writer) U32(v uint32) { w.B = binary.BigEndian.AppendUint32(w.B, v) }
func (w *Writer) U64(v uint64) { w.B = binary.BigEndian.AppendUint64(w.B, v) }

// Bool writes one byte, 0 or 1.
func (w *Writer) Bool(v bool) {
	if v {
		w.U8(1)
	} else {
		w.U8(0)
	}
}

// Fixed writes b as it is; the reader must know its length.
func (w *Writer) Fixed(b []byte) { w.B = append(w.B, b...) }

// GUID writes 32 bytes.
func (w *Writer) GUID(g id.GUID) { w.B = append(w.B, g[:]...) }

// Bytes8 writes a u8 length and b. A longer b is a bug of ours: it panics.
func (w *Writer) Bytes8(b []byte) {
	if len(b) > 0xff {
		panic("wire: Bytes8 of more than 255 bytes")
	}
	w.U8(uint8(len(b)))
	w.Fixed(b)
}

// Bytes16 writes a u16 length and b.
func (w *Writer) Bytes16(b []byte) {
	if len(b) > 0xffff {
		panic("wire: Bytes16 of more than 65,535 bytes")
	}
	w.U16(uint16(len(b)))
	w.Fixed(b)
}

// Bytes32 writes a u32 length and b.
func (w *Writer) Bytes32(b []byte) {
	w.U32(uint32(len(b)))
	if w.Apart && len(b) >= apartFrom {
		w.cuts = append(w.cuts, cut{len(w.B), b})
		return
	}
	w.Fixed(b)
}

// Count writes the u16 count that precedes a list.
func (w *Writer) Count(n int) {
	if n < 0 || n > 0xffff {
		panic("wire: list of more than 65,535 elements")
	}
	w.U16(uint16(n))
}

// Count8 writes a count of one byte.
func (w *Writer) Count8(n int) {
	if n < 0 || n > 0xff {
		panic("wire: list of more than 255 elements")
	}
	w.U8(uint8(n))
}

// Handle writes GUID · key · epoch u32 · addresses (count u8, each Bytes8).
func (w *Writer) Handle(h *id.Handle) {
	w.GUID(h.GUID)
	w.Fixed(h.Key[:])
	w.U32(h.Epoch)
	w.U8(uint8(len(h.Addrs)))
	for _, a := range h.Addrs {
		w.Bytes8([]byte(a))
	}
}
