package p2p

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

const somePeer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

func TestAddrText(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:4001":                                          "192.0.2.7:4001",
		"[2001:db8::7]:4001":                                      "[2001:db8::7]:4001",
		"example.org:4001":                                        "example.org:4001",
		"/ip4/192.0.2.7/tcp/4001":                                 "192.0.2.7:4001",
		"/ip4/192.0.2.7/udp/4001/quic-v1":                         "/ip4/192.0.2.7/udp/4001/quic-v1",
		"/ip4/192.0.2.7/tcp/4001/p2p/" + somePeer:                 "192.0.2.7:4001",
		"/ip4/192.0.2.7/tcp/1/p2p/" + somePeer + "/p2p-circuit":   "/ip4/192.0.2.7/tcp/1/p2p/" + somePeer + "/p2p-circuit",
		"/ip6/2001:db8::1/tcp/1/p2p/" + somePeer + "/p2p-circuit": "/ip6/2001:db8::1/tcp/1/p2p/" + somePeer + "/p2p-circuit",
	} {
		a, err := ParseAddr(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := FormatAddr(a); got != want {
			t.Errorf("%s: %s", in, got)
		}
		if b, err := ParseAddr(FormatAddr(a)); err != nil || b != a {
			t.Errorf("%s: does not come back: %v", in, err)
		}
	}
	for _, in := range []string{
		"", "/", "4001", "1.2.3.4", "1.2.3.4:99999", "/ip4/1.2.3.4", "/tcp/1", "/ip4/1.2.3.4/udp/1",
		"/ip4/1.2.3.4/tcp/1/ws", "/dnsaddr/example.org", "/p2p-circuit", "/unix/a",
		"/ip4/1.2.3.4/tcp/1/p2p-circuit", "/ip4/1.2.3.4/tcp/1/p2p/" + somePeer + "/p2p-circuit/p2p/" + somePeer + "/p2p-circuit",
		"/dns4/a-name-that-is-much-too-long-to-fit-into-the-space-of-an-address.example.org/tcp/1",
	} {
		if a, err := ParseAddr(in); !errors.Is(err, ErrBadAddr) {
			t.Errorf("%q: %q, %v", in, a, err)
		}
	}
}

func TestParseListen(t *testing.T) {
	for in, want := range map[string][]string{
		":4001":                        {"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"},
		"127.0.0.1":                    {"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
		"[::]:7":                       {"/ip6/::/tcp/7", "/ip6/::/udp/7/quic-v1"},
		"::1":                          {"/ip6/::1/tcp/0", "/ip6/::1/udp/0/quic-v1"},
		"/ip4/127.0.0.1/tcp/5":         {"/ip4/127.0.0.1/tcp/5"},
		"/ip4/127.0.0.1/udp/5/quic-v1": {"/ip4/127.0.0.1/udp/5/quic-v1"},
	} {
		if got, err := ParseListen(in, true); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	if got, err := ParseListen(":1", false); err != nil || len(got) != 1 {
		t.Errorf("without QUIC: %v, %v", got, err)
	}
	for _, in := range []string{"", "/", "host.example:1", ":x", ":70000", ":-1", ":01", "/ip4/1.2.3.4/udp/1/quic-v1/webtransport"} {
		if got, err := ParseListen(in, true); in != "" && err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	if _, err := ParseListen("/ip4/127.0.0.1/udp/5/quic-v1", false); err == nil {
		t.Error("QUIC though it is off")
	}
}

// FuzzAddr feeds addresses as they come in handles.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{"1.2.3.4:5", "/ip6/::1/udp/9/quic-v1", "/ip4/1.2.3.4/tcp/1/p2p/" + somePeer + "/p2p-circuit"} {
		a, err := ParseAddr(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a)
	}
	f.Fuzz(func(t *testing.T, a string) {
		_ = FormatAddr(a)
		m, err := decodeAddr(a)
		if err != nil {
			return
		}
		if string(m.Bytes()) != a {
			t.Fatalf("%x re-encodes to %x", a, m.Bytes())
		}
		if b, err := ParseAddr(FormatAddr(a)); err == nil && b != a {
			t.Fatalf("%s is another address", FormatAddr(a))
		}
		_ = newReach(false, nil).allows(m)
		_, _ = relayOf(m)
		_ = textOf(m)
	})
}

// TestReach is the table of addresses that a peer may make us dial.
func TestReach(t *testing.T) {
	known := ma.StringCast("/ip4/10.20.30.40/tcp/1")
	for _, c := range []struct {
		addr     string
		own      string // one subnet of ours; empty: loopback only
		loopback bool
		want     bool
	}{
		{"/ip4/8.8.8.8/tcp/1", "192.168.1.5/24", false, true},
		{"/ip6/2600::1/tcp/1", "192.168.1.5/24", false, true},
		{"/ip4/127.0.0.1/tcp/1", "192.168.1.5/24", false, false},
		{"/ip4/127.0.0.1/tcp/1", "192.168.1.5/24", true, true},
		{"/ip4/127.0.0.1/tcp/1", "", false, true},
		{"/ip6/::1/tcp/1", "192.168.1.5/24", false, false},
		{"/ip6/::ffff:127.0.0.1/tcp/1", "192.168.1.5/24", false, false},
		{"/ip4/169.254.169.254/tcp/80", "169.254.1.1/16", true, false},
		{"/ip6/fd00:ec2::254/tcp/80", "fd00:ec2::1/64", true, false},
		{"/ip6/fe80::1/tcp/1", "192.168.1.5/24", true, false},
		{"/ip4/0.0.0.0/tcp/1", "192.168.1.5/24", true, false},
		{"/ip4/224.0.0.1/udp/1/quic-v1", "192.168.1.5/24", true, false},
		{"/ip4/255.255.255.255/udp/1/quic-v1", "192.168.1.5/24", true, false},
		{"/ip4/192.168.1.9/tcp/1", "192.168.1.5/24", false, true},
		{"/ip4/192.168.2.9/tcp/1", "192.168.1.5/24", false, false},
		{"/ip4/172.17.0.1/tcp/1", "192.168.1.5/24", false, false},
		{"/ip4/100.64.0.9/tcp/1", "192.168.1.5/24", false, false},
		{"/ip4/10.20.30.99/tcp/1", "192.168.1.5/24", false, true},
		{"/ip4/10.20.31.99/tcp/1", "192.168.1.5/24", false, false},
		{"/ip4/10.99.0.1/tcp/1", "192.168.1.5/24", false, true}, // Config.Private
		{"/ip6/fd12::9/tcp/1", "fd12::1/64", false, true},
		{"/ip6/fd13::9/tcp/1", "fd12::1/64", false, false},
		{"/ip4/192.0.2.9/tcp/1", "192.0.2.2/24", false, true},
		{"/ip4/192.0.2.9/tcp/1", "192.168.1.5/24", false, false},
		{"/ip6/2001:db8::9/tcp/1", "2001:db8::1/64", false, true},
		{"/ip6/2001:db8:1::9/tcp/1", "2001:db8::1/64", false, false},
		{"/dns4/localhost/tcp/1", "192.168.1.5/24", true, false},
		{"/ip4/127.0.0.1/tcp/1/p2p/" + somePeer + "/p2p-circuit", "192.168.1.5/24", false, false},
	} {
		r := newReach(c.loopback, []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")})
		r.give(known)
		r.interfaces = func() []netip.Prefix {
			if c.own == "" {
				return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}
			}
			return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix(c.own)}
		}
		if got := r.allows(ma.StringCast(c.addr)); got != c.want {
			t.Errorf("%s from %q, loopback %v: %v", c.addr, c.own, c.loopback, got)
		}
	}
}

