package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

func TestSharedClaims(t *testing.T) {
	const chunk = 256
	p := newPool()
	dir := t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	shared := data(1, chunk*600)
	a := append(bytes.Clone(shared), data(2, chunk*3)...)
	b := append(bytes.Clone(shared), data(3, chunk*4)...)
	ra, rb := put(t, c, a), put(t, c, b)
	if rb.NewBlocks != 4+2+1 { // its own chunks, its second leaf, its root … and no shared leaf
		t.Logf("%+v", rb)
	}
	rm, err := c.Remove(t.Context(), ra.Link, nil)
	if err != nil || rm.KeptByOthers < 600 || rm.Blocks != ra.Blocks {
		t.Fatalf("%+v, %v", rm, err)
	}
	if got := get(t, c, rb.Link); !bytes.Equal(got, b) {
		t.Fatalf("got %s", describe(got))
	}
	if v, err := c.Verify(t.Context(), rb.Link, VerifyOptions{}); err != nil || v.OK != rb.Blocks {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := c.GetFile(t.Context(), ra.Link, io.Discard, GetOptions{}); !hasCode(err, "removed") {
		t.Fatal(err)
	}
	for what, use := range map[string]func() error{
		"stat":   func() error { _, err := c.Stat(t.Context(), ra.Link); return err },
		"verify": func() error { _, err := c.Verify(t.Context(), ra.VerifyLink, VerifyOptions{}); return err },
		"rm":     func() error { _, err := c.Remove(t.Context(), ra.Link, nil); return err },
	} {
		if err := use(); !errors.Is(err, ErrRemoved) || !hasCode(err, "removed") {
			t.Errorf("%s of a removed file: %v", what, err)
		}
	}
	links := []seal.Link{ra.Link, rb.Link}
	if v, err := c.VerifyAll(t.Context(), links, VerifyOptions{}); err != nil || v.OK != rb.Blocks || v.Lost != 1 {
		t.Errorf("one of two removed elsewhere: %+v, %v", v, err)
	}
	if c.Catalogue().Len() != 1 {
		t.Errorf("%d files listed", c.Catalogue().Len())
	}
	if _, err := c.RemoveName(t.Context(), "file", nil); err != nil || len(p.guids()) != 0 {
		t.Fatalf("%d blocks left, %v", len(p.guids()), err)
	}
	if _, err := c.RemoveName(t.Context(), "file", nil); !hasCode(err, "not_found") {
		t.Fatal(err)
	}
}

func TestRemoveGoesBottomUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk = 64
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		r := put(t, c, data(1, chunk*5000))
		f, err := c.OpenFile(t.Context(), r.Link)
		if err != nil {
			t.Fatal(err)
		}
		below := make(map[id.GUID][]id.GUID)
		for _, leaf := range f.root.Children {
			m, err := seal.OpenManifest(p.blocks[leaf.GUID], leaf.Read, false)
			if err != nil {
				t.Fatal(err)
			}
			below[r.GUID] = append(below[r.GUID], leaf.GUID)
			for _, child := range m.Children {
				below[leaf.GUID] = append(below[leaf.GUID], child.GUID)
			}
		}
		p.onEnd = func(g id.GUID) {
			for _, child := range below[g] {
				if p.blocks[child] != nil {
					t.Errorf("manifest %s went before %s", g.Short(), child.Short())
				}
			}
		}
		var mu sync.Mutex
		rnd := rand.New(rand.NewPCG(1, 1))
		p.wait = func(context.Context, string) error {
			mu.Lock()
			d := time.Duration(rnd.IntN(10)) * time.Millisecond
			mu.Unlock()
			<-time.After(d) // fake time
			return nil
		}
		if _, err := c.Remove(t.Context(), r.Link, nil); err != nil || len(p.guids()) != 0 {
			t.Fatalf("%d left, %v", len(p.guids()), err)
		}
	})
}

func TestRemoveResumes(t *testing.T) {
	const chunk = 64
	for _, at := range []int{1, 2, 100, 511, 512, 513, 514, 600, 1100, 1105, 1106, 1107} {
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		r := put(t, c, data(1, chunk*1100))
		cutAfter(p, "remove", at, nil)
		if _, err := c.Remove(t.Context(), r.Link, nil); err == nil && at <= int(r.Blocks) {
			t.Fatalf("cut at %d of %d: removed", at, r.Blocks)
		}
		p.reset()
		if _, err := c.Remove(t.Context(), r.Link, nil); err != nil && !hasCode(err, "removed") {
			t.Fatalf("cut at %d: %v", at, err)
		}
		if n := len(p.guids()); n != 0 || c.Catalogue().Len() != 0 {
			t.Errorf("cut at %d: %d blocks and %d entries left", at, n, c.Catalogue().Len())
		}
	}
}

// A root has one claim: where those within reach know of its end, the file is
// removed, although a silent member keeps the pool from being sure of the block.
func TestRemovedWhileOneIsSilent(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir())
	r := put(t, c, data(1, 5000))
	p.onGet = func(id.GUID, []byte) ([]byte, error) { return nil, &refusal{code: "unavailable", gone: true} }
	before := p.count("get")
	for what, use := range map[string]func() error{
		"get":    func() error { _, err := c.GetFile(t.Context(), r.Link, io.Discard, GetOptions{}); return err },
		"stat":   func() error { _, err := c.Stat(t.Context(), r.Link); return err },
		"verify": func() error { _, err := c.Verify(t.Context(), r.VerifyLink, VerifyOptions{}); return err },
	} {
		if err := use(); !errors.Is(err, ErrRemoved) || !hasCode(err, "removed") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := p.count("get") - before; n != 3 {
		t.Errorf("%d gets by three commands: it was tried again", n)
	}
	if _, err := c.Remove(t.Context(), r.Link, nil); err != nil || c.Catalogue().Len() != 0 {
		t.Errorf("rm: %v, %d files listed", err, c.Catalogue().Len())
	}
}

// foreign is a pool as a member sees it who has put nothing in it.
type foreign struct{ *pool }

func (f foreign) Remove(ctx context.Context, g id.GUID, _ [16]byte) (kept bool, err error) {
	leave, err := f.enter(ctx, "remove")
	defer leave()
	return len(f.claims[g]) > 0, err
}

// A link lets others read a file, and not remove it: that is said.
func TestRemoveOfAnothersFile(t *testing.T) {
	p := newPool()
	owner, other := open(t, p, t.TempDir(), chunkOf(64)), open(t, foreign{p}, t.TempDir(), chunkOf(64))
	r := put(t, owner, data(1, 64*9))
	done, err := other.Remove(t.Context(), r.Link, nil)
	if !errors.Is(err, ErrNotOwner) || !hasCode(err, "forbidden") || done != (Removed{}) {
		t.Errorf("%+v, %v", done, err)
	}
	if done, err := owner.Remove(t.Context(), r.Link, nil); err != nil || done.Blocks != r.Blocks || len(p.guids()) != 0 {
		t.Errorf("by its owner: %+v, %v, %d blocks left", done, err, len(p.guids()))
	}
}
