package files

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenFileDiversion: a chunk whose place is full is sealed again with the
// next salt, and so has another name and another place, three times at most
// (20-dht §4, §10). What must not differ is asserted beside the trace.
func TestGoldenFileDiversion(t *testing.T) {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	name := func(b []byte) string {
		h, err := seal.ParseHeader(b)
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%-8s salt %d", map[seal.Kind]string{seal.KindData: "chunk", seal.KindManifest: "manifest"}[h.Kind], h.Salt)
	}
	p := newPool()
	places, nodes := make(map[id.GUID]string), []id.GUID{id.FromPrefix("aa"), id.FromPrefix("bb")}
	fullTo := uint8(2) // salts up to this one meet full disks
	p.onPut = func(g id.GUID, b []byte) error {
		places[g] = name(b)
		if h, _ := seal.ParseHeader(b); h.Kind == seal.KindData && h.Salt <= fullTo {
			say("  put %s   full", places[g])
			return &refusal{code: "full", nodes: nodes}
		}
		say("  put %s   stored", places[g])
		return nil
	}
	p.onGet = func(g id.GUID, b []byte) ([]byte, error) {
		say("  get %s", name(b))
		return b, nil
	}
	p.onEnd = func(g id.GUID) { say("  remove %s", places[g]) }
	c := open(t, p, t.TempDir())
	want := data(1, 10_000)

	say("The first three places of a chunk are full.")
	r := put(t, c, want)
	say("  link printed")
	if r.NewBlocks != 2 || len(p.blocks) != 2 {
		t.Errorf("%+v, %d blocks in the pool", r, len(p.blocks))
	}
	say("\nIt is read like any other: the manifest names what was stored.")
	if got := get(t, c, r.Link); !bytes.Equal(got, want) {
		t.Fatalf("got %s", describe(got))
	}
	say("\nIt is removed.")
	if _, err := c.Remove(t.Context(), r.Link, nil); err != nil || len(p.blocks) != 0 {
		t.Fatalf("%d blocks left, %v", len(p.blocks), err)
	}
	say("\nAnother chunk finds all four places full.")
	fullTo = maxDiversions
	path := writeFile(t, "file", data(2, 10_000))
	_, err := c.PutFile(t.Context(), PutRequest{Path: path})
	var f *FullError
	if !errors.As(err, &f) || Code(err) != "full" || f.Tries != maxDiversions+1 || len(f.Nodes()) != len(nodes) {
		t.Fatalf("%v", err)
	}
	say("  refused: %s", strings.ReplaceAll(err.Error(), path, "FILE"))
	if len(p.blocks) != 0 {
		t.Errorf("a refused put left %d blocks", len(p.blocks))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// Claims end in any order.
	for i := range lines {
		for j := i; j > 0 && removes(lines[j]) && removes(lines[j-1]) && lines[j] < lines[j-1]; j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
	wiretest.Text(t, filepath.Join("testdata", "file-diversion.txt"), "File diversion\n\n"+strings.Join(lines, "\n")+"\n")
}

func removes(line string) bool { return strings.HasPrefix(line, "  remove ") }
