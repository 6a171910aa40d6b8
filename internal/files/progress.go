package files

import (
	"math"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
)

// Progress is how far a transfer is. Total, ETAS are -1 when unknown.
type Progress struct {
	Phase     string // reading, sending, comparing, finishing, fetching, checking, removing
	Bytes     int64
	Total     int64
	Blocks    int64
	Rate      int64  // bytes a second, smoothed
	StalledOn string // what nothing moves without; empty while something does
	ETAS      int64  // seconds
}

// Chosen by us: 4 reports a second stay under the 5 of 20-dht §8; a rate
// smoothed over 3 s neither jumps with every block nor lags a minute behind.
const (
	reportEvery = 250 * time.Millisecond
	smoothOver  = 3 * time.Second
	stalledFor  = 2 * time.Second
)

// meter counts, and reports from one goroutine of its own. A nil meter does
// nothing.
type meter struct {
	report func(Progress)
	stop   chan struct{}
	done   chan struct{}

	mu     sync.Mutex // guards all below
	p      Progress
	moved  int64 // bytes that count for the rate
	last   time.Time
	flying map[id.GUID]flight // blocks in transfer; bounded by the window
	rate   float64
	seen   int64
	ticks  int
}

type flight struct {
	since time.Time
	code  string // of the last refusal
}

func newMeter(phase string, total int64, report func(Progress)) *meter {
	if report == nil {
		return nil
	}
	m := &meter{
		report: report, stop: make(chan struct{}), done: make(chan struct{}),
		p:    Progress{Phase: phase, Total: total, ETAS: -1},
		last: time.Now(), flying: make(map[id.GUID]flight),
	}
	go m.run()
	return m
}

// run reports until close.
func (m *meter) run() {
	defer close(m.done)
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			m.report(m.tick(now))
		case <-m.stop:
			return
		}
	}
}

// close ends the reports with a last one.
func (m *meter) close() {
	if m == nil {
		return
	}
	close(m.stop)
	<-m.done
	m.mu.Lock()
	p := m.p
	m.mu.Unlock()
	p.StalledOn = ""
	m.report(p)
}

func (m *meter) tick(now time.Time) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ticks++
	now1 := float64(m.moved-m.seen) / reportEvery.Seconds()
	m.seen = m.moved
	// The first seconds are an average, so that the rate does not climb from 0.
	weight := max(1/float64(m.ticks), 1-math.Exp(-reportEvery.Seconds()/smoothOver.Seconds()))
	m.rate += weight * (now1 - m.rate)
	p := m.p
	p.Rate, p.ETAS = int64(m.rate), -1
	if left := p.Total - p.Bytes; p.Total >= 0 && m.rate >= 1 {
		p.ETAS = int64(math.Ceil(float64(max(left, 0)) / m.rate))
	}
	if now.Sub(m.last) >= stalledFor {
		p.StalledOn = m.oldest()
	}
	m.p.Rate, m.p.ETAS = p.Rate, p.ETAS
	return p
}

func (m *meter) oldest() string {
	var g id.GUID
	var f flight
	for k, v := range m.flying {
		if f.since.IsZero() || v.since.Before(f.since) || v.since.Equal(f.since) && k.Less(g) {
			g, f = k, v
		}
	}
	switch {
	case f.since.IsZero():
		return "input"
	case f.code != "":
		return "block " + g.Short() + ": " + f.code
	}
	return "block " + g.Short()
}

// add counts bytes and blocks that are done; moved says whether they were
// transferred just now.
func (m *meter) add(bytes, blocks int64, moved bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Bytes += bytes
	m.p.Blocks += blocks
	if moved {
		m.moved += bytes
	}
	m.last = time.Now()
}

func (m *meter) phase(name string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Phase = name
}

// restart counts the bytes from 0 again.
func (m *meter) restart(phase string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Phase, m.p.Bytes = phase, 0
}

// begin, refused and end tell of a block in transfer.
func (m *meter) begin(g id.GUID) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flying[g] = flight{since: time.Now()}
}

func (m *meter) refused(g id.GUID, err error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.flying[g]; ok {
		f.code = Code(err)
		m.flying[g] = f
	}
}

func (m *meter) end(g id.GUID) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.flying, g)
}
