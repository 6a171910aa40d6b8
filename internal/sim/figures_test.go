package sim

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/wire/wiretest"
)

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
			wiretest.Text(t, filepath.Join("testdata", "figure-"+number+".txt"), b.String())
		})
	}
	if _, err := Figure(context.Background(), "11.1", 1, nil); err == nil {
		t.Error("an unknown figure was drawn")
	}
}
