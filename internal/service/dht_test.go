package service

import (
	"context"
	"errors"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
)

// TestDHTRemoveOfAnotherName: the removal of a signed block under a GUID that key
// and salt do not name is refused, and leaves the block that they do name.
func TestDHTRemoveOfAnotherName(t *testing.T) {
	s := startPool(t, 1).services[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put, err := s.DHTPut(ctx, api.DHTPutRequest{Signed: &api.SignedValue{Salt: []byte("a"), Value: []byte("v")}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.DHTRemove(ctx, api.DHTRemoveRequest{GUID: id.FromPrefix("feed"), Sign: &api.SignedValue{Salt: []byte("a")}})
	if !errors.Is(err, &api.Error{Code: api.BadSig}) {
		t.Errorf("removal under another name: %v", err)
	}
	if got, err := s.DHTGet(ctx, api.DHTGetRequest{GUID: put.GUID}); err != nil || string(got.Value) != "v" {
		t.Errorf("the block is gone: %q, %v", got.Value, err)
	}
	if _, err := s.DHTRemove(ctx, api.DHTRemoveRequest{GUID: put.GUID, Sign: &api.SignedValue{Salt: []byte("a")}}); err != nil {
		t.Error(err)
	}
	if _, err := s.DHTGet(ctx, api.DHTGetRequest{GUID: put.GUID}); err == nil || api.AsError("", err).Code != api.Removed {
		t.Errorf("after its removal: %v", err)
	}
}
