package files

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

func TestJournalOfAnotherPut(t *testing.T) {
	const chunk = 256
	path := writeFile(t, "big", data(1, chunk*100))
	for name, change := range map[string]func(c *Client, r *PutRequest){
		"k":         func(_ *Client, r *PutRequest) { r.K = 2 },
		"unique":    func(_ *Client, r *PutRequest) { r.Unique = true },
		"clear":     func(_ *Client, r *PutRequest) { r.Clear = true },
		"name":      func(_ *Client, r *PutRequest) { r.Name = "other" },
		"no resume": func(_ *Client, r *PutRequest) { r.NoResume = true },
		"secret":    func(c *Client, _ *PutRequest) { c.cfg.Secret = seal.Secret{9} },
		"pool":      func(c *Client, _ *PutRequest) { c.cfg.Pool = [32]byte{9} },
		"touched": func(_ *Client, r *PutRequest) {
			now := time.Now().Add(time.Hour)
			if err := os.Chtimes(r.Path, now, now); err != nil {
				t.Fatal(err)
			}
		},
	} {
		p, dir := newPool(), t.TempDir()
		c := open(t, p, dir, chunkOf(chunk))
		cutAfter(p, "put", 50, nil)
		if _, err := c.PutFile(t.Context(), PutRequest{Path: path}); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		p.reset()
		r := PutRequest{Path: path}
		change(c, &r)
		res, err := c.PutFile(t.Context(), r)
		if err != nil || res.Resumed != 0 {
			t.Errorf("%s: %d resumed, %v", name, res.Resumed, err)
		}
		if got := get(t, c, res.Link); !bytes.Equal(got, data(1, chunk*100)) {
			t.Errorf("%s: got %s", name, describe(got))
		}
		if len(uploads(t, dir)) != 1 {
			t.Errorf("%s: %d journals", name, len(uploads(t, dir)))
		}
	}
}

func TestUniqueResumesWithItsSecret(t *testing.T) {
	path := writeFile(t, "big", data(1, 256*100))
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(256))
	cutAfter(p, "put", 50, nil)
	r := PutRequest{Path: path, Unique: true}
	if _, err := c.PutFile(t.Context(), r); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p.reset()
	res, err := c.PutFile(t.Context(), r)
	if err != nil || res.Resumed == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := get(t, c, res.Link); !bytes.Equal(got, data(1, 256*100)) {
		t.Fatalf("got %s", describe(got))
	}
}

func TestJournalOfFinishedFile(t *testing.T) {
	const chunk = 256
	want := data(1, chunk*100)
	path := writeFile(t, "big", want)
	p, dir := newPool(), t.TempDir()
	c := open(t, p, dir, chunkOf(chunk))
	// The process is killed between catalogue entry and end of journal: keep a
	// copy of the journal as it is when the root has been stored.
	var saved []byte
	var at string
	p.onPut = func(id.GUID, []byte) error {
		if names := uploads(t, dir); len(names) == 1 {
			at = names[0]
			saved, _ = os.ReadFile(at)
		}
		return nil
	}
	res, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		t.Helper()
		if err := os.WriteFile(at, saved, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.reset()
	restore()
	if _, err := c.Remove(t.Context(), res.Link, nil); err != nil {
		t.Fatal(err)
	}
	if len(uploads(t, dir)) != 0 {
		t.Error("rm left the journal")
	}
	again, err := c.PutFile(t.Context(), PutRequest{Path: path})
	if err != nil || again.Resumed != 0 {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := get(t, c, again.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}

	// Found at the next start, it is dropped.
	p, dir = newPool(), t.TempDir()
	c = open(t, p, dir, chunkOf(chunk))
	p.onPut = func(id.GUID, []byte) error {
		if names := uploads(t, dir); len(names) == 1 {
			at = names[0]
			saved, _ = os.ReadFile(at)
		}
		return nil
	}
	if _, err = c.PutFile(t.Context(), PutRequest{Path: path}); err != nil {
		t.Fatal(err)
	}
	restore()
	_ = c.Close()
	open(t, p, dir, chunkOf(chunk))
	if len(uploads(t, dir)) != 0 {
		t.Error("the start left the journal")
	}
}

func FuzzReadJournal(f *testing.F) {
	h := journalHead{Source: identity{Size: 5, Key: "k"}, Claim: [16]byte{1}, Chunk: 7, Name: "n"}
	body := h.encode()
	head := appendSum(append([]byte{'H', byte(len(body) >> 8), byte(len(body))}, body...))
	f.Add(head)
	f.Add(append(bytes.Clone(head), encodeAck(3, ack{length: 7, guid: id.GUID{1}})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readJournal(bytes.NewReader(b), false, true)
		if err != nil {
			return
		}
		if c.end > int64(len(b)) {
			t.Fatalf("ends at %d of %d", c.end, len(b))
		}
		if h, err := decodeHead(c.head.encode()); err != nil || h != c.head {
			t.Fatalf("%+v, %v", h, err)
		}
	})
}

func FuzzJournalRecords(f *testing.F) {
	h := journalHead{Source: identity{Size: 5, Key: "k"}, Claim: [16]byte{1}, Chunk: 7, Name: "n"}
	f.Add(h.encode(), encodeAck(3, ack{length: 7, guid: id.GUID{1}}))
	f.Fuzz(func(t *testing.T, head, record []byte) {
		if h, err := decodeHead(head); err == nil && !bytes.Equal(h.encode(), head) {
			t.Fatalf("%x encodes to %x", head, h.encode())
		}
		if len(record) != ackSize || record[0] != 'A' {
			return
		}
		if i, a, err := decodeAck(record); err == nil {
			if again := encodeAck(i, a); !bytes.Equal(again[:ackSize-sumSize], record[:ackSize-sumSize]) {
				t.Fatalf("%x encodes to %x", record, again)
			}
		}
	})
}
