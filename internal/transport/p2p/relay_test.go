package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

// member starts a node of the pool on loopback.
func member(t *testing.T, seed byte, pool string, c Config) (*transporttest.Host, *Transport) {
	t.Helper()
	h := transporttest.NewHost(pool, seed)
	c.Loopback = true
	tr := start(t, h, c)
	t.Cleanup(func() {
		h.Stop()
		_ = tr.Close()
	})
	h.SetHandle(1, tr.Addrs())
	return h, tr
}

// asRelay names a node as Config.Relays wants it.
func asRelay(t *testing.T, tr *Transport) string {
	t.Helper()
	m, err := decodeAddr(tr.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	return m.String() + "/p2p/" + tr.h.ID().String()
}

// hidden starts a node that listens on nothing and is reached through relay.
func hidden(t *testing.T, seed byte, relay *Transport) (*transporttest.Host, *Transport) {
	t.Helper()
	told := make(chan struct{}, 8)
	h, tr := member(t, seed, "lagoon", Config{NoListen: true, Relays: []string{asRelay(t, relay)}, OnAddrs: func() { told <- struct{}{} }})
	transporttest.Until(t, "a reservation", func() bool { return len(tr.Addrs()) == 1 })
	<-told
	h.SetHandle(2, tr.Addrs())
	return h, tr
}

func exchange(t *testing.T, a *transporttest.Host, ta *Transport, b *transporttest.Host, frame string) {
	t.Helper()
	if err := ta.Send(b.Handle(), false, []byte(frame)); err != nil {
		t.Fatal(err)
	}
	if g := b.Next(t); string(g.Frame) != frame || g.From.GUID != a.Handle().GUID {
		t.Fatalf("%q from %s", g.Frame, g.From.GUID.Short())
	}
}

// TestRelayed sends through a relay to a node that can be reached in no other
// way, in both directions and in bulk.
func TestRelayed(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, ta := hidden(t, 2, r)
	b, tb := member(t, 3, "lagoon", Config{})
	if got := FormatAddr(ta.Addrs()[0]); !bytes.HasSuffix([]byte(got), []byte("/p2p-circuit")) {
		t.Fatal(got)
	}
	exchange(t, b, tb, a, "through the reef")
	exchange(t, a, ta, b, "and back")
	const n = 8
	for i := range n {
		if err := tb.Send(a.Handle(), true, bytes.Repeat([]byte{byte(i)}, transport.MaxBulk)); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		g := a.Next(t)
		if !g.Bulk || !bytes.Equal(g.Frame, bytes.Repeat(g.Frame[:1], transport.MaxBulk)) {
			t.Fatal("a bulk frame is damaged")
		}
	}
	for _, l := range tb.Links() {
		if l.Peer == a.Handle().GUID && (l.Proto != "relay" || l.Inbound) {
			t.Fatalf("%+v", l)
		}
	}
	// Two hidden nodes reach each other too.
	c, tc := hidden(t, 4, r)
	exchange(t, c, tc, a, "from one cave to another")
}

// TestDirectPreferred gives a node a relayed and a direct address.
func TestDirectPreferred(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, ta := member(t, 2, "lagoon", Config{Relays: []string{asRelay(t, r)}})
	transporttest.Until(t, "a reservation", func() bool { return len(ta.Addrs()) == 3 })
	a.SetHandle(2, ta.Addrs())
	b, tb := member(t, 3, "lagoon", Config{})
	exchange(t, b, tb, a, "straight")
	if l := tb.Links(); len(l) != 1 || l[0].Proto != "tcp" {
		t.Fatalf("%+v", l)
	}
}

// TestUpgrade starts on a relayed path, learns a direct address, and moves
// over while frames are under way, which stay in order.
func TestUpgrade(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, ta := member(t, 2, "lagoon", Config{Relays: []string{asRelay(t, r)}})
	transporttest.Until(t, "a reservation", func() bool { return len(ta.Addrs()) == 3 })
	all := ta.Addrs()
	b, tb := member(t, 3, "lagoon", Config{})
	a.SetHandle(2, all[2:])
	exchange(t, b, tb, a, "round the reef")
	if l := tb.Links(); !slices.ContainsFunc(l, func(l transport.Link) bool { return l.Proto == "relay" }) {
		t.Fatalf("%+v", l)
	}
	a.SetHandle(2, all)
	direct := func() bool {
		return slices.ContainsFunc(tb.Links(), func(l transport.Link) bool {
			return l.Peer == a.Handle().GUID && l.Proto == "tcp"
		})
	}
	send := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := tb.Send(a.Handle(), false, fmt.Appendf(nil, "%06d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, 400)
	tb.sweepOnce(time.Now()) // looks for relayed paths to leave
	send(400, 800)
	transporttest.Until(t, "a direct link", direct)
	send(800, 1000)
	for i := range 1000 {
		if g, want := a.Next(t), fmt.Sprintf("%06d", i); string(g.Frame) != want {
			t.Fatalf("%q in place of %s", g.Frame, want)
		}
	}
	// The relayed link is idle now, and goes.
	tb.sweepOnce(time.Now().Add(2 * spareTime))
	transporttest.Until(t, "one link", func() bool {
		return !slices.ContainsFunc(tb.Links(), func(l transport.Link) bool { return l.Proto == "relay" })
	})
	exchange(t, b, tb, a, "still here")
}

// TestRelayForMembersOnly asks a relay to serve a stranger.
func TestRelayForMembersOnly(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, _ := hidden(t, 2, r)
	_, stranger := member(t, 3, "another pool", Config{})
	addr, err := decodeAddr(r.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.dialAddrs(t.Context(), r.h.ID(), []ma.Multiaddr{addr}, dialTime); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reserve(t.Context(), stranger.h, peer.AddrInfo{ID: r.h.ID()}); err == nil {
		t.Fatal("a stranger has a reservation")
	}
	circuit, err := decodeAddr(a.Handle().Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	pid, err := peerOf(a.Handle().Key)
	if err != nil {
		t.Fatal(err)
	}
	stranger.gate.allow(pid, []ma.Multiaddr{circuit})
	stranger.h.Peerstore().AddAddr(pid, circuit, time.Minute)
	if _, err := stranger.swarm.DialPeer(t.Context(), pid); err == nil {
		t.Fatal("a stranger came through")
	}
}

// TestAskThroughRelay asks at the relayed address of an invite: the relay, a
// member, answers in the other's place.
func TestAskThroughRelay(t *testing.T) {
	rh, r := member(t, 1, "lagoon", Config{})
	a, _ := hidden(t, 2, r)
	_, tb := member(t, 3, "another pool", Config{})
	answer, key, err := tb.Ask(t.Context(), &id.Handle{Addrs: a.Handle().Addrs}, []byte("may I?"))
	if err != nil || key != rh.Handle().Key || string(answer) != "echo may I?" {
		t.Fatalf("%q from %x: %v", answer, key[:4], err)
	}
}

// TestRelayGone loses the relay: the address goes, and comes back with it.
func TestRelayGone(t *testing.T) {
	rh := transporttest.NewHost("lagoon", 1)
	r := start(t, rh, Config{Loopback: true})
	rh.SetHandle(1, r.Addrs())
	addrs := r.Addrs()
	a, ta := hidden(t, 2, r)
	rh.Stop()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	transporttest.Until(t, "no address", func() bool { return len(ta.Addrs()) == 0 })
	rh = transporttest.NewHost("lagoon", 1)
	r = start(t, rh, loopNet{}.config(t, addrs))
	defer func() {
		rh.Stop()
		_ = r.Close()
	}()
	rh.SetHandle(2, addrs)
	transporttest.Until(t, "an address again", func() bool { return len(ta.Addrs()) == 1 })
	b, tb := member(t, 3, "lagoon", Config{})
	exchange(t, b, tb, a, "still there?")
}

func TestRelayOff(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, _ := hidden(t, 2, r)
	_, tb := member(t, 3, "lagoon", Config{NoRelay: true})
	if err := tb.Send(a.Handle(), false, []byte("x")); err != nil {
		t.Fatal(err)
	}
	transporttest.Until(t, "a failed dial", func() bool { return tb.Stats().DialsFailed > 0 })
	_, _, err := tb.Ask(t.Context(), a.Handle(), []byte("x"))
	if !errors.Is(err, transport.ErrUnreachable) {
		t.Fatal(err)
	}
}
