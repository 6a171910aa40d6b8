package daemon

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/cli"
)

// TestDemoTellsHowLongRepairTook: from the loss on, not from when the demo began to
// wait for it, which may be when all is done.
func TestDemoTellsHowLongRepairTook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, bytes.Repeat([]byte("tide"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := demo(t.Context(), cli.DemoOptions{File: file, Exit: true, JSON: true}, &out); err != nil {
		t.Fatal(err)
	}
	type step struct {
		Step string  `json:"step"`
		AtS  float64 `json:"at_s"`
		MS   float64 `json:"ms"`
	}
	at := make(map[string]step)
	for d := json.NewDecoder(&out); d.More(); {
		var s step
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		at[s.Step] = s
	}
	killed, healed := at["killed"], at["healed"]
	if between := 1000 * (healed.AtS - killed.AtS); between <= 0 || healed.MS < between-1 {
		t.Errorf("killed at %.3f s, healed at %.3f s, which took %.0f ms", killed.AtS, healed.AtS, healed.MS)
	}
}

// TestDemoWords: a small file has one block, and a size as all commands print it.
func TestDemoWords(t *testing.T) {
	for got, want := range map[string]string{blocks(1): "1 block", blocks(2): "2 blocks", size(5): "5 B", size(256 << 20): "256.0 MiB"} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
