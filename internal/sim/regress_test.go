package sim

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRegress runs the seeds that once failed: scenarios/regress/seeds.txt.
func TestRegress(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "scenarios", "regress", "seeds.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			t.Fatalf("%q: want scenario, seed and node-hours", line)
		}
		s, err := ScenarioByName(f[0])
		if err != nil {
			t.Fatal(err)
		}
		seed, err1 := strconv.ParseUint(f[1], 10, 64)
		hours, err2 := strconv.ParseFloat(f[2], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q: seed and node-hours are numbers", line)
		}
		t.Run(f[0]+"-"+f[1], func(t *testing.T) {
			t.Parallel()
			r, err := s.Run(context.Background(), seed, Options{NodeHours: hours}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				var w strings.Builder
				r.Print(&w)
				t.Error(w.String())
			}
		})
	}
}
