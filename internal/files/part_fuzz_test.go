package files

import (
	"os"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// FuzzPart: a map of any content is gone on from only if it is of this file; else
// part and map begin anew. Marks are read back.
func FuzzPart(f *testing.F) {
	const name, chunk = "n", 1 << 10
	g := id.GUID{1}
	path := f.TempDir()
	root, err := os.OpenRoot(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = root.Close() })
	clean := func() {
		_ = root.Remove(beside(name, mapSuffix))
		_ = root.Remove(beside(name, partSuffix))
	}
	p, err := openPart(root, name, g, 20*chunk, chunk, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	if err := p.mark(9); err != nil {
		f.Fatal(err)
	}
	p.close()
	whole, err := root.ReadFile(beside(name, mapSuffix))
	if err != nil {
		f.Fatal(err)
	}
	clean()
	f.Add(whole, uint32(20*chunk))
	f.Add(whole, uint32(20*chunk-1))
	f.Add(whole[:mapHead], uint32(20*chunk))
	f.Add(whole[:mapHead-1], uint32(20*chunk))
	f.Add(append(whole[:len(whole):len(whole)], make([]byte, 100)...), uint32(20*chunk))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, total uint32) {
		total %= 1 << 20
		defer clean()
		if err := root.WriteFile(beside(name, mapSuffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(beside(name, partSuffix), []byte("earlier"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := openPart(root, name, g, uint64(total), chunk, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { p.close() }()
		chunks := (int64(total) + chunk - 1) / chunk
		for i := range chunks {
			at := mapHead + int(i/8)
			if got, want := p.marked(i), !p.fresh && at < len(b) && b[at]>>(i%8)&1 == 1; got != want {
				t.Fatalf("chunk %d of %x: marked %v", i, b, got)
			}
		}
		if info, err := p.data.Stat(); err != nil || p.fresh != (info.Size() == 0) {
			t.Errorf("fresh %v: %v, %v", p.fresh, info.Size(), err)
		}
		if chunks == 0 {
			return
		}
		if err := p.mark(chunks - 1); err != nil {
			t.Fatal(err)
		}
		p.close()
		if p, err = openPart(root, name, g, uint64(total), chunk, 0o600); err != nil {
			t.Fatal(err)
		}
		if p.fresh || !p.marked(chunks-1) {
			t.Errorf("%x: the mark of chunk %d is lost", b, chunks-1)
		}
	})
}

// FuzzBeside: the name of a helper file is one a folder takes, and names of
// the output stay apart.
func FuzzBeside(f *testing.F) {
	f.Add("a")
	f.Add(string(make([]byte, seal.MaxName)))
	f.Fuzz(func(t *testing.T, name string) {
		for _, suffix := range []string{partSuffix, mapSuffix} {
			if got := beside(name, suffix); len(got) > seal.MaxName || got == name {
				t.Errorf("%q has %q beside it", name, got)
			}
		}
	})
}
