package files

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
)

// One owner puts the same content again and again: where one name of a block has
// all the claims it can have the next ones go under the next name, found at once.
func TestManyFilesWithOneContent(t *testing.T) {
	const chunk, copies = 512, 300
	p := newPool()
	p.limit = 64 // as the DHT has it
	dir := t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	want := data(1, 2*chunk+100)
	var rs []Result
	for i := range copies {
		p.calls["put"] = 0
		rs = append(rs, put(t, c, want))
		if n := p.count("put"); n > 7 { // three chunks and the root, each chunk refused once
			t.Fatalf("put %d of the same took %d questions", i+1, n)
		}
		if r := rs[i]; r.Blocks != 4 || r.NewBlocks != 1 && i%64 != 0 {
			t.Fatalf("put %d of the same: %+v", i+1, r)
		}
	}
	if got, want := len(p.guids()), copies+3*5; got != want {
		t.Errorf("%d blocks for %d files, want a root each and each chunk under 5 names: %d", got, copies, want)
	}
	read := func() {
		t.Helper()
		for i, r := range rs {
			if got := get(t, c, r.Link); !bytes.Equal(got, want) {
				t.Fatalf("file %d: got %s", i+1, describe(got))
			}
		}
	}
	read()

	// A node that starts anew does not know where the names end.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, p, dir, chunkOf(chunk))
	rs = append(rs, put(t, c, want))
	for _, i := range []int{299, 64, 0} {
		if _, err := c.Remove(t.Context(), rs[i].Link, nil); err != nil {
			t.Fatal(err)
		}
		rs = append(rs[:i], rs[i+1:]...)
	}
	read()
	for _, r := range rs {
		if _, err := c.Remove(t.Context(), r.Link, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.guids()); n != 0 {
		t.Errorf("%d blocks are left", n)
	}
}

// A get that goes on knows chunks stored under any name again.
func TestResumeUnderAnyName(t *testing.T) {
	const chunk = 256
	p := newPool()
	p.limit = 1
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	want := data(1, chunk*200)
	var r Result
	for range 8 {
		r = put(t, c, want)
	}
	dir := t.TempDir()
	cutAfter(p, "get", 150, nil)
	if _, _, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	// Those under way before the first one tells are fetched once more.
	if _, s, err := c.SaveFile(t.Context(), r.Link, dir, SaveOptions{}); err != nil || s.Resumed < 80*chunk {
		t.Fatalf("%+v, %v", s, err)
	}
}

// When all names of a chunk have all their claims, a put says so and what to do,
// and leaves nothing; what ended makes room again.
func TestNoNameLeft(t *testing.T) {
	p := newPool()
	p.limit = 1
	c := open(t, p, t.TempDir())
	want := data(1, 5000)
	var rs []Result
	for range salts {
		rs = append(rs, put(t, c, want))
	}
	blocks := len(p.guids())
	path := writeFile(t, "file", want)
	_, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if !errors.Is(err, ErrClaims) || Code(err) != "claims" || !strings.Contains(err.Error(), "--unique") {
		t.Fatalf("file %d with one chunk: %v", salts+1, err)
	}
	if n := len(p.guids()); n != blocks {
		t.Errorf("%d blocks, %d before the put that was refused", n, blocks)
	}
	r, err := c.PutFile(t.Context(), PutRequest{Path: path, Unique: true})
	if err != nil {
		t.Fatal(err)
	}
	rs = append(rs, r)
	if _, err := c.Remove(t.Context(), rs[200].Link, nil); err != nil {
		t.Fatal(err)
	}
	rs[200] = put(t, c, want)
	for i, r := range rs {
		if got := get(t, c, r.Link); !bytes.Equal(got, want) {
			t.Fatalf("file %d: got %s", i+1, describe(got))
		}
	}
}

// A name that was refused and of which copies are left all the same is given back.
func TestClaimTakenAllTheSame(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir())
	want := data(1, 5000)
	first := true
	p.onPut = func(g id.GUID, b []byte) error {
		if !first {
			return nil
		}
		first = false
		p.blocks[g], p.claims[g] = b, map[[16]byte]bool{}
		return &refusal{code: "claims", nodes: []id.GUID{{1}}}
	}
	r := put(t, c, want)
	if n := len(p.guids()); n != 2 {
		t.Errorf("%d blocks, want chunk and root", n)
	}
	if got := get(t, c, r.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}
}
