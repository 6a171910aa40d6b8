package seal

import (
	"testing"

	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenBytes: a block that was sealed once opens for ever, and the same
// content sealed again is the same block.
func TestGoldenBytes(t *testing.T) {
	s := NewSealer(secretOf(1))
	data, rd, err := s.Data([]byte("data"), 3)
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := NewClearSealer().Data([]byte("data"), 0)
	if err != nil {
		t.Fatal(err)
	}
	samples := []wiretest.Sample{
		{Name: "data block", Value: []byte("data"), Bytes: data, Decode: func(b []byte) (any, error) { return OpenData(nil, b, rd) }},
		{Name: "raw block", Value: []byte("data"), Bytes: raw, Decode: func(b []byte) (any, error) { return OpenData(nil, b, ReadKey{}) }},
	}
	manifest := func(name string, s *Sealer, m *Manifest) {
		b, r, err := s.Manifest(m, 1)
		if err != nil {
			t.Fatal(err)
		}
		// Verify keys follow from read keys.
		open := func(b []byte) (*Manifest, error) { return OpenManifest(b, r, m.Root != nil) }
		if whole, err := open(b); err != nil || !same(whole, m) {
			t.Fatalf("%s: %v", name, err)
		} else {
			m = whole
		}
		samples = append(samples, wiretest.Sample{Name: name, Value: m, Bytes: b, Decode: wiretest.Decoder(open)})
	}
	root := sample(false)
	root.Root.Claim, root.Root.Mtime = [16]byte{7}, -5
	manifest("manifest, root", s, root)
	manifest("manifest, inner", s, &Manifest{Level: 0, Children: []Child{{GUID: root.Children[0].GUID, Read: ReadKey{2}, Length: 9}}})
	manifest("manifest, small file inline", s, &Manifest{
		Root: &Root{Total: 2, Name: "n", Mode: 0o600, Chunking: Fixed, ChunkSize: 1 << 20, Inline: []byte("hi")},
	})
	manifest("manifest, clear root", NewClearSealer(), sample(true))
	for i, l := range links() {
		samples = append(samples, wiretest.Sample{
			Name: []string{"link to read, as text", "link to verify, as text", "link to a clear file, as text"}[i], Value: l, Bytes: []byte(l.Text()),
			Decode: wiretest.Decoder(func(b []byte) (Link, error) { return ParseLink(string(b)) }),
		})
	}
	wiretest.Bytes(t, "seal", samples)
}
