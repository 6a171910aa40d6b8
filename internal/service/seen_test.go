package service

import (
	"context"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
)

// TestNeverBackInTime: a read by one replica does not answer an older version than
// one that was written or read here before.
func TestNeverBackInTime(t *testing.T) {
	s := startPool(t, 1).services[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var put api.DHTPutResult
	for range 2 {
		var err error
		if put, err = s.DHTPut(ctx, api.DHTPutRequest{Signed: &api.SignedValue{Salt: []byte("a"), Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.seen.last(put.GUID); got != 2 {
		t.Fatalf("the put of 2 is remembered as %d", got)
	}
	ask := func(ctx context.Context) (api.DHTGetResult, error) {
		return s.DHTGet(ctx, api.DHTGetRequest{GUID: put.GUID, Any: true})
	}
	if got, err := ask(ctx); err != nil || *got.Seq != 2 {
		t.Errorf("the newest version: %v, %v", got.Seq, err)
	}
	s.seen.note(put.GUID, 3) // as if it had been read from a replica that is away now
	brief, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if got, err := ask(brief); err == nil {
		t.Errorf("version %d after 3 was seen", *got.Seq)
	}
}

func TestSeenIsBounded(t *testing.T) {
	var s seen
	for i := range 2 * maxSeen {
		s.note(id.GUID{byte(i), byte(i >> 8)}, uint64(i)+1)
		if got := s.last(id.GUID{byte(i), byte(i >> 8)}); got != uint64(i)+1 {
			t.Fatalf("%d noted, %d remembered", i+1, got)
		}
	}
	if len(s.seq) != maxSeen {
		t.Errorf("%d remembered, want %d", len(s.seq), maxSeen)
	}
	for g, seq := range s.seq {
		if s.note(g, 1); s.last(g) != seq {
			t.Errorf("an older version took the place of %d", seq)
		}
	}
}
