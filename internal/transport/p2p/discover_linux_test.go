package p2p

import (
	"testing"

	"atoll.example/atoll/internal/transport/transporttest"
)

// TestDiscover lets one node find another whose handle leads nowhere: it dials
// where multicast DNS has seen it.
func TestDiscover(t *testing.T) {
	if !transporttest.OwnNet(t) {
		return
	}
	a, ta := member(t, 1, "lagoon", Config{})
	b, tb := member(t, 2, "lagoon", Config{})
	stranger, ts := member(t, 3, "another pool", Config{})
	stale := transporttest.NewHost("lagoon", 2).SetHandle(1, []string{loopNet{}.Nowhere()})
	if err := ta.Send(stale, false, []byte("where are you?")); err != nil {
		t.Fatal(err)
	}
	transporttest.Until(t, "a failed dial", func() bool { return ta.Stats().DialsFailed > 0 })
	ts.Discover([32]byte{7}, anyone)
	tb.Discover([32]byte{7}, anyone)
	ta.Discover([32]byte{7}, func(key [32]byte) bool { return key == b.Handle().Key })
	if g := b.Next(t); string(g.Frame) != "where are you?" || g.From.GUID != a.Handle().GUID {
		t.Fatalf("%q", g.Frame)
	}
	// The other has heard of us too, and nobody keeps the stranger.
	transporttest.Until(t, "both", func() bool { return len(tb.seen.of(a.Handle().Key)) > 0 })
	if got := ta.seen.of(stranger.Handle().Key); len(got) != 0 {
		t.Fatalf("%s", got)
	}
}
