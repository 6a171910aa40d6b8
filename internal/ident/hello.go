package ident

import (
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Wire versions this program speaks: N and, once there is one, N−1.
const (
	WireMin = 1
	WireMax = 1
)

// maxExt bounds what later versions may add to a Hello.
const maxExt = 1 << 10

// Hello is the payload each end of a link sends once the link has proved its
// key. Its layout is fixed for ever, so that any two versions understand each
// other at least this far; later versions put what they add in Ext.
//
//	version u8 = 1 · wire min u8 · wire max u8 · features u64 · wall u64 · pool 32 ·
//	chain · handle · roster digest 32 · ext u16+≤1024
type Hello struct {
	Min, Max uint8  // wire versions spoken
	Features uint64 // bits; none is defined yet
	Wall     int64  // the sender's clock, Unix ms; see CompareClocks
	Pool     PoolID
	Chain    Chain
	Handle   *id.Handle
	Roster   [32]byte // digest; differs: the rosters exchange
	Ext      []byte
}

func (h *Hello) fields(c wire.Codec) {
	c.Version(1)
	c.U8(&h.Min)
	c.U8(&h.Max)
	c.Check(h.Min <= h.Max, wire.ErrValue)
	c.U64(&h.Features)
	unixMS(c, &h.Wall)
	c.Fixed(h.Pool[:])
	h.Chain.fields(c)
	c.Handle(&h.Handle)
	c.Fixed(h.Roster[:])
	c.Bytes16(&h.Ext, maxExt)
}

// Encode is the payload.
func (h *Hello) Encode() []byte { return bytesOf(h.fields) }

// ParseHello decodes a payload. Nothing is verified: see Check.
func ParseHello(b []byte) (*Hello, error) {
	h := &Hello{}
	return parse(b, "hello", h, h.fields)
}

// Gate is what a node checks a Hello against.
type Gate struct {
	Pool     *Pool
	Min, Max uint8 // wire versions spoken; WireMin and WireMax
	// Revoked says whether the roster has revoked the chain, by an error that
	// wraps ErrRevoked. Nil: nothing is revoked.
	Revoked func(Chain) error
}

// Check decides whether the peer that sent h and has proved to hold key is let
// in. It returns the peer's handle and certificate. Errors wrap ErrVersion,
// ErrWrongPool, ErrNotMember, ErrExpired, ErrClock or ErrRevoked; they are told
// to the peer.
func (h *Hello) Check(g Gate, key [32]byte, now int64) (*id.Handle, *Certificate, error) {
	if _, err := h.Version(g.Min, g.Max); err != nil {
		return nil, nil, err
	}
	if h.Pool != g.Pool.ID() {
		return nil, nil, fmt.Errorf("%w: this is pool %s, the other node is in %s", ErrWrongPool, g.Pool.ID().Short(), h.Pool.Short())
	}
	leaf := h.Chain.Leaf()
	if leaf.Node != key || h.Handle.Key != key || CheckHandle(h.Handle) != nil {
		return nil, nil, fmt.Errorf("%w: the certificate or handle shown is of another node (%s)", ErrNotMember, leaf.GUID().Short())
	}
	if err := h.Chain.Verify(g.Pool, now); err != nil {
		return nil, nil, err
	}
	if g.Revoked != nil {
		if err := g.Revoked(h.Chain); err != nil {
			return nil, nil, err
		}
	}
	return h.Handle, leaf, nil
}

// Version is the highest wire version that both ends speak.
func (h *Hello) Version(lo, hi uint8) (uint8, error) {
	v := min(h.Max, hi)
	if v < max(h.Min, lo) {
		return 0, fmt.Errorf("%w: this node speaks %d to %d, the other %d to %d; upgrade the older one", ErrVersion, lo, hi, h.Min, h.Max)
	}
	return v, nil
}
