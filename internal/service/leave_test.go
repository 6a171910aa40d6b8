package service

import (
	"context"
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
