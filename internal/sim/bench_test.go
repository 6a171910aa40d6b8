package sim

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// keptRun keeps the last run of BenchmarkOverlay alive, for -memprofile.
var keptRun *overlayRun

// BenchmarkOverlay takes the cost of two minutes under loss and churn, once the
// ring has formed: CPU time and garbage an event, bytes a node.
//
//	go test ./internal/sim -run '^$' -bench 'Overlay/10000' -benchtime 1x -memprofile /tmp/mem
func BenchmarkOverlay(b *testing.B) {
	for _, nodes := range []int{1000, 10_000, 30_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			for b.Loop() {
				cfg := DefaultOverlay()
				cfg.Nodes, cfg.Duration = nodes, 2*time.Minute
				maker, err := newNodeMaker(&cfg)
				if err != nil {
					b.Fatal(err)
				}
				keptRun = newOverlayRun(cfg, maker)
				r := keptRun.run(context.Background(), nil)
				b.ReportMetric(r.Cost.USPerEvent, "µs/event")
				b.ReportMetric(r.Cost.GarbagePerEvent, "garbage-B/event")
				b.ReportMetric(r.Cost.HeapPerNode, "B/node")
				b.ReportMetric(r.Cost.ProcessMiB, "MiB")
				b.ReportMetric(float64(r.Events), "events")
				b.Log(r.TraceHash)
			}
		})
	}
}
