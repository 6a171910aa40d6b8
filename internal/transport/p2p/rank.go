package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// rank orders the addresses of one dial: direct TCP at once, since it costs a
// third to a quarter of QUIC's CPU per byte (70-libraries, Transport row);
// QUIC if TCP has not answered after a round trip; relayed paths last. libp2p
// moves on earlier when what is under way has failed.
func rank(addrs []ma.Multiaddr) []network.AddrDelay {
	const (
		next  = 100 * time.Millisecond // between addresses of one kind
		quic  = 250 * time.Millisecond // RFC 8305, as libp2p does the other way round
		relay = 500 * time.Millisecond
	)
	out := make([]network.AddrDelay, 0, len(addrs))
	n := 0
	add := func(kind addrKind, base time.Duration) {
		if n == 0 {
			base = 0
		}
		i := time.Duration(0)
		for _, a := range addrs {
			if kindOf(a) == kind {
				out = append(out, network.AddrDelay{Addr: a, Delay: base + i*next})
				i, n = i+1, n+1
			}
		}
	}
	add(kindTCP, 0)
	add(kindQUIC, quic)
	add(kindRelay, relay)
	add(kindNone, relay)
	return out
}
