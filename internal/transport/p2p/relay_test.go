package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
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
	b, tb := member(t, 3, "lagoon", Config{NoListen: true}) // so that the path stays relayed
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

// TestRelayBack loses the connection with the relay, and with it the reservation,
// for a moment so short that nobody looks meanwhile.
func TestRelayBack(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, ta := hidden(t, 2, r)
	ta.nat.mu.Lock()
	err := ta.swarm.ClosePeer(r.h.ID())
	if err == nil {
		transporttest.Until(t, "the relay to forget", func() bool {
			return r.swarm.Connectedness(ta.h.ID()) != network.Connected && !r.isLinked(ta.h.ID()) && !ta.isLinked(r.h.ID())
		})
		var ai peer.AddrInfo
		if ai, err = parseRelay(asRelay(t, r)); err == nil {
			_, err = ta.linkRelay(t.Context(), ai)
		}
	}
	ta.nat.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	b, tb := member(t, 3, "lagoon", Config{})
	exchange(t, b, tb, a, "still there?")
}

// TestRelayOverQUIC has a relay whose QUIC does not get through at first: the
// connection with it is left alone until it does.
func TestRelayOverQUIC(t *testing.T) {
	t.Parallel()
	rh, r := member(t, 1, "lagoon", Config{})
	_, other := member(t, 2, "lagoon", Config{})
	rh.SetHandle(1, []string{r.Addrs()[0], other.Addrs()[1]}) // not where the relay is
	h := transporttest.NewHost("lagoon", 3)
	tr := start(t, h, Config{Listen: []string{"127.0.0.1:0"}, Relays: []string{asRelay(t, r)}, Known: r.Addrs()})
	defer func() {
		h.Stop()
		_ = tr.Close()
	}()
	reserved := func() bool { return len(tr.relayAddrs()) == 1 }
	transporttest.Until(t, "a reservation", reserved)
	if n := tr.Stats().LinksOpened; n != 1 {
		t.Fatalf("%d links: the connection was broken for nothing", n)
	}
	rh.SetHandle(1, r.Addrs())
	r.greet()
	transporttest.Until(t, "QUIC to the relay", func() bool {
		conns := tr.swarm.ConnsToPeer(r.h.ID())
		return len(conns) == 1 && kindOf(conns[0].RemoteMultiaddr()) == kindQUIC
	})
	transporttest.Until(t, "a reservation again", reserved)
}

// TestOnlyQUIC keeps dials of one peer to QUIC for a while.
func TestOnlyQUIC(t *testing.T) {
	g := newGate(newReach(true, nil))
	tcp, quic := ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1")
	g.allow("reef", []ma.Multiaddr{tcp, quic})
	g.allow("atoll", []ma.Multiaddr{tcp, quic})
	for _, only := range []bool{true, false} {
		g.onlyQUIC("reef", only)
		if g.InterceptAddrDial("reef", tcp) == only || !g.InterceptAddrDial("reef", quic) || !g.InterceptAddrDial("atoll", tcp) {
			t.Fatalf("onlyQUIC(%v) does not hold", only)
		}
	}
}

// TestPunchedEarly has the direct connection before the relayed one is a link.
func TestPunchedEarly(t *testing.T) {
	_, r := member(t, 1, "lagoon", Config{})
	a, ta := member(t, 2, "lagoon", Config{Relays: []string{asRelay(t, r)}})
	transporttest.Until(t, "a reservation", func() bool { return len(ta.Addrs()) == 3 })
	all := ta.Addrs()
	a.SetHandle(2, all[2:])
	_, tb := member(t, 3, "lagoon", Config{NoListen: true}) // nobody has an address to dial
	var direct, relayed []ma.Multiaddr
	for _, s := range all {
		m, err := decodeAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		switch kindOf(m) {
		case kindTCP:
			direct = append(direct, m)
		case kindRelay:
			relayed = append(relayed, m)
		}
	}
	var round network.Conn
	transporttest.Until(t, "a relayed connection", func() bool {
		var err error
		round, err = tb.dialRelayed(t.Context(), ta.h.ID(), relayed)
		return err == nil
	})
	if _, err := tb.dialAddrs(network.WithForceDirectDial(t.Context(), "as hole punching does"), ta.h.ID(), direct, dialTime); err != nil {
		t.Fatal(err)
	}
	if _, err := tb.shake(t.Context(), round); err != nil {
		t.Fatal(err)
	}
	transporttest.Until(t, "a direct link", func() bool {
		return slices.ContainsFunc(tb.Links(), func(l transport.Link) bool { return l.Peer == a.Handle().GUID && l.Proto == "tcp" })
	})
}

// TestUpgradePauses checks when attempts to get to a better path are due.
func TestUpgradePauses(t *testing.T) {
	var u upgrades
	now := time.Now()
	if !u.due(now) {
		t.Fatal("the first has to wait")
	}
	for _, pause := range []time.Duration{firstUpgrade, 2 * firstUpgrade, 4 * firstUpgrade, 8 * firstUpgrade, lastUpgrade, lastUpgrade} {
		u.note(now)
		if now = now.Add(pause); u.due(now.Add(-1)) || !u.due(now) {
			t.Fatalf("attempt %d is not %v after the one before", u.n+1, pause)
		}
	}
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
