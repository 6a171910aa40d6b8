package node

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/seal"
)

// TestDroppedCopyIsMadeAgain: what "doctor --accept-disk" drops is missed when the
// node runs again, and fetched from the others.
func TestDroppedCopyIsMadeAgain(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 3)
	block := seal.Header{Kind: seal.KindRaw, Suite: seal.Clear}.Append(nil)
	block = append(block, bytes.Repeat([]byte("low water "), 60_000)...)
	g := seal.BlockGUID(block)
	if _, err := p.nodes[0].PutBlock(ctx, g, block, [16]byte{1}, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	sick := p.nodes[2]
	p.until(ctx, "the third copy", func() bool { return sick.Usage().Blocks == 1 })
	sick.Close()
	spoilt := 0
	err := filepath.WalkDir(filepath.Join(sick.cfg.Dir, storeDir, "blocks"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < len(block) {
			return err
		}
		spoilt++
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || spoilt != 1 {
		t.Fatalf("%d files spoilt, %v", spoilt, err)
	}
	if err := os.WriteFile(filepath.Join(sick.cfg.Dir, storeDir, "FAILED"), []byte("sector 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := Examine(ctx, sick.cfg.Dir, true)
	if err != nil || !found[len(found)-1].OK {
		t.Fatalf("%+v, %v", found, err)
	}
	again := p.reopen(ctx, 2, sick.cfg)
	p.until(ctx, "the copy to be made again", func() bool { return again.Usage().Blocks == 1 })
}
