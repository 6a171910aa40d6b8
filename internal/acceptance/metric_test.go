package acceptance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"atoll.example/atoll/internal/node"
)

// metric reads one number of a member's Prometheus text.
func (p *pool) metric(i int, name string) int64 {
	p.t.Helper()
	n, ok := p.scrape(i, name)
	if !ok {
		p.t.Fatalf("no metric %s", name)
	}
	return n
}

// traced is how often a member has reported something of a kind.
func (p *pool) traced(i int, kind string) int64 {
	p.t.Helper()
	n, _ := p.scrape(i, fmt.Sprintf("atoll_trace_events_total{kind=%q}", kind))
	return n
}

func (p *pool) scrape(i int, name string) (n int64, ok bool) {
	p.t.Helper()
	socket := filepath.Join(p.procs[i].dir, node.SocketName)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://atoll/v1/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				p.t.Fatalf("%s: %v", name, err)
			}
			return int64(f), true
		}
	}
	return 0, false
}
