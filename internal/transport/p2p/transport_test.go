package p2p

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

func TestAddressInUse(t *testing.T) {
	_, tr := member(t, 1, "lagoon", Config{})
	for _, a := range tr.Addrs() {
		m, err := decodeAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		h := transporttest.NewHost("lagoon", 2)
		if _, err := New(Config{Key: h.Key, Loopback: true, Listen: []string{m.String()}}, h); !errors.Is(err, ErrInUse) {
			t.Errorf("%s: %v", m, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	h := transporttest.NewHost("lagoon", 2)
	if _, err := New(Config{Key: h.Key, Listen: []string{l.Addr().String()}}, h); !errors.Is(err, ErrInUse) {
		t.Errorf("another program's port: %v", err)
	}
}

// TestComeback leaves a peer away long enough for pauses between dials to
// have grown, though not past lastRetry, and finds it again.
func TestComeback(t *testing.T) {
	a, ta := member(t, 1, "lagoon", Config{})
	h := transporttest.NewHost("lagoon", 2)
	b := start(t, h, Config{Loopback: true})
	h.SetHandle(1, b.Addrs())
	exchange(t, a, ta, h, "hello")
	addrs := b.Addrs()
	h.Stop()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	transporttest.Until(t, "some dials", func() bool {
		_ = ta.Send(h.Handle(), false, []byte("anyone?"))
		return ta.Stats().DialsFailed >= 7
	})
	p, err := ta.remoteFor(h.Handle().Key)
	if err != nil {
		t.Fatal(err)
	}
	next := p.next
	p.mu.Unlock()
	if d := time.Until(next); d > lastRetry {
		t.Fatalf("the next dial is in %v", d)
	}
	h2 := transporttest.NewHost("lagoon", 2)
	b = start(t, h2, loopNet{}.config(t, addrs))
	defer func() {
		h2.Stop()
		_ = b.Close()
	}()
	h2.SetHandle(2, addrs)
	if err := ta.Send(h.Handle(), false, []byte("back?")); err != nil {
		t.Fatal(err)
	}
	h2.Next(t)
}

func TestIdleLinksClose(t *testing.T) {
	a, ta := member(t, 1, "lagoon", Config{})
	b, tb := member(t, 2, "lagoon", Config{})
	exchange(t, a, ta, b, "hello")
	ta.sweepOnce(time.Now().Add(idleTime / 2))
	if len(ta.Links()) != 1 {
		t.Fatal("a link closed early")
	}
	ta.sweepOnce(time.Now().Add(2 * idleTime))
	transporttest.Until(t, "no links", func() bool { return len(ta.Links())+len(tb.Links()) == 0 })
	ta.sweepOnce(time.Now().Add(2 * idleTime))
	if n := ta.Stats().Peers; n != 0 {
		t.Fatalf("%d peers remembered", n)
	}
	exchange(t, b, tb, a, "again")
}

// TestOwnAddresses checks the choice of addresses on a node that listens on
// all interfaces.
func TestOwnAddresses(t *testing.T) {
	h := transporttest.NewHost("lagoon", 1)
	tr := start(t, h, Config{Announce: []string{"198.51.100.7:4001"}})
	defer func() { _ = tr.Close() }()
	addrs := tr.Addrs()
	if len(addrs) < 3 || len(addrs) > id.MaxAddrs || FormatAddr(addrs[0]) != "198.51.100.7:4001" {
		t.Fatalf("%q", addrs)
	}
	loop := 0
	for _, a := range addrs[1:] {
		m, err := decodeAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if ip, _ := ipOf(m); ip.IsLoopback() {
			loop++
		} else if ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
			t.Errorf("%s", m)
		}
	}
	if loop != 0 && loop != len(addrs)-1 {
		t.Errorf("loopback beside others: %q", addrs)
	}
	if m, _ := decodeAddr(addrs[1]); kindOf(m) != kindTCP {
		t.Errorf("%s before TCP", m)
	}
}

func TestIPRank(t *testing.T) {
	order := []string{"8.8.8.8", "2600::1", "192.168.1.5", "fd00::1", "172.17.0.1", "127.0.0.1", "::1"}
	preferred := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("2600::1"), netip.MustParseAddr("fd00::1")}
	for i := range order[1:] {
		if a, b := netip.MustParseAddr(order[i]), netip.MustParseAddr(order[i+1]); ipRank(a, preferred) >= ipRank(b, preferred) {
			t.Errorf("%s does not come before %s", a, b)
		}
	}
}

func TestRank(t *testing.T) {
	tcp, quic := ma.StringCast("/ip4/8.8.8.8/tcp/1"), ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1")
	relayed := ma.StringCast("/ip4/8.8.8.8/tcp/1/p2p/" + somePeer + "/p2p-circuit")
	got := rank([]ma.Multiaddr{relayed, quic, tcp})
	if len(got) != 3 || !got[0].Addr.Equal(tcp) || got[0].Delay != 0 || !got[1].Addr.Equal(quic) || got[1].Delay == 0 || !got[2].Addr.Equal(relayed) || got[2].Delay <= got[1].Delay {
		t.Fatalf("%v", got)
	}
	if got := rank([]ma.Multiaddr{relayed}); got[0].Delay != 0 {
		t.Fatalf("%v", got)
	}
}

// TestLiesAboutEpoch makes hearsay claim a later boot at an address where
// nobody is: the peer must stay reachable.
func TestLiesAboutEpoch(t *testing.T) {
	a, ta := member(t, 1, "lagoon", Config{})
	b, tb := member(t, 2, "lagoon", Config{})
	exchange(t, b, tb, a, "here I am")
	lie := *b.Handle()
	lie.Epoch, lie.Addrs = 1<<31, []string{loopNet{}.Nowhere()}
	if err := ta.Send(&lie, false, []byte("one")); err != nil {
		t.Fatal(err)
	}
	b.Next(t)
	ta.Drop(b.Handle().GUID)
	if err := ta.Send(&lie, false, []byte("two")); err != nil {
		t.Fatal(err)
	}
	if g := b.Next(t); string(g.Frame) != "two" {
		t.Fatalf("%q", g.Frame)
	}
}

// TestForbiddenAddress keeps a peer from making us dial loopback.
func TestForbiddenAddress(t *testing.T) {
	b, _ := member(t, 2, "lagoon", Config{})
	h := transporttest.NewHost("lagoon", 1)
	a := start(t, h, Config{Listen: []string{"127.0.0.1:0"}})
	defer func() { _ = a.Close() }()
	a.reach.interfaces = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("192.168.7.7/24")} }
	_, _, err := a.Ask(t.Context(), b.Handle(), []byte("x"))
	if !errors.Is(err, transport.ErrUnreachable) {
		t.Fatal(err)
	}
	if err := a.Send(b.Handle(), false, []byte("x")); err != nil {
		t.Fatal(err)
	}
	transporttest.Until(t, "a refused dial", func() bool { return a.Stats().DialsFailed > 0 })
	b.Idle(t, 0)
	// An operator may give the very same address, and then peers may too.
	if _, _, err := a.Ask(t.Context(), &id.Handle{Addrs: b.Handle().Addrs}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	b.Next(t)
}