func TestGate(t *testing.T) {
	g := newGate(newReach(false, nil))
	key := [32]byte{1, 2, 3}
	p, err := peerOf(key)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := keyOf(p); !ok || k != key {
		t.Fatal("keys do not come back")
	}
	given, other := ma.StringCast("/ip4/8.8.8.8/tcp/1"), ma.StringCast("/ip4/8.8.8.8/tcp/2")
	if g.InterceptAddrDial(p, given) {
		t.Error("an address nobody gave")
	}
	g.allow(p, []ma.Multiaddr{given})
	if !g.InterceptAddrDial(p, given) || g.InterceptAddrDial(p, other) {
		t.Error("not what was given")
	}
	g.shut(p, time.Minute)
	if g.InterceptPeerDial(p) {
		t.Error("a peer that is shut out")
	}
	g.sweep(time.Now().Add(time.Hour))
	if !g.InterceptPeerDial(p) {
		t.Error("a peer that is shut out for ever")
	}
}

func TestAskLimitBounded(t *testing.T) {
	a := newAskLimit(64)
	for addr, burst := range map[string]int{"/ip4/192.168.1.5/tcp/1": askBurst, "/ip4/127.0.0.1/tcp/1": 64, "/ip4/1.2.3.4/tcp/1/p2p/" + somePeer + "/p2p-circuit": askBurst} {
		n := 0
		for a.allow(ma.StringCast(addr), base) {
			n++
		}
		if n != burst {
			t.Errorf("%s: burst of %d", addr, n)
		}
		if !a.allow(ma.StringCast(addr), base.Add(askEvery)) || a.allow(ma.StringCast(addr), base.Add(askEvery)) {
			t.Errorf("%s: not one a second", addr)
		}
	}
	ip := netip.MustParseAddr("1.0.0.0")
	for range 3 * maxAskers {
		ip = ip.Next()
		a.allow(ma.StringCast("/ip4/"+ip.String()+"/tcp/1"), base)
	}
	if n := len(a.full); n > maxAskers+1 {
		t.Fatalf("%d addresses remembered", n)
	}
	a.sweep(base.Add(time.Hour))
	if n := len(a.full); n != 0 {
		t.Fatalf("%d addresses after a while", n)
	}
}

func TestValidate(t *testing.T) {
	key := make([]byte, 64)
	for name, c := range map[string]Config{
		"no key":    {},
		"listen":    {Key: key, Listen: []string{"x"}},
		"both":      {Key: key, Listen: []string{":1"}, NoListen: true},
		"relays":    {Key: key, Relays: []string{"1.2.3.4:5"}},
		"no relays": {Key: key, NoRelay: true, Relays: []string{"/ip4/1.2.3.4/tcp/5/p2p/" + somePeer}},
		"announce":  {Key: key, Announce: []string{"nowhere"}},
		"limit":     {Key: key, Limits: Limits{Conns: -1}},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: valid", name)
		}
	}
	c := Config{Key: key, Listen: []string{":1"}, Relays: []string{"/ip4/1.2.3.4/tcp/5/p2p/" + somePeer}, Known: []string{"10.0.0.1:5"}}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
