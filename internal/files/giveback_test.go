package files

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
)

// TestRefusedPutGivesBack: a put that the pool has no room for ends its claims,
// those of what it shares with another file alone; if the pool cannot be reached
// for that, the next sweep does, at once. A put that is merely cut short keeps what
// it has stored.
func TestRefusedPutGivesBack(t *testing.T) {
	const chunk = 256
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	kept := put(t, c, data(1, chunk*40))
	both := append(data(1, chunk*40), data(2, chunk*100)...)
	path := writeFile(t, "x", both)
	room := func() int { return len(p.guids()) - int(kept.Blocks) }

	fill := func() {
		p.reset()
		p.onPut = func(id.GUID, []byte) error {
			if p.calls["put"] > 90 {
				return refuse("full")
			}
			return nil
		}
	}
	fill()
	_, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if !hasCode(err, "full") || !strings.Contains(err.Error(), "has been given back") {
		t.Fatal(err)
	}
	if room() != 0 || len(uploads(t, dir)) != 0 {
		t.Fatalf("%d blocks and journals %v left of a refused put", room(), uploads(t, dir))
	}

	fill()
	p.onAny = func(op string) error {
		if op == "remove" && p.calls[op] > 5 {
			return refuse("no_quorum")
		}
		return nil
	}
	_, err = c.PutFile(t.Context(), PutRequest{Path: path})
	if !hasCode(err, "full") || !strings.Contains(err.Error(), "is given back later") || room() == 0 {
		t.Fatalf("%v, %d blocks left", err, room())
	}
	p.reset()
	if s, err := c.Sweep(t.Context()); err != nil || s.Uploads != 1 || room() != 0 {
		t.Fatalf("%+v, %v, %d blocks left", s, err, room())
	}

	// The file changes under the put.
	p.onPut = func(id.GUID, []byte) error {
		if p.calls["put"] == 50 {
			return os.WriteFile(path, data(3, chunk*100), 0o600)
		}
		return nil
	}
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !hasCode(err, "changed") || room() != 0 {
		t.Fatalf("%v, %d blocks left", err, room())
	}

	p.reset()
	cutAfter(p, "put", 50, nil)
	if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) || room() == 0 || len(uploads(t, dir)) != 1 {
		t.Fatalf("%v, %d blocks left, journals %v", err, room(), uploads(t, dir))
	}
	p.reset()
	if got := get(t, c, kept.Link); !bytes.Equal(got, data(1, chunk*40)) {
		t.Fatalf("got %s", describe(got))
	}
}
