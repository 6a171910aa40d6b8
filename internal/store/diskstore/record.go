package diskstore

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"github.com/zeebo/blake3"
)

// Keys in Pebble. Records:
//
//	family u8 · GUID 32 · sub-key
//
// Our own, in front of every family:
//
//	0 'c'          counters: what a restart must know exactly
//	0 'f' number   a live block file; the value is the key of its record
//	0 'l'          the limit that was granted
//	0 's' number   a segment; the value is its live bytes, u64
var (
	countersKey = []byte{0, 'c'}
	limitKey    = []byte{0, 'l'}
)

func appendKey(dst []byte, k store.Key) []byte {
	dst = append(dst, byte(k.Family))
	dst = append(dst, k.GUID[:]...)
	return append(dst, k.Sub...)
}

func parseKey(b []byte) (store.Key, bool) {
	if len(b) < 1+id.Size || len(b) > 1+id.Size+store.MaxSub {
		return store.Key{}, false
	}
	k := store.Key{Family: store.Family(b[0]), Sub: string(b[1+id.Size:])}
	copy(k.GUID[:], b[1:])
	return k, true
}

// afterGUID is the least key behind all records of g.
func afterGUID(fam store.Family, g id.GUID) []byte {
	b := appendKey(nil, store.Key{Family: fam, GUID: g})
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			break
		}
	}
	return b
}

func fileKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{0, 'f'}, number)
}

func segmentKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{0, 's'}, number)
}

// counters are written with every group, so they are as durable as it is.
type counters struct {
	used, blocks int64
	group        uint64 // number of the group that wrote them
	lost         bool   // no longer exact, and so not written
}

func (c counters) append(dst []byte) []byte {
	dst = appendInt64(appendInt64(dst, c.used), c.blocks)
	return binary.BigEndian.AppendUint64(dst, c.group)
}

func appendInt64(dst []byte, n int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }

func parseCounters(b []byte) (c counters, ok bool) {
	if len(b) != 24 {
		return c, false
	}
	c.used = int64(binary.BigEndian.Uint64(b))
	c.blocks = int64(binary.BigEndian.Uint64(b[8:]))
	c.group = binary.BigEndian.Uint64(b[16:])
	return c, c.used >= 0 && c.blocks >= 0
}

// The envelope of a value, in Pebble and in block files alike:
//
//	0        1     2          10       11       11+n       15+n     47+n
//	version  form  pool tag   n        own key  length     BLAKE3   value, or
//	1        1-3   8          key len  n        u32        32       where it is
//
// Form 1 holds the value. The others, in Pebble only, say where it is, as form
// 1, under the same key, length and checksum: form 2 in the block file of a
// number u64, form 3 in the segment of a number u64 at an offset u32.
const (
	envelopeVersion = 1
	formInline      = 1
	formFile        = 2
	formSegment     = 3
	formLost        = 0 // in memory: there is a record, and it cannot be read

	envelopeKey = 1 + 1 + maxTag + 1 // offset of the key
	envelopeSum = 4 + 32             // length and checksum, behind the key
)

type tag [maxTag]byte

// record is what an envelope says of a value.
type record struct {
	form   byte
	length int
	sum    [32]byte
	file   uint64 // number of the block file (form 2) or segment (form 3), from 1
	offset uint32 // form 3: in the segment
}

func (r *record) sameValue(length int, sum *[32]byte) bool {
	return r.length == length && r.sum == *sum
}

// sameFile reports whether two records name the same bytes on disk.
func (r *record) sameFile(other *record) bool {
	return r.form != formInline && r.form == other.form && r.file == other.file && r.offset == other.offset
}

func checksum(value []byte) [32]byte { return blake3.Sum256(value) }

func appendEnvelope(dst []byte, t tag, key []byte, r *record) []byte {
	dst = append(dst, envelopeVersion, r.form)
	dst = append(dst, t[:]...)
	dst = append(dst, byte(len(key)))
	dst = append(dst, key...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.length))
	dst = append(dst, r.sum[:]...)
	if r.form != formInline {
		dst = binary.BigEndian.AppendUint64(dst, r.file)
	}
	if r.form == formSegment {
		dst = binary.BigEndian.AppendUint32(dst, r.offset)
	}
	return dst
}

// whereSize is the length of what says where a value is.
func whereSize(form byte) int {
	switch form {
	case formFile:
		return 8
	case formSegment:
		return 12
	}
	return 0
}

func envelopeSize(key []byte) int { return envelopeKey + len(key) + envelopeSum }

// parseEnvelope reads an envelope that must belong to key, and returns what
// follows it (form 1). It does not verify the checksum.
func parseEnvelope(t tag, key, b []byte) (r record, value []byte, err error) {
	n := envelopeSize(key)
	if len(b) < n {
		return r, nil, fmt.Errorf("%w: %d bytes are too short", store.ErrCorrupt, len(b))
	}
	if b[0] != envelopeVersion || b[1] < formInline || b[1] > formSegment {
		return r, nil, fmt.Errorf("%w: version %d, form %d", store.ErrCorrupt, b[0], b[1])
	}
	if !bytes.Equal(b[2:2+maxTag], t[:]) {
		return r, nil, fmt.Errorf("%w: value of another pool", store.ErrCorrupt)
	}
	at := 2 + maxTag
	if int(b[at]) != len(key) || !bytes.Equal(b[at+1:at+1+len(key)], key) {
		return r, nil, fmt.Errorf("%w: value of another key", store.ErrCorrupt)
	}
	at += 1 + len(key)
	r.form = b[1]
	r.length = int(binary.BigEndian.Uint32(b[at:]))
	copy(r.sum[:], b[at+4:])
	rest := b[n:]
	switch {
	case r.length > store.MaxValue:
		err = fmt.Errorf("%w: length %d", store.ErrCorrupt, r.length)
	case r.form == formInline && len(rest) != r.length:
		err = fmt.Errorf("%w: %d bytes of %d", store.ErrCorrupt, len(rest), r.length)
	case r.form == formInline:
		value = rest
	case len(rest) != whereSize(r.form):
		err = fmt.Errorf("%w: %d bytes say where it is", store.ErrCorrupt, len(rest))
	default:
		r.file = binary.BigEndian.Uint64(rest)
		if r.form == formSegment {
			r.offset = binary.BigEndian.Uint32(rest[8:])
		}
	}
	return r, value, err
}

// verify compares a value with the checksum of its envelope.
func (r *record) verify(value []byte) error {
	if len(value) != r.length || checksum(value) != r.sum {
		return fmt.Errorf("%w: checksum", store.ErrCorrupt)
	}
	return nil
}
