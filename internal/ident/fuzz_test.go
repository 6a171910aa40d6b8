package ident

import (
	"strings"
	"testing"

	"atoll.example/atoll/internal/wire"
)

// Every decoder: what it takes, the encoder gives back byte for byte.

func FuzzChain(f *testing.F) {
	l := newLagoon(f)
	f.Add(l.chain.Encode())
	f.Add(l.member(f, 10).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseChain(b); err == nil {
			sameBytes(t, "chain", b, c.Encode())
			_ = c.Verify(l.pool, t0)
		}
	})
}

func FuzzPool(f *testing.F) {
	l := newLagoon(f)
	f.Add(l.pool.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(b)
		if p := readPool(r); r.Close() == nil {
			sameBytes(t, "pool", b, p.Encode())
		}
	})
}

func FuzzInvite(f *testing.F) {
	l := newLagoon(f)
	f.Add(l.invite(f, 1).Text())
	f.Add(" " + (&Invite{Role: Admin}).Text() + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseInvite(s); err == nil {
			sameBytes(t, "invite", []byte(strings.Join(strings.Fields(s), "")), []byte(v.Text()))
		}
		// A checksum stops nearly all random input: go round it as well.
		if v, err := ParseInvite(armour(invitePrefix, []byte(s))); err == nil {
			sameBytes(t, "invite body", []byte(s), v.encode())
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add(testKey(1).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseKey(b); err == nil {
			sameBytes(t, "key file", b, k.Encode())
		}
	})
}

func FuzzQuestion(f *testing.F) {
	l := newLagoon(f)
	f.Add(EncodeQuestion(Identify{}))
	f.Add(EncodeQuestion(l.request(f, l.invite(f, 1), 10)))
	f.Add(EncodeQuestion(&RenewRequest{l.member(f, 10)}))
	f.Add(EncodeQuestion(&Standing{l.member(f, 10)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ParseQuestion(b); err == nil {
			sameBytes(t, "question", b, EncodeQuestion(q))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	l := newLagoon(f)
	f.Add((&JoinAnswer{Pool: l.pool, Chain: l.member(f, 10), Seeds: [][]byte{{1}}, Handles: nil}).Encode())
	f.Add((&JoinAnswer{Refusal: &Refusal{"clock", "text"}}).Encode())
	f.Add((&Identity{Wall: t0, Pool: l.pool, Chain: l.chain}).Encode())
	f.Add((&Grounds{Entry: []byte("entry")}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := readAnswer(b); err == nil {
			sameBytes(t, "answer", b, a.Encode())
		}
		if a, err := ParseIdentity(b); err == nil {
			sameBytes(t, "identity", b, a.Encode())
		}
		if g, err := ParseGrounds(b); err == nil {
			sameBytes(t, "grounds", b, g.Encode())
		}
	})
}

func FuzzHello(f *testing.F) {
	l := newLagoon(f)
	f.Add(l.hello(l.member(f, 10)).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHello(b); err == nil {
			sameBytes(t, "hello", b, h.Encode())
			_, _, _ = h.Check(l.gate(), h.Handle.Key, t0)
		}
	})
}

func FuzzIssuer(f *testing.F) {
	l := newLagoon(f)
	v := l.invite(f, 2)
	_, _, err := l.issuer.Issue(l.request(f, v, 10), t0)
	check(f, err)
	f.Add(l.issuer.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := NewIssuer(l.pool, l.admin, l.chain, l.root)
		check(t, err)
		if s.Restore(b) == nil {
			sameBytes(t, "issuer", b, s.Encode())
		}
	})
}
