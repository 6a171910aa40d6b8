package ident

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Bounds of an Issuer, ours: an invite is for a handful of machines, and what
// every retry needs is kept in memory and rewritten on each use.
const (
	MaxInvites = 256            // outstanding at one issuer
	MaxUses    = 1000           // of one invite
	keepGrant  = 7 * day        // after expiry, so that late retries get their answer
	maxState   = 64<<20 - 1     // bytes of Encode
	minGrant   = 32 + 8 + 1 + 8 // least bytes of a grant, for Reader.Count
)

// Issuer is the part of an admin that makes invites and honours them. It is a
// value with state: after every call that reports a change the host makes
// Encode durable before the invite is shown or the answer sent, else a crash
// would let an invite be used twice.
type Issuer struct {
	// Revoked says whether the roster has revoked a node. Nil: none is.
	Revoked func(id.GUID) bool

	pool   *Pool
	key    Key
	chain  Chain
	root   Key // zero: this admin does not hold it
	grants map[[16]byte]*grant
}

// grant is an invite as its issuer remembers it: by a hash of the token.
type grant struct {
	key    [32]byte // derived from the token; proofs are made under it
	expiry int64
	role   Role
	quota  uint64
	left   int                // uses
	given  map[[32]byte]Chain // by node key: what a retry gets again
}

// NewIssuer is the issuer of the admin with the given node key and chain. root
// may be the zero Key: then no admins can be made.
func NewIssuer(p *Pool, key Key, chain Chain, root Key) (*Issuer, error) {
	if chain.Leaf().Role != Admin || chain.Leaf().Node != key.Public() {
		return nil, fmt.Errorf("%w: only admins invite", ErrForbidden)
	}
	if !root.IsZero() && root.Public() != p.Root {
		return nil, fmt.Errorf("%w: that is not the root key of pool %s", ErrWrongPool, p.ID().Short())
	}
	return &Issuer{pool: p, key: key, chain: chain, root: root, grants: make(map[[16]byte]*grant)}, nil
}

// HoldsRoot reports whether this issuer can make and revoke admins.
func (s *Issuer) HoldsRoot() bool { return !s.root.IsZero() }

// SetChain replaces the issuer's own certificate after its renewal.
func (s *Issuer) SetChain(c Chain) { s.chain = c }

// Terms are what an invite grants.
type Terms struct {
	Role  Role
	Uses  int   // 1–MaxUses
	TTL   int64 // ms
	Quota uint64
	Addrs []string // where to ask, at most id.MaxAddrs of id.MaxAddrLen bytes
}

// Invite makes an invite from 16 secret random bytes. Save Encode before showing
// it.
func (s *Issuer) Invite(token Token, t Terms, now int64) (*Invite, error) {
	switch {
	case t.Role != Member && t.Role != Admin:
		return nil, fmt.Errorf("%w: no such role", ErrForbidden)
	case t.Role == Admin && !s.HoldsRoot():
		return nil, fmt.Errorf("%w: only the node that founded the pool holds the root key, which makes admins", ErrForbidden)
	case t.Uses < 1 || t.Uses > MaxUses:
		return nil, fmt.Errorf("an invite has from 1 to %d uses, not %d", MaxUses, t.Uses)
	case t.TTL <= 0 || t.TTL > Validity:
		return nil, fmt.Errorf("an invite lasts up to %d days", Validity/day)
	}
	s.prune(now)
	if len(s.grants) >= MaxInvites {
		return nil, fmt.Errorf("%d invites are outstanding; wait until some have expired", MaxInvites)
	}
	g := &grant{
		key: tokenKey(token), expiry: now + t.TTL, role: t.Role, quota: t.Quota, left: t.Uses,
		given: make(map[[32]byte]Chain),
	}
	s.grants[tokenID(g.key)] = g
	v := &Invite{
		Pool: s.pool.ID(), RootHash: RootHash(s.pool.Root), Issuer: s.key.GUID(), Token: token,
		Expiry: g.expiry, Role: t.Role, Quota: t.Quota,
	}
	for _, a := range t.Addrs {
		if len(a) > 0 && len(a) <= id.MaxAddrLen && len(v.Addrs) < id.MaxAddrs {
			v.Addrs = append(v.Addrs, a)
		}
	}
	return v, nil
}

