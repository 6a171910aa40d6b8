package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
)

func anyHandle(t *rapid.T) *id.Handle {
	h := &id.Handle{Epoch: rapid.Uint32().Draw(t, "epoch")}
	copy(h.GUID[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "guid"))
	copy(h.Key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
	h.Addrs = rapid.SliceOfN(rapid.StringN(0, 16, id.MaxAddrLen), 1, id.MaxAddrs).Draw(t, "addrs")
	return h
}

// TestRoundTrip: what is written is read back, and nothing is left over.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n8, n16, n32, n64 := rapid.Uint8().Draw(t, "u8"), rapid.Uint16().Draw(t, "u16"), rapid.Uint32().Draw(t, "u32"), rapid.Uint64().Draw(t, "u64")
		yes := rapid.Bool().Draw(t, "bool")
		short := rapid.SliceOfN(rapid.Byte(), 0, 255).Draw(t, "short")
		long := rapid.SliceOfN(rapid.Byte(), 0, 700).Draw(t, "long")
		h := anyHandle(t)
		var w Writer
		w.U8(n8)
		w.U16(n16)
		w.U32(n32)
		w.U64(n64)
		w.Bool(yes)
		w.Bytes8(short)
		w.Bytes16(long)
		w.Bytes32(long)
		w.Count(2)
		w.Fixed([]byte{1, 2})
		w.GUID(h.GUID)
		w.Handle(h)

		r := NewReader(w.B)
		if r.U8() != n8 || r.U16() != n16 || r.U32() != n32 || r.U64() != n64 || r.Bool() != yes {
			t.Fatal("numbers differ")
		}
		if !bytes.Equal(r.Bytes8(255), short) || !bytes.Equal(r.Bytes16(700), long) || !bytes.Equal(r.Bytes32(700), long) {
			t.Fatal("bytes differ")
		}
		if r.Count(2, 1) != 2 || !bytes.Equal(r.Fixed(2), []byte{1, 2}) || r.GUID() != h.GUID {
			t.Fatal("list or GUID differs")
		}
		got := r.Handle()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if got.GUID != h.GUID || got.Key != h.Key || got.Epoch != h.Epoch || strings.Join(got.Addrs, "|") != strings.Join(h.Addrs, "|") {
			t.Fatalf("handle %+v, want %+v", got, h)
		}

		// Cut anywhere, it ends early; the first error sticks.
		r = NewReader(w.B[:rapid.IntRange(0, len(w.B)-1).Draw(t, "cut")])
		r.U8()
		r.U16()
		r.U32()
		r.U64()
		r.Bool()
		r.Bytes8(255)
		r.Bytes16(700)
		r.Bytes32(700)
		r.Count(2, 1)
		r.Fixed(2)
		r.GUID()
		r.Handle()
		if err := r.Close(); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut short: %v", err)
		}
	})
}

func TestReaderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		b    []byte
		read func(*Reader)
		want error
	}{
		"trailing":              {[]byte{1, 2}, func(r *Reader) { r.U8() }, ErrTrailing},
		"short":                 {[]byte{1}, func(r *Reader) { r.U16() }, ErrShort},
		"negative length":       {[]byte{1}, func(r *Reader) { r.Fixed(-1) }, ErrShort},
		"bool 2":                {[]byte{2}, func(r *Reader) { r.Bool() }, ErrValue},
		"bytes over the bound":  {[]byte{3, 1, 2, 3}, func(r *Reader) { r.Bytes8(2) }, ErrBound},
		"4 GiB":                 {[]byte{255, 255, 255, 255}, func(r *Reader) { r.Bytes32(1 << 20) }, ErrBound},
		"more than there is":    {[]byte{0, 9, 1}, func(r *Reader) { r.Bytes16(9) }, ErrShort},
		"count over the bound":  {[]byte{0, 3, 1, 2, 3}, func(r *Reader) { r.Count(2, 1) }, ErrBound},
		"count over the data":   {[]byte{0, 3, 1, 2}, func(r *Reader) { r.Count(3, 1) }, ErrShort},
		"count times its size":  {append([]byte{255, 255}, make([]byte, 64)...), func(r *Reader) { r.Count(65535, 1<<20) }, ErrShort},
		"handle, no addresses":  {append(make([]byte, 68), 0), func(r *Reader) { r.Handle() }, ErrBound},
		"handle, 5 addresses":   {append(make([]byte, 68), 5, 0, 0, 0, 0, 0), func(r *Reader) { r.Handle() }, ErrBound},
		"handle, long address":  {append(append(make([]byte, 68), 1, 65), make([]byte, 65)...), func(r *Reader) { r.Handle() }, ErrBound},
		"the first error stays": {[]byte{2, 3}, func(r *Reader) { r.Bool(); r.U64() }, ErrValue},
	} {
		r := NewReader(tc.b)
		tc.read(r)
		if err := r.Close(); !errors.Is(err, tc.want) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for _, err := range []error{ErrShort, ErrTrailing, ErrBound, ErrValue, ErrVersion} {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%v does not wrap ErrMalformed", err)
		}
	}
}

