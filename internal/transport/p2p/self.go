package p2p

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"atoll.example/atoll/internal/id"
)

// Addrs are the addresses for this node's handle, the best first, at most
// four: what the operator announces; then TCP and QUIC of the best one or two
// of its IP addresses, loopback only if there is nothing else; and, if it
// cannot be reached from outside, up to two relayed ones in their place.
func (t *Transport) Addrs() []string {
	var out []string
	add := func(limit int, list []ma.Multiaddr) {
		for _, m := range list {
			s := string(m.Bytes())
			if len(out) < limit && len(s) <= id.MaxAddrLen && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	relayed := t.relayAddrs()
	direct := id.MaxAddrs - min(len(relayed), 2)
	var announced []ma.Multiaddr
	for _, a := range t.cfg.Announce {
		if m, err := parseEither(a); err == nil {
			announced = append(announced, m)
		}
	}
	add(direct, announced)
	add(direct, t.directAddrs())
	add(id.MaxAddrs, relayed)
	return out
}

// directAddrs are the addresses we listen on, the best IP address first and
// TCP before QUIC.
func (t *Transport) directAddrs() []ma.Multiaddr {
	listed, err := t.swarm.InterfaceListenAddresses()
	if err != nil {
		listed = t.swarm.ListenAddresses()
	}
	listed = append(t.confirmed(), listed...)
	list := listed[:0]
	for _, m := range listed {
		ip, ok := ipOf(m)
		if k := kindOf(m); ok && (k == kindTCP || k == kindQUIC) && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast() && ip.Zone() == "" {
			list = append(list, m)
		}
	}
	preferred := outgoing()
	slices.SortStableFunc(list, func(a, b ma.Multiaddr) int {
		x, _ := ipOf(a)
		y, _ := ipOf(b)
		if d := ipRank(x, preferred) - ipRank(y, preferred); d != 0 {
			return d
		}
		if d := x.Compare(y); d != 0 {
			return d
		}
		if d := int(kindOf(a)) - int(kindOf(b)); d != 0 {
			return d
		}
		return strings.Compare(string(a.Bytes()), string(b.Bytes()))
	})
	if len(list) > 0 {
		if first, _ := ipOf(list[0]); !first.IsLoopback() {
			list = slices.DeleteFunc(list, manet.IsIPLoopback)
		}
	}
	return list
}

// ipRank orders IP addresses by who can reach them, IPv4 first.
func ipRank(ip netip.Addr, preferred []netip.Addr) int {
	r := 0
	switch {
	case ip.IsLoopback():
		r = 40
	case ip.IsPrivate() || within(unrouted, ip):
		r = 20
	}
	if !slices.Contains(preferred, ip) {
		r += 10 // another interface: a bridge for containers, say
	}
	if ip.Is6() {
		r++
	}
	return r
}

// outgoing finds the source addresses of default routes. Connecting a UDP
// socket sends nothing.
func outgoing() []netip.Addr {
	var out []netip.Addr
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
		_ = c.Close()
	}
	return out
}
