package roster

import (
	"bytes"
	"fmt"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// Kinds of messages (docs/wire.md).
const (
	kindCompare uint8 = 96 + iota
	kindBuckets
	kindHave
	kindEntries
)

// Bounds of messages: each fits a control frame.
const (
	maxTags  = 4_000
	maxBatch = 64 << 10 // bytes of entries in one message, their lengths included
)

// Compare tells the digest of the sender's set. A receiver whose own differs
// answers with Buckets.
type Compare struct {
	Sum   [32]byte
	Count uint32
}

// Buckets tells the hash of each bucket of the sender's set.
type Buckets struct{ Sums [numBuckets]Tag }

// Have lists the tags that the sender holds in the given buckets. The receiver
// sends the entries that the sender lacks and, unless Answer is set, its own
// Have if it lacks any itself.
type Have struct {
	Answer  bool
	Buckets [numBuckets / 8]byte // bit i%8 of byte i/8: bucket i
	Tags    []Tag                // ascending
}

// Entries carries entries. Push: they are news, and the sender does not expect
// to be compared with.
type Entries struct {
	Push    bool
	Entries [][]byte
}

// Kind implements machine.Message.
func (*Compare) Kind() uint8 { return kindCompare }

// Kind implements machine.Message.
func (*Buckets) Kind() uint8 { return kindBuckets }

// Kind implements machine.Message.
func (*Have) Kind() uint8 { return kindHave }

// Kind implements machine.Message.
func (*Entries) Kind() uint8 { return kindEntries }

// AppendBody writes sum 32 · count u32.
func (m *Compare) AppendBody(w *wire.Writer) {
	w.Fixed(m.Sum[:])
	w.U32(m.Count)
}

// AppendBody writes 256 sums of 16.
func (m *Buckets) AppendBody(w *wire.Writer) {
	for i := range m.Sums {
		w.Fixed(m.Sums[i][:])
	}
}

// AppendBody writes answer bool · buckets 32 · tags u16 (≤ 4,000), each 16.
func (m *Have) AppendBody(w *wire.Writer) {
	w.Bool(m.Answer)
	w.Fixed(m.Buckets[:])
	w.Count(len(m.Tags))
	for i := range m.Tags {
		w.Fixed(m.Tags[i][:])
	}
}

// AppendBody writes push bool · entries u16, each u16+≤60,000; all within 64 KiB.
func (m *Entries) AppendBody(w *wire.Writer) {
	w.Bool(m.Push)
	w.Count(len(m.Entries))
	for _, e := range m.Entries {
		w.Bytes16(e)
	}
}

func (m *Have) has(bucket int) bool { return m.Buckets[bucket/8]>>(bucket%8)&1 == 1 }
func (m *Have) set(bucket int)      { m.Buckets[bucket/8] |= 1 << (bucket % 8) }

// Owns reports whether messages of a kind are for this package.
func Owns(kind uint8) bool { return kind >= kindCompare && kind <= kindEntries }

// Decode decodes a message of this package. The result aliases the frame.
func Decode(frame []byte) (machine.Message, error) {
	r := wire.NewReader(frame)
	kind := r.U8()
	if r.U8() != machine.Version {
		r.Fail(wire.ErrVersion)
	}
	var m machine.Message
	switch kind {
	case kindCompare:
		c := &Compare{}
		r.Into(c.Sum[:])
		c.Count = r.U32()
		m = c
	case kindBuckets:
		b := &Buckets{}
		for i := range b.Sums {
			r.Into(b.Sums[i][:])
		}
		m = b
	case kindHave:
		m = readHave(r)
	case kindEntries:
		m = readEntries(r)
	default:
		r.Fail(wire.ErrVersion)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("roster: message %d: %w", kind, err)
	}
	return m, nil
}

func readHave(r *wire.Reader) *Have {
	h := &Have{Answer: r.Bool()}
	r.Into(h.Buckets[:])
	h.Tags = make([]Tag, r.Count(maxTags, len(Tag{})))
	for i := range h.Tags {
		r.Into(h.Tags[i][:])
		if i > 0 && bytes.Compare(h.Tags[i-1][:], h.Tags[i][:]) >= 0 || !h.has(int(h.Tags[i][0])) {
			r.Fail(wire.ErrValue)
		}
	}
	return h
}

func readEntries(r *wire.Reader) *Entries {
	e := &Entries{Push: r.Bool()}
	if r.Len() > 2+maxBatch {
		r.Fail(wire.ErrBound)
		return e
	}
	e.Entries = make([][]byte, r.Count(maxBatch/2, 2))
	for i := range e.Entries {
		e.Entries[i] = r.Bytes16(MaxEntry)
	}
	return e
}
