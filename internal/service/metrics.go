package service

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"atoll.example/atoll/internal/node"
)

// collector reads a node when it is scraped: nothing is counted twice.
type collector struct{ n *node.Node }

var (
	traceDesc = prometheus.NewDesc("atoll_trace_events_total", "What the protocols reported, by kind.", []string{"kind"}, nil)
	memberD   = prometheus.NewDesc("atoll_members", "Members of the pool.", nil, nil)
	storeD    = prometheus.NewDesc("atoll_store_bytes", "The store: limit, used, reserve, free.", []string{"what"}, nil)
	blocksD   = prometheus.NewDesc("atoll_store_blocks", "Blocks on this disk.", nil, nil)
	opsD      = prometheus.NewDesc("atoll_dht_operations_total", "Operations of the DHT.", []string{"op"}, nil)
	bytesD    = prometheus.NewDesc("atoll_dht_bytes_total", "Bytes of blocks moved by the DHT.", []string{"what"}, nil)
	refusedD  = prometheus.NewDesc("atoll_dht_refusals_total", "Requests refused, by cause.", []string{"cause"}, nil)
	queuedD   = prometheus.NewDesc("atoll_repair_queued", "Blocks waiting to be copied.", nil, nil)
	netD      = prometheus.NewDesc("atoll_network_bytes_total", "Bytes of frames.", []string{"direction"}, nil)
	damageD   = prometheus.NewDesc("atoll_store_damage", "Block files missing at the start, and reads that met damaged tables.", []string{"what"}, nil)
	dropsD    = prometheus.NewDesc("atoll_dropped_total", "What was dropped.", []string{"what"}, nil)
)

func newMetrics(n *node.Node) prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{n}, collectors.NewGoCollector(), ownProcess{collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})})
	return r
}

// ownProcess leaves out what the collector tells of the whole machine's network
// under the process' name.
type ownProcess struct{ prometheus.Collector }

// Describe implements prometheus.Collector.
func (c ownProcess) Describe(out chan<- *prometheus.Desc) {
	for _, d := range taken(c.Collector.Describe) {
		if !ofMachine(d) {
			out <- d
		}
	}
}

// Collect implements prometheus.Collector.
func (c ownProcess) Collect(out chan<- prometheus.Metric) {
	for _, m := range taken(c.Collector.Collect) {
		if !ofMachine(m.Desc()) {
			out <- m
		}
	}
}

func ofMachine(d *prometheus.Desc) bool { return strings.Contains(d.String(), `"process_network_`) }

// taken is what f sends.
func taken[T any](f func(chan<- T)) (all []T) {
	c := make(chan T, 64) // a process has a dozen figures
	f(c)
	close(c)
	for x := range c {
		all = append(all, x)
	}
	return all
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{traceDesc, memberD, storeD, blocksD, opsD, bytesD, refusedD, queuedD, netD, damageD, dropsD} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	v, err := c.n.View()
	if err != nil {
		return // the node has stopped
	}
	count := func(d *prometheus.Desc, n int64, label ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label...)
	}
	gauge := func(d *prometheus.Desc, n int64, label ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), label...)
	}
	for kind, n := range c.n.TraceCounts() {
		count(traceDesc, n, kind)
	}
	gauge(memberD, int64(v.Members))
	u := c.n.Usage()
	gauge(storeD, u.Limit, "limit")
	gauge(storeD, u.Used, "used")
	gauge(storeD, u.Reserve, "reserve")
	gauge(storeD, u.Free, "free")
	gauge(blocksD, u.Blocks)
	s := v.DHT
	for op, n := range map[string]int64{
		"put": s.Puts, "get": s.Gets, "remove": s.Removes, "signed_put": s.SignedPuts, "signed_get": s.SignedGets,
		"stored": s.Stored, "served": s.Served, "repair": s.Repairs, "hedge": s.Hedges, "scrub": s.Scrubbed,
	} {
		count(opsD, n, op)
	}
	count(bytesD, s.StoredBytes, "stored")
	count(bytesD, s.ServedBytes, "served")
	count(bytesD, s.RepairBytes, "repair")
	r := s.Refused
	for cause, n := range map[string]int64{
		"full": r.Full, "busy": r.Busy, "no_quorum": r.NoQuorum, "not_found": r.NotFound, "unavailable": r.Unavailable,
		"removed": r.Removed, "stale_seq": r.StaleSeq, "cas": r.CAS, "bad_input": r.BadInput, "other": r.Other,
	} {
		count(refusedD, n, cause)
	}
	gauge(queuedD, s.RepairQueued)
	net := c.n.Network()
	count(netD, int64(net.ControlBytesIn+net.BulkBytesIn), "in")
	count(netD, int64(net.ControlBytesOut+net.BulkBytesOut), "out")
	for what, n := range c.n.Dropped() {
		count(dropsD, n, what)
	}
	files, tables := c.n.Damage()
	gauge(damageD, int64(files), "missing_file")
	gauge(damageD, tables, "bad_table")
}
