package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"atoll.example/atoll/internal/id"
)

// Errors of a Reader. All wrap ErrMalformed.
var (
	ErrMalformed = errors.New("malformed message")
	ErrShort     = fmt.Errorf("%w: ends early", ErrMalformed)
	ErrTrailing  = fmt.Errorf("%w: trailing bytes", ErrMalformed)
	ErrBound     = fmt.Errorf("%w: count or length over its bound", ErrMalformed)
	ErrValue     = fmt.Errorf("%w: value not canonical", ErrMalformed)
	ErrVersion   = fmt.Errorf("%w: unknown kind or version", ErrMalformed)
)

// Reader takes fields from the front of a byte slice. The first error sticks:
// later calls return zero values, so decoders read straight through and check
// Close once. Byte fields alias the input; the caller keeps it unchanged.
type Reader struct {
	b   []byte
	err error
}

// NewReader reads from b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Fail makes err the reader's error unless it has one already.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err, r.b = err, nil
	}
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Len returns the number of unread bytes.
func (r *Reader) Len() int { return len(r.b) }

// Close returns the first error, or ErrTrailing if bytes are left.
func (r *Reader) Close() error {
	if r.err == nil && len(r.b) > 0 {
		r.Fail(ErrTrailing)
	}
	return r.err
}

// Fixed returns the next n bytes, aliasing the input; nil after an error.
func (r *Reader) Fixed(n int) []byte {
	if r.err != nil || n < 0 || len(r.b) < n {
		r.Fail(ErrShort)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *Reader) U8() uint8 {
	if b := r.Fixed(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *Reader) U16() uint16 {
	if b := r.Fixed(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *Reader) U32() uint32 {
	if b := r.Fixed(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *Reader) U64() uint64 {
	if b := r.Fixed(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Bool refuses anything but 0 and 1.
func (r *Reader) Bool() bool {
	v := r.U8()
	if v > 1 {
		r.Fail(ErrValue)
	}
	return v == 1
}

// Into fills dst with the next len(dst) bytes.
func (r *Reader) Into(dst []byte) { copy(dst, r.Fixed(len(dst))) }

// GUID reads 32 bytes.
func (r *Reader) GUID() (g id.GUID) {
	r.Into(g[:])
	return g
}

// Bytes8 reads a u8 length of at most limit and that many bytes.
func (r *Reader) Bytes8(limit int) []byte { return r.bounded(int(r.U8()), limit) }

// Bytes16 reads a u16 length of at most limit and that many bytes.
func (r *Reader) Bytes16(limit int) []byte { return r.bounded(int(r.U16()), limit) }

// Bytes32 reads a u32 length of at most limit and that many bytes.
func (r *Reader) Bytes32(limit int) []byte { return r.bounded(int(r.U32()), limit) }

func (r *Reader) bounded(n, limit int) []byte {
	if n > limit {
		r.Fail(ErrBound)
		return nil
	}
	return r.Fixed(n)
}

// Count reads the u16 count of a list whose elements take at least minSize
// bytes each. It refuses counts over limit and counts that the unread bytes
// cannot hold, so the caller may allocate count elements at once.
func (r *Reader) Count(limit, minSize int) int { return r.count(int(r.U16()), limit, minSize) }

// Count8 is Count of a list with a u8 count.
func (r *Reader) Count8(limit, minSize int) int { return r.count(int(r.U8()), limit, minSize) }

func (r *Reader) count(n, limit, minSize int) int {
	if n > limit {
		r.Fail(ErrBound)
		return 0
	}
	if n*minSize > len(r.b) {
		r.Fail(ErrShort)
		return 0
	}
	return n
}

// Handle reads what Writer.Handle writes. It does not check that the GUID
// belongs to the key: package ident does.
func (r *Reader) Handle() *id.Handle {
	h := &id.Handle{GUID: r.GUID()}
	r.Into(h.Key[:])
	h.Epoch = r.U32()
	n := int(r.U8())
	if n == 0 || n > id.MaxAddrs {
		r.Fail(ErrBound)
		return h
	}
	h.Addrs = make([]string, 0, n)
	for range n {
		h.Addrs = append(h.Addrs, string(r.Bytes8(id.MaxAddrLen)))
	}
	return h
}