func TestFieldsDoNotRunIntoTheNext(t *testing.T) {
	r := NewReader([]byte{1, 'a', 'b'})
	_ = append(r.Bytes8(1), 'x') // must not overwrite the b that follows
	if r.U8() != 'b' {
		t.Error("appending to a field changed the next one")
	}
}

// What is written in parts is, joined, what is written in one; long fields are
// not copied, wherever they stand.
func TestParts(t *testing.T) {
	long, short := bytes.Repeat([]byte{7}, apartFrom), bytes.Repeat([]byte{8}, apartFrom-1)
	for _, fields := range [][][]byte{{}, {short}, {long}, {short, long}, {long, short}, {long, long}, {short, long, short}} {
		w, whole := Writer{Apart: true}, Writer{}
		n := 0
		for _, f := range fields {
			w.Bytes32(f)
			whole.Bytes32(f)
			if len(f) >= apartFrom {
				n++
			}
		}
		parts := w.Parts()
		if !bytes.Equal(bytes.Join(parts, nil), whole.B) {
			t.Errorf("%d fields, %d of them long: other bytes in parts", len(fields), n)
		}
		for _, part := range parts {
			if len(part) > 0 && &part[0] == &long[0] {
				n--
			}
		}
		if n != 0 {
			t.Errorf("%d long fields were copied", n)
		}
	}
}

func TestOwnMistakesPanic(t *testing.T) {
	for name, f := range map[string]func(*Writer){
		"Bytes8":  func(w *Writer) { w.Bytes8(make([]byte, 256)) },
		"Bytes16": func(w *Writer) { w.Bytes16(make([]byte, 1<<16)) },
		"Count":   func(w *Writer) { w.Count(1 << 16) },
		"Count8":  func(w *Writer) { w.Count8(256) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: a list over its bound was written", name)
				}
			}()
			f(&Writer{})
		}()
	}
}

func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 7, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000}), 1, 4).Draw(t, "sizes")
		var stream []byte
		for i, n := range sizes {
			stream = AppendFrame(stream, bytes.Repeat([]byte{byte(i)}, n))
		}
		r := bytes.NewReader(stream)
		for i, n := range sizes {
			b, err := ReadFrame(r, 1<<20)
			if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Fatalf("frame %d of %d bytes: %d bytes, %v", i, n, len(b), err)
			}
		}
		if _, err := ReadFrame(r, 1<<20); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last frame: %v", err)
		}
		cut := stream[:rapid.IntRange(1, len(stream)-1).Draw(t, "cut")]
		r = bytes.NewReader(cut)
		var err error
		for err == nil {
			_, err = ReadFrame(r, 1<<20)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Fatalf("cut stream: %v", err)
		}
	})
}

// TestFrameThatLies: a length far beyond the data costs no memory (60 §5,
// "declared length ≫ data").
func TestFrameThatLies(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  uint32
		limit int
		sent  int
		want  error
		times uint64
		most  uint64 // bytes allocated each time
	}{
		// Once: who believes it needs not take the machine's memory as well.
		{"4 GiB, limit 1 MiB", 1<<32 - 1, 1 << 20, 0, ErrBound, 1, 64 << 10},
		{"one byte over the limit", 1<<20 + 1, 1 << 20, 0, ErrBound, 100, 4 << 10},
		{"64 MiB, 1,000 bytes sent", 64 << 20, 64 << 20, 1000, io.ErrUnexpectedEOF, 100, 80 << 10},
	} {
		lie := append(binary.BigEndian.AppendUint32(nil, c.size), make([]byte, c.sent)...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range c.times {
			if _, err := ReadFrame(bytes.NewReader(lie), c.limit); !errors.Is(err, c.want) {
				t.Fatalf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) / c.times; used > c.most {
			t.Errorf("%s: %d bytes allocated each time, %d at most are expected", c.name, used, c.most)
		}
	}
}

func FuzzHandle(f *testing.F) {
	var w Writer
	w.Handle(&id.Handle{GUID: id.FromPrefix("65a1fc"), Epoch: 7, Addrs: []string{"/ip4/10.0.0.1/tcp/4001", ""}})
	f.Add(w.B)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		h := r.Handle()
		if r.Close() != nil {
			return
		}
		var w Writer
		w.Handle(h)
		if !bytes.Equal(w.B, b) {
			t.Errorf("re-encodes to other bytes:\n%x\n%x", b, w.B)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(AppendFrame(nil, []byte("payload")))
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, err := ReadFrame(bytes.NewReader(b), 1<<16)
		if err == nil && !bytes.HasPrefix(b, AppendFrame(nil, payload)) {
			t.Errorf("re-encodes to other bytes")
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	h := &id.Handle{GUID: id.FromPrefix("65a1fc"), Addrs: []string{"/ip4/10.0.0.1/tcp/4001"}}
	var w Writer
	for b.Loop() {
		w.B = w.B[:0]
		w.Handle(h)
		if NewReader(w.B).Handle() == nil {
			b.Fatal()
		}
	}
}
