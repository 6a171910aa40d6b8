package ident

import (
	"fmt"

	"atoll.example/atoll/internal/wire"
)

// Bounds of encoded records in bytes.
const (
	minCertificate = 1 + 3*32 + 1 + 1 + 8 + 1 + 8 + 8 + 16 + 32 + 64
	MaxChain       = 1 + 2*(minCertificate+2*MaxLabel)
)

// Chain is a certificate, followed by that of its issuer unless the root key
// signed it.
//
//	count u8 (1 or 2) · certificates
type Chain []*Certificate

// Leaf is the certificate that the chain is about.
func (c Chain) Leaf() *Certificate { return c[0] }

// NotAfter is when the first certificate of the chain ends, in Unix ms.
func (c Chain) NotAfter() int64 {
	t := c[0].NotAfter
	for _, x := range c[1:] {
		t = min(t, x.NotAfter)
	}
	return t
}

// NeedsRenewal reports whether an admin should be asked for a new certificate.
func (c Chain) NeedsRenewal(now int64) bool {
	return now > c.NotAfter()-(Validity-RenewAfter)
}

func (c *Chain) fields(f wire.Codec) {
	wire.List8(f, (*[]*Certificate)(c), 2, minCertificate, func(x **Certificate, f wire.Codec) {
		if *x == nil {
			*x = new(Certificate)
		}
		(*x).fields(f)
	})
	f.Check(len(*c) > 0, wire.ErrBound)
}

// Append encodes the chain.
func (c Chain) Append(w *wire.Writer) { c.fields(w.Codec()) }

// Encode encodes the chain by itself.
func (c Chain) Encode() []byte { return bytesOf(c.fields) }

// ReadChain reads a chain. Nothing is verified: see Verify.
func ReadChain(r *wire.Reader) (c Chain) {
	c.fields(r.Codec())
	return c
}

// ParseChain decodes a chain. Nothing is verified: see Verify.
func ParseChain(b []byte) (Chain, error) {
	var c Chain
	if _, err := parse(b, "certificate", &c, c.fields); err != nil {
		return nil, err
	}
	return c, nil
}

// VerifySignatures checks all of the chain but the time: that it belongs to the
// pool, leads to its root key, and that each issuer may issue what it did.
func (c Chain) VerifySignatures(p *Pool) error {
	pool := p.ID()
	for _, x := range c {
		if x.Pool != pool {
			return fmt.Errorf("%w: the certificate of %s is for pool %s, this is %s",
				ErrWrongPool, x.who(), x.Pool.Short(), pool.Short())
		}
	}
	top := c[len(c)-1]
	if top.Issuer != p.Root {
		return fmt.Errorf("%w: the certificate of %s was not made under the pool's root key", ErrNotMember, top.who())
	}
	if len(c) == 2 {
		if c[0].Issuer != top.Node || top.Role != Admin {
			return fmt.Errorf("%w: the certificate of %s was not issued by an admin", ErrNotMember, c[0].who())
		}
		if c[0].Role != Member {
			return fmt.Errorf("%w: only the root key makes admins, %s", ErrNotMember, c[0].who())
		}
	}
	for _, x := range c {
		if !Verify(x.Issuer, domainCert, x.body(), x.Sig) {
			return fmt.Errorf("%w: the certificate of %s has a wrong signature", ErrNotMember, x.who())
		}
	}
	return nil
}

// InTime checks the chain's validity at now in Unix ms, with Skew to spare.
func (c Chain) InTime(now int64) error {
	for _, x := range c {
		if err := x.inTime(now); err != nil {
			return err
		}
	}
	return nil
}

// Verify checks everything that the chain itself can show. Whether it has been
// revoked is for package roster to say.
func (c Chain) Verify(p *Pool, now int64) error {
	if err := c.VerifySignatures(p); err != nil {
		return err
	}
	return c.InTime(now)
}

// Subject is what a certificate says of its node.
type Subject struct {
	Node   [32]byte
	Owner  [32]byte
	Role   Role
	Domain string
	Quota  uint64
	Name   string
}

// Certify makes a certificate. issuer is the root key, with no chain of its own,
// or an admin's node key with that admin's chain.
func Certify(p *Pool, issuer Key, issuerChain Chain, s Subject, now int64) (Chain, error) {
	if err := CheckLabel(s.Domain); err != nil {
		return nil, fmt.Errorf("domain: %w", err)
	}
	if err := CheckLabel(s.Name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	c := &Certificate{
		Pool: p.ID(), Node: s.Node, Owner: s.Owner, Role: s.Role, Domain: s.Domain, Quota: s.Quota,
		Name: s.Name, NotBefore: now, NotAfter: now + Validity, Issuer: issuer.Public(),
	}
	chain := Chain{c}
	if c.Issuer != p.Root {
		if len(issuerChain) != 1 || issuerChain[0].Node != c.Issuer || issuerChain[0].Role != Admin {
			return nil, fmt.Errorf("%w: only admins certify members", ErrForbidden)
		}
		if s.Role != Member {
			return nil, fmt.Errorf("%w: only the node that founded the pool holds the root key, which makes admins", ErrForbidden)
		}
		if err := issuerChain.InTime(now); err != nil {
			return nil, fmt.Errorf("own certificate: %w", err)
		}
		c.NotAfter = max(c.NotBefore, min(c.NotAfter, issuerChain[0].NotAfter))
		chain = append(chain, issuerChain[0])
	}
	// A serial that is a hash of the content needs neither a counter, which a
	// restored disk would repeat, nor a random source.
	sum := tagged("atoll/serial/1", c.body())
	copy(c.Serial[:], sum[:])
	c.Sig = issuer.Sign(domainCert, c.body())
	return chain, nil
}
