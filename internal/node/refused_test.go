package node

import (
	"strings"
	"testing"

	"atoll.example/atoll/internal/dht"
)

// TestRefusedOfRemoved: a get of a removed block that a silent member might still
// have says both.
func TestRefusedOfRemoved(t *testing.T) {
	r := &Refused{Refusal: &dht.Refusal{Code: dht.CodeUnavailable, Removed: true}, who: []string{"four (11a5…)"}}
	if s := r.Error(); !r.Removed() || r.Code() != "unavailable" || s != "those within reach know that it was removed; no word from four (11a5…)" {
		t.Errorf("%q", s)
	}
	r.Refusal.Removed = false
	if s := r.Error(); r.Removed() || strings.Contains(s, "removed") {
		t.Errorf("%q", s)
	}
}
