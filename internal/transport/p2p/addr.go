package p2p

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"atoll.example/atoll/internal/id"
)

// ErrBadAddr is wrapped by every error about the form of an address.
var ErrBadAddr = errors.New("bad address")

// An address in a Handle is a multiaddr in its binary form, one of
//
//	/ip4|ip6/…/tcp/…
//	/ip4|ip6/…/udp/…/quic-v1
//	/ip4|ip6/…/tcp/…/p2p/RELAY/p2p-circuit      (and over quic-v1, if it fits)
//
// and, only where a person gives it, with /dns, /dns4 or /dns6 in front.

// ParseAddr turns text into an address for a Handle: a multiaddr, or
// host:port, which means TCP.
func ParseAddr(text string) (string, error) {
	m, err := parseText(text)
	if err != nil {
		return "", err
	}
	b := string(m.Bytes())
	if len(b) > id.MaxAddrLen {
		return "", fmt.Errorf("%w: %q is longer than %d bytes", ErrBadAddr, text, id.MaxAddrLen)
	}
	return b, nil
}

// FormatAddr renders an address of a Handle for people: host:port for TCP,
// a multiaddr for the rest, and something harmless for what is none.
// ParseAddr reads it again.
func FormatAddr(addr string) string {
	m, err := decodeAddr(addr)
	if err != nil {
		return fmt.Sprintf("%q", addr)
	}
	if kindOf(m) == kindTCP {
		if _, hp, err := manet.DialArgs(m); err == nil {
			// A name for one family only, or an IPv6 address written as a name,
			// would be read back as something else.
			if back, err := parseText(hp); err == nil && back.Equal(m) {
				return hp
			}
		}
	}
	return m.String()
}

// ParseListen turns what follows --listen into multiaddrs to listen on: a
// multiaddr stands for itself; "host:port", ":port" or "host" (port chosen by
// the system) for TCP and, if quic is set, QUIC.
func ParseListen(text string, quic bool) ([]string, error) {
	if strings.HasPrefix(text, "/") {
		m, err := parseText(text)
		if err != nil {
			return nil, err
		}
		switch k := kindOf(m); {
		case k == kindTCP, k == kindQUIC && quic:
			return []string{m.String()}, nil
		case k == kindQUIC:
			return nil, fmt.Errorf("%w: %s: QUIC is turned off", ErrBadAddr, text)
		}
		return nil, fmt.Errorf("%w: %s is not an address to listen on", ErrBadAddr, text)
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), "0"
	}
	if host == "" || host == "*" {
		host = "0.0.0.0"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: listen on an IP address and port, such as 0.0.0.0:4001", ErrBadAddr, text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		return nil, fmt.Errorf("%w: %q: the port is a number up to 65535", ErrBadAddr, text)
	}
	v := "ip4"
	if ip.Is6() {
		v = "ip6"
	}
	out := []string{fmt.Sprintf("/%s/%s/tcp/%s", v, ip.WithZone(""), port)}
	if quic {
		out = append(out, fmt.Sprintf("/%s/%s/udp/%s/quic-v1", v, ip.WithZone(""), port))
	}
	return out, nil
}

// IsLoopback reports whether a multiaddr of ParseListen is reached from this
// machine only.
func IsLoopback(addr string) bool {
	m, err := ma.NewMultiaddr(addr)
	return err == nil && manet.IsIPLoopback(m)
}

type addrKind uint8

const (
	kindNone addrKind = iota
	kindTCP
	kindQUIC
	kindRelay // through a relay, over whatever
)

// kindOf names the form of m, kindNone if it is none of ours.
func kindOf(m ma.Multiaddr) addrKind {
	n := len(m)
	if n >= 2 && m[n-1].Code() == ma.P_CIRCUIT && m[n-2].Code() == ma.P_P2P {
		if k := kindOf(m[:n-2]); k == kindTCP || k == kindQUIC {
			return kindRelay
		}
		return kindNone
	}
	if n < 2 {
		return kindNone
	}
	switch m[0].Code() {
	case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
	default:
		return kindNone
	}
	switch {
	case n == 2 && m[1].Code() == ma.P_TCP:
		return kindTCP
	case n == 3 && m[1].Code() == ma.P_UDP && m[2].Code() == ma.P_QUIC_V1:
		return kindQUIC
	}
	return kindNone
}

// decodeAddr reads an address of a Handle.
func decodeAddr(addr string) (ma.Multiaddr, error) {
	if len(addr) == 0 || len(addr) > id.MaxAddrLen {
		return nil, fmt.Errorf("%w: %d bytes", ErrBadAddr, len(addr))
	}
	m, err := ma.NewMultiaddrBytes([]byte(addr))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAddr, err)
	}
	if kindOf(m) == kindNone {
		return nil, fmt.Errorf("%w: %s", ErrBadAddr, m)
	}
	return m, nil
}

func parseText(text string) (ma.Multiaddr, error) {
	if !strings.HasPrefix(text, "/") {
		host, port, err := net.SplitHostPort(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %q: want host:port or a multiaddr", ErrBadAddr, text)
		}
		v := "dns"
		if ip, err := netip.ParseAddr(host); err == nil {
			v = "ip4"
			if ip.Is6() {
				v = "ip6"
			}
		}
		text = "/" + v + "/" + host + "/tcp/" + port
	}
	m, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAddr, err)
	}
	// The id of the node itself may stand at the end, as others print it.
	if n := len(m); n > 2 && m[n-1].Code() == ma.P_P2P {
		m = m[:n-1]
	}
	if kindOf(m) == kindNone {
		return nil, fmt.Errorf("%w: %s: want /ip4/…/tcp/… or /ip4/…/udp/…/quic-v1", ErrBadAddr, text)
	}
	return m, nil
}

// parseEither takes text or the binary form.
func parseEither(s string) (ma.Multiaddr, error) {
	if m, err := decodeAddr(s); err == nil {
		return m, nil
	}
	return parseText(s)
}

// parseRelay takes /…/p2p/ID text.
func parseRelay(s string) (peer.AddrInfo, error) {
	m, err := ma.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("%w: %w", ErrBadAddr, err)
	}
	ai, err := peer.AddrInfoFromP2pAddr(m)
	if err != nil || len(ai.Addrs) != 1 || kindOf(ai.Addrs[0]) == kindNone || kindOf(ai.Addrs[0]) == kindRelay {
		return peer.AddrInfo{}, fmt.Errorf("%w: a relay is named as /ip4/…/tcp/…/p2p/ID, not %s", ErrBadAddr, s)
	}
	return *ai, nil
}

// relayOf splits a relayed address into the relay's own address and id.
func relayOf(m ma.Multiaddr) (peer.AddrInfo, error) {
	if kindOf(m) != kindRelay {
		return peer.AddrInfo{}, fmt.Errorf("%w: %s is not relayed", ErrBadAddr, m)
	}
	ai, err := peer.AddrInfoFromP2pAddr(m[:len(m)-1])
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("%w: %w", ErrBadAddr, err)
	}
	return *ai, nil
}

// ipOf returns the IP address at the front of m, if it has one.
func ipOf(m ma.Multiaddr) (netip.Addr, bool) {
	if len(m) == 0 || (m[0].Code() != ma.P_IP4 && m[0].Code() != ma.P_IP6) {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(m[0].RawValue())
	return ip.Unmap(), ok
}