// TestDialKeepsAddresses dials while libp2p forgets temporary addresses, as it does
// whenever a connection with the peer ends or is identified.
func TestDialKeepsAddresses(t *testing.T) {
	_, ta := member(t, 1, "lagoon", Config{})
	_, tb := member(t, 2, "lagoon", Config{})
	m, err := decodeAddr(tb.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		for ctx.Err() == nil {
			ta.h.Peerstore().UpdateAddrs(tb.h.ID(), peerstore.TempAddrTTL, 0)
		}
	})
	for range 20 {
		if _, err := ta.dialAddrs(ctx, tb.h.ID(), []ma.Multiaddr{m}, transporttest.Patience); err != nil {
			t.Fatal(err)
		}
		if err := ta.swarm.ClosePeer(tb.h.ID()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCloseWhileDialling closes in the middle of everything.
func TestCloseWhileDialling(t *testing.T) {
	for range 5 {
		h := transporttest.NewHost("lagoon", 1)
		tr := start(t, h, Config{Loopback: true})
		for i := range 20 {
			to := transporttest.NewHost("lagoon", byte(100+i)).SetHandle(1, []string{loopNet{}.Nowhere()})
			_ = tr.Send(to, i%2 == 0, []byte("x"))
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		if q := tr.Stats().QueuedBytes; q != 0 {
			t.Fatalf("%d bytes still counted as queued", q)
		}
	}
}

// TestTotalQueue fills the room that all peers share.
func TestTotalQueue(t *testing.T) {
	_, ta := member(t, 1, "lagoon", Config{Limits: Limits{Queued: 5 * transport.MaxBulk}})
	var err error
	n := 0
	for ; n < 10 && err == nil; n++ {
		to := transporttest.NewHost("lagoon", byte(100+n)).SetHandle(1, []string{loopNet{}.Nowhere()})
		err = ta.Send(to, true, make([]byte, transport.MaxBulk))
	}
	if n != 6 || !errors.Is(err, transport.ErrQueueFull) || ta.Stats().QueueFull != 1 {
		t.Fatalf("%d frames taken, then %v", n-1, err)
	}
}

// TestIdentifyTellsLittle looks at what a stranger learns by connecting.
func TestIdentifyTellsLittle(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	m.link(t)
	pid := v.tr.h.ID()
	transporttest.Until(t, "identify", func() bool {
		a, err := m.Peerstore().Get(pid, "AgentVersion")
		return err == nil && a == "atoll"
	})
	given, err := decodeAddr(v.tr.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range m.Peerstore().Addrs(pid) {
		if !a.Equal(given) {
			t.Errorf("learnt %s", a)
		}
	}
	// And nothing she says of her addresses is ever dialled.
	for _, a := range v.tr.h.Peerstore().Addrs(m.ID()) {
		if v.tr.gate.InterceptAddrDial(m.ID(), a) {
			t.Errorf("would dial %s", a)
		}
	}
}

// TestLinksTellOfTheFarEnd looks at what both ends know of each other: the round trip
// of their handshake, and the program, whose words are cleaned.
func TestLinksTellOfTheFarEnd(t *testing.T) {
	a, ta := member(t, 1, "lagoon", Config{UserAgent: "atoll/1.2"})
	b, tb := member(t, 2, "lagoon", Config{UserAgent: "evil\n\x1b[2J" + strings.Repeat("y", 200)})
	exchange(t, b, tb, a, "hello")
	exchange(t, a, ta, b, "hello yourself")
	for tr, want := range map[*Transport]string{ta: "evil  [2Jyyy", tb: "atoll/1.2"} {
		transporttest.Until(t, "identify", func() bool {
			l := tr.Links()
			return len(l) > 0 && strings.HasPrefix(l[0].Agent, want) && len(l[0].Agent) <= maxAgent
		})
		if rtt := tr.Links()[0].RTT; rtt <= 0 || rtt > time.Minute {
			t.Errorf("round trip of %s", rtt)
		}
	}
}

// TestGreet changes a node's addresses while it is linked: the other hears of
// it at once, and frames go on in order.
func TestGreet(t *testing.T) {
	a, ta := member(t, 1, "lagoon", Config{})
	b, tb := member(t, 2, "lagoon", Config{})
	exchange(t, b, tb, a, "hello")
	exchange(t, a, ta, b, "hello yourself")
	more := append([]string{loopNet{}.Nowhere()}, ta.Addrs()...)
	a.SetHandle(1, more)
	ta.greet()
	transporttest.Until(t, "a second link", func() bool { return len(tb.Links()) == 2 })
	for _, frame := range []string{"I have moved", "as I said"} {
		if err := ta.Send(b.Handle(), false, []byte(frame)); err != nil {
			t.Fatal(err)
		}
		if g := b.Next(t); string(g.Frame) != frame || !slices.Equal(g.From.Addrs, more) {
			t.Fatalf("%q from %q", g.Frame, g.From.Addrs)
		}
	}
}
