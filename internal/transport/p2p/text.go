package p2p

import (
	"errors"
	"strings"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"atoll.example/atoll/internal/id"
)

// protoOf names the path of a connection for Links.
func protoOf(m ma.Multiaddr) string {
	switch {
	case kindOf(m) == kindRelay:
		return "relay"
	case isQUIC(m):
		return "quic"
	}
	return "tcp"
}

func isQUIC(m ma.Multiaddr) bool {
	_, err := m.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}

// textOf renders a multiaddr for people: host:port, and for a relayed path
// that of the relay.
func textOf(m ma.Multiaddr) string {
	if len(m) == 0 {
		return "?"
	}
	if ai, err := relayOf(m); err == nil && len(ai.Addrs) == 1 {
		m = ai.Addrs[0]
	}
	if n := len(m); n == 3 {
		m = m[:2] // without /quic-v1
	}
	if _, hp, err := manet.DialArgs(m); err == nil {
		return hp
	}
	return m.String()
}

// dialFault is libp2p's dial error, one line per address, on one line.
type dialFault struct {
	text   string
	causes []error
}

func (f *dialFault) Error() string   { return f.text }
func (f *dialFault) Unwrap() []error { return f.causes }

func shorten(err error) error {
	var de *swarm.DialError
	if !errors.As(err, &de) {
		return err
	}
	f := &dialFault{}
	for i, te := range de.DialErrors {
		f.causes = append(f.causes, rootOf(te.Cause))
		if i < id.MaxAddrs {
			f.text += "; " + textOf(te.Address) + ": " + rootOf(te.Cause).Error()
		}
	}
	if len(f.causes) == 0 && de.Cause != nil {
		return rootOf(de.Cause)
	}
	f.text = strings.TrimPrefix(f.text, "; ")
	return f
}

// rootOf follows single wrapping to the cause people know, keeping errno.
func rootOf(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
