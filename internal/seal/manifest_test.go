package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
)

var drawManifest = rapid.Custom(func(t *rapid.T) *Manifest { return drawNode(t, false) })

func drawNode(t *rapid.T, clear bool) *Manifest {
	m := &Manifest{Level: uint8(rapid.IntRange(0, MaxLevel).Draw(t, "level"))}
	root := rapid.Bool().Draw(t, "root")
	low := 1
	if root && m.Level == 0 {
		low = 0
	}
	var sum uint64
	for range rapid.IntRange(low, 6).Draw(t, "count") {
		c := Child{Length: rapid.Uint64Range(1, 1<<40).Draw(t, "length")}
		if c.Hole = rapid.Bool().Draw(t, "hole"); !c.Hole {
			c.GUID = id.GUID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "guid"))
			if !clear {
				c.Read[0], c.Read[1] = 1, rapid.Byte().Draw(t, "key")
			}
		}
		sum += c.Length
		m.Children = append(m.Children, c)
	}
	if root {
		r := &Root{
			Name: rapid.SampledFrom([]string{"", "a", "bücher.tar", "x\n\x1b[31m", string(bytes.Repeat([]byte("n"), 255))}).Draw(t, "name"),
			Mode: rapid.Uint32Range(0, 0o777).Draw(t, "mode"), Mtime: rapid.Int64().Draw(t, "mtime"),
			Chunking: Fixed, ChunkSize: rapid.Uint32Range(1, MaxPlain).Draw(t, "chunk"),
		}
		copy(r.Claim[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "claim"))
		if len(m.Children) == 0 {
			r.Inline = bytes.Repeat([]byte{1}, rapid.IntRange(0, MaxInline).Draw(t, "inline"))
			sum = uint64(len(r.Inline))
		}
		r.Total = sum
		m.Root = r
	}
	return m
}

// same compares but for verify keys, which follow from read keys, and nil
// against empty.
func same(a, b *Manifest) bool {
	strip := func(m *Manifest) *Manifest {
		c := *m
		c.Children = append([]Child{}, m.Children...)
		for i := range c.Children {
			c.Children[i].Verify = VerifyKey{}
		}
		if m.Root != nil {
			r := *m.Root
			r.Inline = append([]byte{}, r.Inline...)
			c.Root = &r
		}
		return &c
	}
	return reflect.DeepEqual(strip(a), strip(b))
}

func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clear := rapid.Bool().Draw(t, "clear")
		m := drawNode(t, clear)
		s := NewSealer(secretOf(1))
		if clear {
			s = NewClearSealer()
		}
		block, r, err := s.Manifest(m, 7)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenManifest(block, r, m.Root != nil)
		if err != nil || !same(got, m) {
			t.Fatalf("%v\n%+v\n%+v", err, got, m)
		}
		again, r2, err := s.Manifest(got, 7)
		if err != nil || !bytes.Equal(again, block) || r2 != r {
			t.Fatalf("encodes to other bytes: %v", err)
		}
		var v VerifyKey
		if !clear {
			v = r.Verify()
		}
		a, err := OpenVerify(block, v)
		if err != nil || a.Level != m.Level || a.Root != nil || len(a.Children) != len(m.Children) {
			t.Fatalf("%+v, %v", a, err)
		}
		for i, c := range a.Children {
			want := m.Children[i]
			if c.GUID != want.GUID || c.Hole != want.Hole || c.Read != (ReadKey{}) || c.Length != 0 {
				t.Fatalf("child %d: %+v", i, c)
			}
			if m.Level > 0 && !clear && !c.Hole && c.Verify != want.Read.Verify() {
				t.Fatalf("child %d: verify key", i)
			}
		}
	})
}

// Whoever has v reads nothing of section B, however it is presented.
func TestVNeverOpensB(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawManifest.Draw(t, "manifest")
		block, r, err := NewSealer(secretOf(3)).Manifest(m, 0)
		if err != nil {
			t.Fatal(err)
		}
		v := r.Verify()
		if _, err := OpenManifest(block, ReadKey(v), m.Root != nil); !errors.Is(err, ErrSeal) {
			t.Fatalf("v taken for r: %v", err)
		}
		f, err := parseFrame(block)
		if err != nil {
			t.Fatal(err)
		}
		b, aad := block[f.startB:], block[:f.startB]
		for _, key := range [][32]byte{v, ReadKey(v).body(), ReadKey(v).Verify(), r} {
			if _, err := aead(&key).Open(nil, zeroNonce[:], b, aad); err == nil {
				t.Fatal("section B opened without the read key")
			}
		}
	})
}

