package seal

import (
	"bytes"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

func sample(clear bool) *Manifest {
	m := &Manifest{
		Level:    1,
		Children: []Child{{GUID: id.GUID{1}, Read: ReadKey{1}, Length: 512 << 20}, {Hole: true, Length: 3}},
		Root:     &Root{Total: 512<<20 + 3, Name: "n", Mode: 0o644, Chunking: Fixed, ChunkSize: 1 << 20},
	}
	if clear {
		m.Children[0].Read = ReadKey{}
	}
	return m
}

func FuzzParseLink(f *testing.F) {
	for _, l := range links() {
		f.Add(l.Text())
		body, err := base.DecodeString(l.Text()[prefixLen:])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(l.Text()[:prefixLen] + string(body[:len(body)-4]))
	}
	f.Add("atoll:r1:")
	f.Add("atoll:r1:" + string(make([]byte, 68))) // no key
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseLink(s); err == nil && l.Text() != s {
			t.Fatalf("%q encodes to %q", s, l.Text())
		}
		// A checksum stops nearly all random input: go round it as well.
		if len(s) < prefixLen {
			return
		}
		prefix, payload := s[:prefixLen], []byte(s[prefixLen:])
		sum := checksum(prefix, payload)
		text := prefix + base.EncodeToString(append(payload, sum[:]...))
		if l, err := ParseLink(text); err == nil && l.Text() != text {
			t.Fatalf("%q encodes to %q", text, l.Text())
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	f.Add(Header{KindData, AES, 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHeader(b); err == nil && !bytes.Equal(h.Append(nil), b[:HeaderSize]) {
			t.Fatalf("%x encodes to %x", b, h.Append(nil))
		}
	})
}

// Clear manifests reach the parser with any bytes at all; what opens encodes
// to the same block.
func FuzzClearManifest(f *testing.F) {
	s := NewClearSealer()
	for _, m := range []*Manifest{sample(true), {Root: &Root{Chunking: Fixed, ChunkSize: 1, Inline: []byte("x"), Total: 1}}} {
		b, _, err := s.Manifest(m, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, root bool) {
		if a, err := OpenVerify(b, VerifyKey{}); err == nil && len(a.Children)*33 > len(b) {
			t.Fatalf("%d children from %d bytes", len(a.Children), len(b))
		}
		m, err := OpenManifest(b, ReadKey{}, root)
		if err != nil {
			return
		}
		h, _ := ParseHeader(b)
		again, _, err := s.Manifest(m, h.Salt)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes to %x, %v", b, again, err)
		}
	})
}

// The sections of a sealed manifest, as one who has the keys could write them.
func FuzzSections(f *testing.F) {
	m := sample(false)
	var a, b wire.Writer
	m.appendA(&a, newDeriver(verifyContext))
	m.appendB(&b)
	f.Add(a.B, b.B, uint8(1), uint16(2), true)
	f.Fuzz(func(t *testing.T, a, b []byte, level uint8, count uint16, root bool) {
		if level > MaxLevel || count > FanOut || len(a) != int(count)*perChildA(level) {
			return
		}
		children, err := parseA(a, level, int(count), false)
		if err != nil {
			return
		}
		m := &Manifest{Level: level, Children: children}
		if parseB(b, m, root) != nil || m.check(false) != nil {
			return
		}
		for i := range children {
			if level > 0 && !children[i].Hole && children[i].Verify != children[i].Read.Verify() {
				return
			}
		}
		var a2, b2 wire.Writer
		m.appendA(&a2, newDeriver(verifyContext))
		m.appendB(&b2)
		if !bytes.Equal(a, a2.B) || !bytes.Equal(b, b2.B) {
			t.Fatal("sections encode to other bytes")
		}
	})
}

// Sealed blocks with damage of any kind open to the original or not at all.
func FuzzOpenSealed(f *testing.F) {
	s := NewSealer(secretOf(1))
	data, rd, _ := s.Data([]byte("data"), 0)
	man, rm, _ := s.Manifest(sample(false), 0)
	f.Add(data)
	f.Add(man)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenData(nil, b, rd); err == nil && !bytes.Equal(b, data) {
			t.Fatalf("forged data %x", b)
		}
		if _, err := OpenManifest(b, rm, true); err == nil && !bytes.Equal(b, man) {
			t.Fatalf("forged manifest %x", b)
		}
		_, _ = OpenChosen(&[32]byte{1}, KindData, b)
	})
}
