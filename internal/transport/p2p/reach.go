package p2p

import (
	"net"
	"net/netip"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// reach decides which addresses may be dialled because a peer named them. A
// peer must not be able to make this node open connections to its own
// machine, to a cloud's metadata service or to some other private network
// (60-reliability §5, SSRF):
//
//	public unicast                  yes
//	unspecified, multicast, link-local (with 169.254.169.254), reserved
//	                                never
//	loopback                        if the pool lives on this machine: Loopback,
//	                                an operator gave a loopback address, or we
//	                                have no other address ourselves
//	private (RFC 1918, RFC 6598,    if in a subnet of ours, in Config.Private,
//	ULA) and documentation, which   or beside an address an operator gave
//	closed networks use
//	names                           never: only an operator may give them
type reach struct {
	loopback   bool
	private    []netip.Prefix
	interfaces func() []netip.Prefix // our addresses with their subnets

	mu    sync.Mutex
	known map[netip.Prefix]struct{} // from operators: /24 or /64 of what they gave
	own   []netip.Prefix            // subnets of our interfaces
	ownAt time.Time                 // when they were read
	only  bool                      // we have loopback addresses only
}

// maxKnown bounds known: operators give few addresses, and past this many
// further ones are dialled but do not widen the policy.
const maxKnown = 256

func newReach(loopback bool, private []netip.Prefix) *reach {
	return &reach{loopback: loopback, private: private, interfaces: interfaces, known: map[netip.Prefix]struct{}{}}
}

// give notes an address that an operator gave.
func (r *reach) give(m ma.Multiaddr) {
	ip, ok := ipOf(m)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) < maxKnown {
		r.known[neighbourhood(ip)] = struct{}{}
	}
}

// neighbourhood is the network that an address stands for.
func neighbourhood(ip netip.Addr) netip.Prefix {
	bits := 64
	switch {
	case ip.IsLoopback():
		bits = 8
	case ip.Is4():
		bits = 24
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.PrefixFrom(ip, ip.BitLen())
	}
	return p
}

var (
	// unrouted is what the Internet does not carry, beside RFC 1918 and ULA.
	unrouted = []netip.Prefix{
		netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("2001:db8::/32"),
	}
	nowhere = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("fd00:ec2::254/128"), // a cloud's metadata service
		netip.MustParsePrefix("100.100.100.200/32"),
		netip.MustParsePrefix("64:ff9b::/96"), // NAT64 would hide an IPv4 address
	}
)

// allows reports whether a peer may have us dial m.
func (r *reach) allows(m ma.Multiaddr) bool {
	ip, ok := ipOf(m)
	if !ok || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || within(nowhere, ip) {
		return false
	}
	if !ip.IsLoopback() && !ip.IsPrivate() && !within(unrouted, ip) {
		return ip.IsGlobalUnicast()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[neighbourhood(ip)]; ok {
		return true
	}
	r.refresh()
	if ip.IsLoopback() {
		return r.loopback || r.only
	}
	return within(r.private, ip) || within(r.own, ip)
}

// near reports whether m is a direct address in a subnet of ours, or loopback
// that allows would let pass: what multicast DNS can be right about.
func (r *reach) near(m ma.Multiaddr) bool {
	ip, ok := ipOf(m)
	if k := kindOf(m); !ok || k != kindTCP && k != kindQUIC || !r.allows(m) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	return ip.IsLoopback() || within(r.own, ip)
}

func within(ps []netip.Prefix, ip netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// refresh reads the subnets of our interfaces, at most every 10 s. r.mu is held.
func (r *reach) refresh() {
	now := time.Now()
	if !r.ownAt.IsZero() && now.Sub(r.ownAt) < 10*time.Second {
		return
	}
	list := r.interfaces()
	r.ownAt, r.own, r.only = now, r.own[:0], len(list) > 0
	for _, p := range list {
		if ip := p.Addr(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			r.own, r.only = append(r.own, p.Masked()), false
		}
	}
}

func interfaces() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok {
			ones, _ := n.Mask.Size()
			out = append(out, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return out
}