func TestManifestTampering(t *testing.T) {
	m := &Manifest{Level: 1, Children: []Child{
		{GUID: id.GUID{1}, Read: ReadKey{1}, Length: 512},
		{Hole: true, Length: 512},
	}}
	block, r, err := NewSealer(secretOf(1)).Manifest(m, 0)
	if err != nil {
		t.Fatal(err)
	}
	v := r.Verify()
	f, _ := parseFrame(block)
	for i := range len(block) * 8 {
		bad := bytes.Clone(block)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenManifest(bad, r, false); err == nil {
			t.Fatalf("bit %d flipped, manifest opens", i)
		}
		if i/8 < f.startB {
			if _, err := OpenVerify(bad, v); err == nil {
				t.Fatalf("bit %d flipped, section A opens", i)
			}
		}
	}
	for n := range len(block) {
		if _, err := OpenManifest(block[:n], r, false); err == nil {
			t.Fatalf("cut to %d bytes, manifest opens", n)
		}
	}
	if _, err := OpenManifest(block, r, true); err == nil {
		t.Fatal("an inner node passed for a root")
	}
}

func TestManifestRefuses(t *testing.T) {
	root := func(f func(m *Manifest)) *Manifest {
		m := &Manifest{
			Children: []Child{{GUID: id.GUID{1}, Read: ReadKey{1}, Length: 5}},
			Root:     &Root{Total: 5, Chunking: Fixed, ChunkSize: 8},
		}
		f(m)
		return m
	}
	for name, m := range map[string]*Manifest{
		"level":             root(func(m *Manifest) { m.Level = MaxLevel + 1 }),
		"children":          root(func(m *Manifest) { m.Children = make([]Child, FanOut+1) }),
		"empty child":       root(func(m *Manifest) { m.Children[0].Length = 0 }),
		"total":             root(func(m *Manifest) { m.Root.Total = 6 }),
		"sum overflows":     root(func(m *Manifest) { m.Children[0].Length = math.MaxInt64 + 1; m.Root.Total = math.MaxInt64 + 1 }),
		"keyless":           root(func(m *Manifest) { m.Children[0].Read = ReadKey{} }),
		"hole with key":     root(func(m *Manifest) { m.Children[0].Hole = true }),
		"inline and blocks": root(func(m *Manifest) { m.Root.Inline = []byte("x"); m.Root.Total++ }),
		"inline above 0":    root(func(m *Manifest) { m.Children, m.Root.Total, m.Level = nil, 0, 1 }),
		"name with slash":   root(func(m *Manifest) { m.Root.Name = "a/b" }),
		"name dot dot":      root(func(m *Manifest) { m.Root.Name = ".." }),
		"name with NUL":     root(func(m *Manifest) { m.Root.Name = "a\x00" }),
		"name of 256":       root(func(m *Manifest) { m.Root.Name = string(make([]byte, 256)) }),
		"mode":              root(func(m *Manifest) { m.Root.Mode = 0o4755 }),
		"chunking":          root(func(m *Manifest) { m.Root.Chunking = 2 }),
		"chunk size 0":      root(func(m *Manifest) { m.Root.ChunkSize = 0 }),
		"chunk size":        root(func(m *Manifest) { m.Root.ChunkSize = MaxPlain + 1 }),
		"no children":       {},
	} {
		if _, _, err := NewSealer(secretOf(1)).Manifest(m, 0); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A count or length far beyond the data costs nothing before it is refused.
func TestManifestDeclaredBeyondData(t *testing.T) {
	block := Header{KindManifest, Clear, 0}.Append(nil)
	block = append(block, 0)
	block = binary.BigEndian.AppendUint16(block, math.MaxUint16)
	block = binary.BigEndian.AppendUint32(block, math.MaxUint32)
	for _, count := range []uint16{1, FanOut, FanOut + 1, math.MaxUint16} {
		binary.BigEndian.PutUint16(block[9:], count)
		for _, lenA := range []uint32{0, 33, uint32(count) * 33, math.MaxUint32} {
			binary.BigEndian.PutUint32(block[11:], lenA)
			if n := testing.AllocsPerRun(10, func() {
				if _, err := OpenManifest(block, ReadKey{}, true); !errors.Is(err, ErrManifest) {
					t.Fatal(err)
				}
			}); n > 20 {
				t.Fatalf("%v allocations to refuse count %d", n, count)
			}
		}
	}
}

func TestFullManifestFits(t *testing.T) {
	m := &Manifest{Level: 1, Root: &Root{Name: string(bytes.Repeat([]byte("n"), 255)), Chunking: Fixed, ChunkSize: MaxPlain}}
	for i := range FanOut {
		m.Children = append(m.Children, Child{GUID: id.GUID{byte(i), 1}, Read: ReadKey{1}, Length: Span(1, MaxPlain)})
		m.Root.Total += Span(1, MaxPlain)
	}
	if m.Root.Total != 256<<30 {
		t.Fatalf("depth 2 holds %d bytes, not 256 GiB", m.Root.Total)
	}
	block, _, err := NewSealer(secretOf(1)).Manifest(m, 0)
	if err != nil || len(block) > 64<<10 {
		t.Fatalf("%d bytes, %v", len(block), err)
	}
	if Span(2, MaxPlain)*FanOut != 128<<40 {
		t.Fatal("depth 3 does not hold 128 TiB")
	}
}
