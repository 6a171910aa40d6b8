package sim

import (
	"runtime"
	"runtime/metrics"
	"time"

	"atoll.example/atoll/internal/cputime"
)

// Cost is what the measured part of a run took of the computer: the one part of
// a result that the seed does not decide.
type Cost struct {
	CPUS            float64 `json:"cpu_s"`               // CPU time of the process, collector included; 0: not known here
	USPerEvent      float64 `json:"us_per_event"`        // CPU time in µs
	HeapPerNode     float64 `json:"heap_bytes_per_node"` // live at the end, everything of the run shared out
	GarbagePerEvent float64 `json:"garbage_bytes_per_event"`
	ProcessMiB      float64 `json:"process_mib"` // memory held from the operating system at the end
}

// costMeter takes the cost of a span. It is of the whole process, so only of
// use where a run is alone in it.
type costMeter struct {
	cpu       time.Duration
	allocated uint64
}

func startCost() *costMeter {
	return &costMeter{cpu: cputime.Used(), allocated: readMetric("/gc/heap/allocs:bytes")}
}

// stop ends the span, which had so many events and left so many nodes running.
func (m *costMeter) stop(events uint64, nodes int) Cost {
	cpu := cputime.Used() - m.cpu
	garbage := readMetric("/gc/heap/allocs:bytes") - m.allocated
	held := processMemory()
	runtime.GC()
	return Cost{
		CPUS:            cpu.Seconds(),
		USPerEvent:      cpu.Seconds() * 1e6 / float64(max(1, events)),
		HeapPerNode:     float64(readMetric("/memory/classes/heap/objects:bytes")) / float64(max(1, nodes)),
		GarbagePerEvent: float64(garbage) / float64(max(1, events)),
		ProcessMiB:      float64(held) / (1 << 20),
	}
}

// processMemory is what the process holds from the operating system, in bytes.
func processMemory() uint64 {
	return readMetric("/memory/classes/total:bytes") - readMetric("/memory/classes/heap/released:bytes")
}

func readMetric(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}