// Issue answers a request with a certificate. The node that has had one for this
// invite gets the same again, also when the invite is used up or has expired.
// changed: a use was burnt; make Encode durable before the chain leaves.
// Errors wrap ErrBadInvite, ErrInviteExpired, ErrInviteUsed, ErrRevoked,
// ErrClock or ErrForbidden.
func (s *Issuer) Issue(q *JoinRequest, now int64) (chain Chain, changed bool, err error) {
	g := s.grants[q.TokenID]
	if q.Issuer != s.key.GUID() || g == nil {
		return nil, false, fmt.Errorf("%w: %s knows no such invite; it may have expired long ago", ErrBadInvite, s.key.GUID().Short())
	}
	if !q.provedBy(g.key) {
		return nil, false, fmt.Errorf("%w: the request does not fit its token", ErrBadInvite)
	}
	if s.Revoked != nil && s.Revoked(GUIDOf(q.Node)) {
		return nil, false, fmt.Errorf("%w: node %s; start with an empty folder to join as a new one", ErrRevoked, GUIDOf(q.Node).Short())
	}
	if c, ok := g.given[q.Node]; ok {
		return c, false, nil
	}
	if now > g.expiry {
		return nil, false, fmt.Errorf("%w: it was good until %s; ask for a new one", ErrInviteExpired, date(g.expiry))
	}
	if g.left == 0 {
		return nil, false, fmt.Errorf("%w: ask for a new one", ErrInviteUsed)
	}
	if d := now - q.Wall; d > MaxClockDiff || d < -MaxClockDiff {
		return nil, false, fmt.Errorf("%w: the clock of the joining computer says %s, that of the issuer %s; set the wrong one and try again",
			ErrClock, date(q.Wall), date(now))
	}
	chain, err = s.certify(Subject{
		Node: q.Node, Owner: q.Owner, Role: g.role, Domain: q.Domain, Quota: g.quota, Name: q.Name,
	}, now)
	if err != nil {
		return nil, false, err
	}
	g.left--
	g.given[q.Node] = chain
	return chain, true, nil
}

func (s *Issuer) certify(u Subject, now int64) (Chain, error) {
	if u.Role == Admin {
		if !s.HoldsRoot() {
			return nil, fmt.Errorf("%w: this node does not hold the root key, which makes admins", ErrForbidden)
		}
		return Certify(s.pool, s.root, nil, u, now)
	}
	return Certify(s.pool, s.key, s.chain, u, now)
}

// Renew gives a member a new certificate that says what the old one said. The
// host has checked that the transport proved the node's key. A chain that is
// not old enough comes back as it is.
func (s *Issuer) Renew(q *RenewRequest, now int64) (Chain, error) {
	if err := q.Chain.Verify(s.pool, now); err != nil {
		return nil, err
	}
	old := q.Chain.Leaf()
	if s.Revoked != nil && s.Revoked(old.GUID()) {
		return nil, fmt.Errorf("%w: node %s", ErrRevoked, old.GUID().Short())
	}
	if !q.Chain.NeedsRenewal(now) {
		return q.Chain, nil
	}
	return s.certify(Subject{
		Node: old.Node, Owner: old.Owner, Role: old.Role, Domain: old.Domain, Quota: old.Quota, Name: old.Name,
	}, now)
}

// Outstanding counts the invites that can still be used, and the uses left.
func (s *Issuer) Outstanding(now int64) (invites, uses int) {
	for _, g := range s.grants {
		if g.left > 0 && now <= g.expiry {
			invites++
			uses += g.left
		}
	}
	return invites, uses
}

func (s *Issuer) prune(now int64) {
	maps.DeleteFunc(s.grants, func(_ [16]byte, g *grant) bool { return now > g.expiry+keepGrant })
}

// Encode is the state to keep: whoever reads it can make proofs for the
// outstanding invites, so it belongs in a file of mode 0600.
//
//	version u8 = 1 · count u16 · per invite, in order of token id:
//	key 32 · expiry u64 · role u8 · quota u64 · uses left u16 · given u16, in order
//	of node key, each a chain
func (s *Issuer) Encode() []byte {
	var w wire.Writer
	w.U8(1)
	w.Count(len(s.grants))
	for _, name := range slices.SortedFunc(maps.Keys(s.grants), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }) {
		g := s.grants[name]
		w.Fixed(g.key[:])
		w.U64(uint64(g.expiry))
		w.U8(uint8(g.role))
		w.U64(g.quota)
		w.U16(uint16(g.left))
		w.Count(len(g.given))
		for _, node := range slices.SortedFunc(maps.Keys(g.given), func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }) {
			g.given[node].Append(&w)
		}
	}
	return w.B
}

// Restore replaces the state by one that Encode gave.
func (s *Issuer) Restore(state []byte) error {
	if len(state) > maxState {
		return fmt.Errorf("invites: %w", wire.ErrBound)
	}
	r := wire.NewReader(state)
	readVersion(r)
	grants := make(map[[16]byte]*grant)
	var last [16]byte
	for i := range r.Count(MaxInvites, minGrant) {
		g := &grant{given: make(map[[32]byte]Chain)}
		r.Into(g.key[:])
		g.expiry = readTime(r)
		g.role = Role(r.U8())
		g.quota = r.U64()
		g.left = int(r.U16())
		if g.left > MaxUses || (g.role != Member && g.role != Admin) {
			r.Fail(wire.ErrValue)
		}
		var lastNode [32]byte
		for j := range r.Count(MaxUses, 1+minCertificate) {
			c := ReadChain(r)
			if r.Err() != nil {
				break
			}
			node := c.Leaf().Node
			if j > 0 && bytes.Compare(node[:], lastNode[:]) <= 0 {
				r.Fail(wire.ErrValue)
			}
			lastNode, g.given[node] = node, c
		}
		name := tokenID(g.key)
		if i > 0 && bytes.Compare(name[:], last[:]) <= 0 {
			r.Fail(wire.ErrValue)
		}
		if r.Err() != nil {
			break
		}
		last, grants[name] = name, g
	}
	if err := r.Close(); err != nil {
		return fmt.Errorf("invites: %w", err)
	}
	s.grants = grants
	return nil
}
