package daemon

import (
	"math"
	"runtime/debug"
	"testing"

	"atoll.example/atoll/internal/cli"
)

// TestMemory: the setting comes before the environment, and that before what a
// node is given by itself.
func TestMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for _, c := range []struct {
		setting int64
		nodes   int
		env     string
		want    int64
		ours    bool
	}{
		{0, 0, "", nodeMemory, true},
		{0, 1, "", nodeMemory, true},
		{0, 3, "", 3 * nodeMemory, true},
		{1 << 30, 3, "", 1 << 30, false},
		{0, 1, "off", math.MaxInt64, false},
		{1 << 30, 1, "off", 1 << 30, false},
	} {
		t.Setenv("GOMEMLIMIT", c.env)
		debug.SetMemoryLimit(math.MaxInt64) // as the runtime has it without a limit
		ours := setMemory(cli.NodeOptions{Memory: c.setting, Nodes: c.nodes})
		if got := debug.SetMemoryLimit(-1); got != c.want || ours != c.ours {
			t.Errorf("%+v: limit %d, ours %t", c, got, ours)
		}
	}
	if got := memoryFor(1, 400<<20); got != 500<<20 {
		t.Errorf("with 400 MiB in use the limit is %d", got)
	}
}
