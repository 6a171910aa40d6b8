package ident

import (
	"errors"
	"strings"
	"testing"
)

func TestPoolRecord(t *testing.T) {
	l := newLagoon(t)
	p, err := ParsePool(l.pool.Encode())
	check(t, err)
	if p.ID() != l.pool.ID() || p.K != 3 || p.Name != "lagoon" || p.Overlay != Pastry {
		t.Errorf("parsed %+v", p)
	}
	for i := range l.pool.Encode() {
		b := l.pool.Encode()
		b[i] ^= 1
		if _, err := ParsePool(b); err == nil {
			t.Fatalf("a record with byte %d changed was taken", i)
		}
	}
	for _, k := range []int{0, -1, MaxK + 1} {
		if _, err := NewPool(l.root, [16]byte{}, "x", k, Pastry); err == nil {
			t.Errorf("k = %d taken", k)
		}
	}
	other, err := NewPool(l.root, [16]byte{8}, "lagoon", 3, Pastry)
	check(t, err)
	if other.ID() == l.pool.ID() {
		t.Error("another nonce, the same pool")
	}
}

func TestChainVerify(t *testing.T) {
	l := newLagoon(t)
	mallory := testKey(66)
	member := l.member(t, 10)
	reissue := func(c *Certificate, by Key, change func(*Certificate)) *Certificate {
		d := *c
		change(&d)
		d.Sig = by.Sign(domainCert, d.body())
		return &d
	}
	other, err := NewPool(mallory, [16]byte{}, "other", 3, Pastry)
	check(t, err)
	adminByAdmin := reissue(member[0], l.admin, func(c *Certificate) { c.Role = Admin })
	memberByMember := reissue(l.member(t, 20)[0], testKey(10), func(c *Certificate) { c.Issuer = testKey(10).Public() })
	memberAsAdmin := reissue(l.chain[0], l.root, func(c *Certificate) { c.Role = Member })
	foreignRoot := reissue(l.chain[0], mallory, func(c *Certificate) { c.Issuer = mallory.Public() })
	wrongSig := reissue(l.chain[0], mallory, func(*Certificate) {})

	for name, tc := range map[string]struct {
		chain Chain
		pool  *Pool
		now   int64
		want  error
		text  string
	}{
		"admin":                       {l.chain, l.pool, t0, nil, ""},
		"member":                      {member, l.pool, t0, nil, ""},
		"a clock an hour behind":      {member, l.pool, t0 - hour, nil, ""},
		"a clock two days behind":     {member, l.pool, t0 - 48*hour, ErrClock, "valid from 2026-01-01 00:00:00 UTC; the clock it was checked by says 2025-12-30"},
		"last day":                    {member, l.pool, t0 + Validity + Skew, nil, ""},
		"expired":                     {member, l.pool, t0 + Validity + Skew + 1, ErrExpired, "ended at 2027-02-05"},
		"expired is not a member":     {member, l.pool, t0 + 2*Validity, ErrNotMember, ""},
		"another pool":                {member, other, t0, ErrWrongPool, other.ID().Short()},
		"without its issuer":          {member[:1], l.pool, t0, ErrNotMember, "root key"},
		"admin made by admin":         {Chain{adminByAdmin, l.chain[0]}, l.pool, t0, ErrNotMember, "only the root key makes admins"},
		"member made by member":       {Chain{memberByMember, member[0]}, l.pool, t0, ErrNotMember, ""},
		"issuer is no admin":          {Chain{member[0], memberAsAdmin}, l.pool, t0, ErrNotMember, "not issued by an admin"},
		"foreign root":                {Chain{foreignRoot}, l.pool, t0, ErrNotMember, ""},
		"forged by foreign root":      {Chain{member[0], foreignRoot}, l.pool, t0, ErrNotMember, ""},
		"wrong signature":             {Chain{wrongSig}, l.pool, t0, ErrNotMember, "wrong signature"},
		"wrong signature above":       {Chain{member[0], wrongSig}, l.pool, t0, ErrNotMember, "wrong signature"},
		"member shown as its issuer":  {Chain{l.chain[0], l.chain[0]}, l.pool, t0, ErrNotMember, ""},
		"chain in the wrong sequence": {Chain{l.chain[0], member[0]}, l.pool, t0, ErrNotMember, ""},
	} {
		err := tc.chain.Verify(tc.pool, tc.now)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		} else if err != nil && !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: message %q lacks %q", name, err, tc.text)
		}
	}
}

func TestCertificateBitFlips(t *testing.T) {
	l := newLagoon(t)
	good := l.member(t, 10).Encode()
	for i := range good {
		b := append([]byte(nil), good...)
		b[i] ^= 0x40
		c, err := ParseChain(b)
		if err == nil {
			err = c.Verify(l.pool, t0)
		}
		if err == nil {
			t.Fatalf("a chain with byte %d of %d changed was taken", i, len(b))
		}
	}
}

func TestCertify(t *testing.T) {
	l := newLagoon(t)
	if n := len(l.member(t, 10).Encode()); n > MaxChain {
		t.Errorf("a chain of %d bytes, bound %d", n, MaxChain)
	}
	if _, err := Certify(l.pool, testKey(10), l.member(t, 10), Subject{Node: testKey(30).Public(), Role: Member}, t0); !errors.Is(err, ErrForbidden) {
		t.Errorf("a member certified: %v", err)
	}
	if _, err := Certify(l.pool, l.admin, l.chain, Subject{Node: testKey(30).Public(), Role: Admin}, t0); !errors.Is(err, ErrForbidden) {
		t.Errorf("an admin made an admin: %v", err)
	}
	if _, err := Certify(l.pool, l.admin, l.chain, Subject{Role: Member, Name: "a\nb"}, t0); !errors.Is(err, ErrBadLabel) {
		t.Errorf("a bad name was certified: %v", err)
	}
	late, err := Certify(l.pool, l.admin, l.chain, Subject{Node: testKey(30).Public(), Role: Member}, t0+199*day)
	check(t, err)
	if late.NotAfter() != l.chain.NotAfter() || late.Leaf().NotAfter != l.chain.NotAfter() {
		t.Error("a certificate outlives that of its issuer")
	}
	if late.NeedsRenewal(t0+199*day) || !late.NeedsRenewal(t0+201*day) {
		t.Error("renewal is not asked for 200 days before the end")
	}
	if a, b := l.member(t, 10), l.member(t, 12); a.Leaf().Serial == b.Leaf().Serial {
		t.Error("two certificates with one serial")
	}
}

func TestCompareClocks(t *testing.T) {
	for _, tc := range []struct {
		ours, theirs int64
		text         string
	}{
		{t0, t0, ""},
		{t0 + 5*minute, t0, ""},
		{t0 + hour, t0, "this computer's clock (2026-01-01 01:00:00 UTC) is 1h0m0s ahead of the other node's (2026-01-01 00:00:00 UTC)"},
		{t0 - hour, t0, "1h0m0s behind the other node's"},
	} {
		err := CompareClocks(tc.ours, tc.theirs)
		if (err == nil) != (tc.text == "") || err != nil && (!errors.Is(err, ErrClock) || !strings.Contains(err.Error(), tc.text)) {
			t.Errorf("%d, %d: %v", tc.ours, tc.theirs, err)
		}
	}
}

func BenchmarkVerifyChain(b *testing.B) {
	l := newLagoon(b)
	c := l.member(b, 10)
	for b.Loop() {
		if err := c.Verify(l.pool, t0); err != nil {
			b.Fatal(err)
		}
	}
}
