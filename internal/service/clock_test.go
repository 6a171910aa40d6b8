package service

import (
	"context"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/node"
)

// TestDoctorClock: the doctor tells of a clock that the others do not share, says so
// where nobody can be asked, and lets one wrong member of three be.
func TestDoctorClock(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 4)
	clock := func(s *Service) api.Check {
		res, err := s.Doctor(ctx, api.DoctorRequest{Checks: []string{"clock"}})
		if err != nil {
			t.Fatal(err)
		}
		return res.Results[0]
	}
	for _, c := range []struct {
		off         time.Duration
		level, says string
	}{
		{0, "ok", "agrees with that of 3 members"},
		{2 * time.Minute, "warn", "2m0s ahead of"},
		{-2 * time.Minute, "warn", "2m0s behind"},
		{time.Hour, "fail", "1h0m0s ahead of that of 3 members"},
	} {
		_ = p.services[3].Close()
		p.nodes[3].Close()
		n, err := node.Open(ctx, node.Config{
			Dir: p.nodes[3].Dir(), Loopback: true, NoQUIC: true, NoRelay: true, Preset: node.Local,
			Wall: func() int64 { return time.Now().Add(c.off).UnixMilli() },
		})
		if err != nil {
			t.Fatal(err)
		}
		p.nodes[3] = n
		if p.services[3], err = Open(n, nil); err != nil {
			t.Fatal(err)
		}
		var got api.Check
		until(t, "all to answer "+c.says, func() bool {
			got = clock(p.services[3])
			return strings.Contains(got.Detail, "3 members")
		})
		if got.Level != c.level || !strings.Contains(got.Detail, c.says) {
			t.Errorf("%s off: %+v", c.off, got)
		}
	}
	if got := clock(p.services[0]); got.Level != "ok" {
		t.Errorf("one wrong of three asked: %+v", got)
	}
	for i := range 3 {
		_ = p.services[i].Close()
		p.nodes[i].Close()
	}
	if got := clock(p.services[3]); got.Level != "ok" || !strings.Contains(got.Detail, "not compared") {
		t.Errorf("nobody there: %+v", got)
	}
}
