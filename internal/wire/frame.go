package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// MinHandle is the least size of an encoded node handle, for Reader.Count.
const MinHandle = 32 + 32 + 4 + 1 + 1

// ReadFrame reads length u32 · payload from r and returns the payload in a
// slice of its own. It refuses lengths over limit before it allocates, and
// allocates a long frame only once its first 64 KiB have arrived, so a peer
// that announces much and sends little costs little.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("%w: frame of %d bytes, limit %d", ErrBound, n, limit)
	}
	const step = 64 << 10
	if n <= step {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	b := make([]byte, step)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	whole := make([]byte, n)
	copy(whole, b)
	_, err := io.ReadFull(r, whole[step:])
	return whole, err
}

// AppendFrame appends length u32 · payload to dst.
func AppendFrame(dst, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}
