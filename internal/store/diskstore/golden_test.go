package diskstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/wire/wiretest"
)

// envelope is what parseEnvelope returns.
type envelope struct {
	r     record
	value []byte
}

func sampleKey() store.Key {
	return store.Key{Family: store.Claim, GUID: id.FromPrefix("65a1fc"), Sub: "sub"}
}

// TestGoldenBytes: a store of an earlier release opens. What Pebble makes of
// these keys and values is Pebble's to keep readable.
func TestGoldenBytes(t *testing.T) {
	k := sampleKey()
	key, pool, value := appendKey(nil, k), tag{1, 2}, []byte("value")
	open := wiretest.Decoder(func(b []byte) (envelope, error) {
		r, v, err := parseEnvelope(pool, key, b)
		return envelope{r, v}, err
	})
	inline := envelope{record{form: formInline, length: len(value), sum: checksum(value)}, value}
	inFile := envelope{r: record{form: formFile, length: len(value), sum: checksum(value), file: 7}}
	inSegment := envelope{r: record{form: formSegment, length: len(value), sum: checksum(value), file: 7, offset: 4242}}
	c := counters{used: 1 << 33, blocks: 5, group: 6}
	fs := vfs.NewMem()
	d, err := openFolder(fs, "dir", &Options{Pool: []byte{0xab, 0xcd}})
	if err != nil {
		t.Fatal(err)
	}
	format, err := readFile(fs, d.path(formatName), 4096)
	if err != nil {
		t.Fatal(err)
	}
	orNot := func(ok bool) error {
		if !ok {
			return store.ErrCorrupt
		}
		return nil
	}
	wiretest.Bytes(t, "diskstore", []wiretest.Sample{
		{Name: "file FORMAT", Value: nil, Bytes: format, Decode: func(b []byte) (any, error) {
			if err := writeFile(fs, "dir", formatName, bytes.Clone(b)); err != nil {
				return nil, err
			}
			return nil, d.checkFormat([]byte{0xab, 0xcd})
		}},
		{Name: "key of a record", Value: k, Bytes: key, Decode: wiretest.Decoder(func(b []byte) (store.Key, error) {
			k, ok := parseKey(b)
			return k, orNot(ok)
		})},
		{Name: "value", Value: inline, Bytes: append(appendEnvelope(nil, pool, key, &inline.r), value...), Decode: open},
		{Name: "value in a block file", Value: inFile, Bytes: appendEnvelope(nil, pool, key, &inFile.r), Decode: open},
		{Name: "value in a segment", Value: inSegment, Bytes: appendEnvelope(nil, pool, key, &inSegment.r), Decode: open},
		{Name: "counters", Value: c, Bytes: c.append(nil), Decode: wiretest.Decoder(func(b []byte) (counters, error) {
			c, ok := parseCounters(b)
			return c, orNot(ok)
		})},
	})
}

func FuzzKey(f *testing.F) {
	f.Add(appendKey(nil, sampleKey()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, ok := parseKey(b); ok && !bytes.Equal(appendKey(nil, k), b) {
			t.Errorf("%x is encoded as %x", b, appendKey(nil, k))
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	key, pool := appendKey(nil, sampleKey()), tag{1, 2}
	for _, r := range []record{{form: formInline, length: 5}, {form: formFile, length: 9, file: 7}, {form: formSegment, length: 9, file: 7, offset: 1}} {
		f.Add(append(appendEnvelope(nil, pool, key, &r), "value"...))
	}
	check := func(t *testing.T, b []byte) (record, []byte, bool) {
		r, value, err := parseEnvelope(pool, key, b)
		if err != nil {
			return r, nil, false
		}
		if again := append(appendEnvelope(nil, pool, key, &r), value...); !bytes.Equal(again, b) {
			t.Errorf("%x is encoded as %x", b, again)
		}
		return r, value, true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, value, ok := check(t, b); ok {
			_ = r.verify(value)
		}
		// Pool, key and checksum stop nearly all random input: go round them as well.
		n := envelopeSize(key)
		if len(b) < n {
			return
		}
		b = append(appendEnvelope(nil, pool, key, &record{form: formInline}), b[n:]...)
		value := b[n:]
		binary.BigEndian.PutUint32(b[n-envelopeSum:], uint32(len(value)))
		sum := checksum(value)
		copy(b[n-len(sum):], sum[:])
		r, got, ok := check(t, b)
		if !ok || !bytes.Equal(got, value) || r.verify(got) != nil {
			t.Fatalf("%x is not taken", b)
		}
		if len(got) > 0 {
			got[len(got)-1] ^= 1
			if r.verify(got) == nil {
				t.Errorf("%x passes for another value", got)
			}
		}
	})
}

func FuzzCounters(f *testing.F) {
	f.Add(counters{used: 1, blocks: 2, group: 3}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseCounters(b); ok && !bytes.Equal(c.append(nil), b) {
			t.Errorf("%x is encoded as %x", b, c.append(nil))
		}
	})
}

// FuzzBlockName: a name that is taken for a block file's is one we would write;
// others are left alone by the sweep.
func FuzzBlockName(f *testing.F) {
	f.Add("00000000000000ff" + blockSuffix)
	f.Add("00000000000000ff" + tempSuffix)
	f.Add("00000000000000FF" + blockSuffix)
	f.Fuzz(func(t *testing.T, name string) {
		number, suffix, ok := parseBlockName(name)
		if ok && fmt.Sprintf("%016x%s", number, suffix) != name {
			t.Errorf("%q is taken for %x", name, number)
		}
	})
}

func FuzzSegmentName(f *testing.F) {
	f.Add(segmentName(0xff))
	f.Add("00000000000000FF" + segmentSuffix)
	f.Fuzz(func(t *testing.T, name string) {
		if number, ok := parseSegmentName(name); ok && segmentName(number) != name {
			t.Errorf("%q is taken for %x", name, number)
		}
	})
}

// FuzzSegment: whatever a segment holds, the scan ends, stays within it, and
// hands over what parses.
func FuzzSegment(f *testing.F) {
	key, value := appendKey(nil, sampleKey()), []byte("value")
	whole := append(appendEnvelope(nil, tag{1, 2}, key, &record{form: formInline, length: 5, sum: checksum(value)}), value...)
	f.Add(append(whole, whole...))
	f.Add(append(whole, whole[:40]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		if err := writeFile(fs, "", segmentName(1), bytes.Clone(b)); err != nil { // a write may scribble
			t.Fatal(err)
		}
		g := segments{fs: &guard{FS: fs}, tag: tag{1, 2}}
		err := g.scan(1, func(offset uint32, key []byte, r *record, value []byte) error {
			again := append(appendEnvelope(nil, g.tag, key, r), value...)
			if !bytes.HasPrefix(b[offset:], again) {
				t.Errorf("at %d: %x", offset, again)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// FuzzFormat: whatever a FORMAT says, it is ours or refused.
func FuzzFormat(f *testing.F) {
	f.Add([]byte("atoll store\nformat 1\npool abcd\n"))
	f.Add([]byte("atoll store\nformat 99999999999999999999\npool"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("dir", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(fs, "dir", formatName, bytes.Clone(b)); err != nil {
			t.Fatal(err)
		}
		d := folder{fs: fs, dir: "dir"}
		if d.checkFormat([]byte{0xab, 0xcd}) == nil && !bytes.HasPrefix(b, []byte("atoll store\n")) {
			t.Errorf("%q is taken for ours", b)
		}
	})
}
