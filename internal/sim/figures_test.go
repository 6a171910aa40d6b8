package sim

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden traces; then read the diff")

// TestFigures: the chapter's figures as golden traces.
func TestFigures(t *testing.T) {
	for _, number := range FigureNumbers() {
		t.Run(number, func(t *testing.T) {
			f, err := Figure(context.Background(), number, 1, []int{64, 1000})
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			f.Print(&b)
			if !f.Passed {
				t.Errorf("failed:\n%s", b.String())
			}
			golden := filepath.Join("testdata", "figure-"+number+".txt")
			if *rewrite {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("differs from %s:\n%s", golden, b.String())
			}
		})
	}
	if _, err := Figure(context.Background(), "11.1", 1, nil); err == nil {
		t.Error("an unknown figure was drawn")
	}
}
