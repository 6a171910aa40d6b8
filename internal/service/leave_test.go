package service

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"atoll.example/atoll/internal/api"
)

// TestLeaveTellsWhatItWaitsFor: to sign off takes seconds after the last block has
// been handed over, and who watches is told why.
func TestLeaveTellsWhatItWaitsFor(t *testing.T) {
	s := startPool(t, 2).services[1]
	var last api.Progress
	if _, err := s.Leave(context.Background(), api.LeaveRequest{}, func(p api.Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Phase != "telling the others" {
		t.Errorf("reported last: %+v", last)
	}
}

// TestRevokeCountsWhatIsLost: who would put a member out that alone has some blocks
// is told of them; of a pool of two, blocks with a copy on each are none.
func TestRevokeCountsWhatIsLost(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 2)
	s, other := p.services[0], p.nodes[1].GUID()
	below := func() int64 {
		res, err := s.Revoke(ctx, api.RevokeRequest{GUID: other, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		return res.BelowW
	}
	put := func(text string, k int) {
		if _, err := s.Put(ctx, api.PutParams{Size: -1, K: k}, strings.NewReader(text), quiet); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		put(fmt.Sprintf("on both %d", i), 0)
	}
	until(t, "no block to be counted below the quorum", func() bool { return below() == 0 })
	for i := range 16 {
		put(fmt.Sprintf("on one %d", i), 1)
	}
	until(t, "blocks of the other member alone to be counted", func() bool { return below() > 0 })
}
