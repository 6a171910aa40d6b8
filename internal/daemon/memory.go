package daemon

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"atoll.example/atoll/internal/cli"
)

// nodeMemory is the limit of a process's memory, by node: four fifths of the
// 400 MiB that a node takes at most (60-reliability §7).
const (
	nodeMemory  = 320 << 20
	memoryEvery = time.Minute
)

// setMemory sets the limit that the runtime works towards: that of the settings,
// else GOMEMLIMIT, which the runtime has read, else one by the number of nodes. It
// reports whether the last is what holds.
func setMemory(o cli.NodeOptions) (ours bool) {
	switch {
	case o.Memory != 0:
		debug.SetMemoryLimit(o.Memory)
	case os.Getenv("GOMEMLIMIT") == "":
		debug.SetMemoryLimit(memoryFor(o.Nodes, inUse()))
		return true
	}
	return false
}

// memoryFor is the limit for so many nodes, of whose memory live bytes are in use.
// The index of a large store may need more than nodeMemory by itself (ADR 5); the
// collector, which would run without end, is left a quarter of it to work with.
func memoryFor(nodes int, live int64) int64 {
	return max(int64(max(nodes, 1))*nodeMemory, live+live/4)
}

// inUse is what the collector found in use the last time.
func inUse() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// keepMemory follows up what is in use.
func keepMemory(ctx context.Context, o cli.NodeOptions) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for setMemory(o) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
