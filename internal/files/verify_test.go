package files

import (
	"bytes"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

func TestVerifyFindsAndRepairs(t *testing.T) {
	const chunk = 64
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	r := put(t, c, data(1, chunk*1100))
	victim, leafOfVictim := lowBlocks(t, c, r.Link)
	good := p.blocks[victim]
	p.blocks[victim] = append(bytes.Clone(good), 1) // one copy is bad; Audit says so
	v, err := c.Verify(t.Context(), r.VerifyLink, VerifyOptions{Deep: true})
	if err != nil || v.Blocks != r.Blocks || v.OK != r.Blocks-1 || v.Corrupt != 1 || v.Missing != 0 || v.Bad[fakeLiar] != 1 || v.Lost != 0 || v.Sound() {
		t.Fatalf("%+v, %v", v, err)
	}
	v, err = c.Verify(t.Context(), r.VerifyLink, VerifyOptions{Repair: true})
	if err != nil || v.Repaired != 1 || !v.Sound() {
		t.Fatalf("%+v, %v", v, err)
	}
	p.blocks[victim] = good
	delete(p.blocks, victim)
	v, err = c.Verify(t.Context(), r.Link, VerifyOptions{Repair: true})
	if err != nil || v.Missing != 3 || v.Lost != 1 || !slices.Equal(v.Unrepairable, []id.GUID{victim}) || v.Sound() {
		t.Fatalf("%+v, %v", v, err)
	}
	// A manifest that is lost hides what is below it, and the walk goes on.
	delete(p.blocks, leafOfVictim)
	v, err = c.Verify(t.Context(), r.Link, VerifyOptions{})
	if err != nil || v.Blocks != r.Blocks-512 || !slices.Equal(v.Unrepairable, []id.GUID{leafOfVictim}) {
		t.Fatalf("%+v, %v", v, err)
	}
	delete(p.blocks, r.GUID)
	v, err = c.Verify(t.Context(), r.Link, VerifyOptions{})
	if err != nil || v.Blocks != 1 || v.Lost != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	p.onAny = func(string) error { return refuse("no_quorum") }
	if _, err := c.Verify(t.Context(), r.Link, VerifyOptions{}); !hasCode(err, "no_quorum") {
		t.Fatal(err)
	}
}

func lowBlocks(t *testing.T, c *Client, l seal.Link) (chunk, leaf id.GUID) {
	t.Helper()
	f, err := c.OpenFile(t.Context(), l)
	if err != nil || f.root.Level != 1 {
		t.Fatal(err)
	}
	leaf = f.root.Children[0].GUID
	b, err := c.cfg.Blocks.Get(t.Context(), leaf)
	if err != nil {
		t.Fatal(err)
	}
	m, err := seal.OpenManifest(b, f.root.Children[0].Read, false)
	if err != nil {
		t.Fatal(err)
	}
	return m.Children[0].GUID, leaf
}
