package roster

import (
	"bytes"
	"errors"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
)

func TestMembership(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2)...)
	l.add(r, CertEntry(l.member(100, 3)))
	if r.Count() != 2 || !r.Has(guid(3)) {
		t.Errorf("one with a certificate alone counts: %d", r.Count())
	}
	before := r.Digest()
	l.add(r, l.ready(3, 1, 0))
	if r.Count() != 3 || r.Digest() == before {
		t.Errorf("count %d after the first ready", r.Count())
	}

	before = r.Digest()
	set := r.SetDigest()
	l.add(r, l.ready(3, 2, 0)) // a restart
	if r.Digest() != before || r.SetDigest() == set {
		t.Error("a restart changes the members' digest, or not that of the set")
	}
	if changed, err := r.Add(l.ready(3, 1, 9)); changed || err != nil {
		t.Errorf("an older epoch counted: %v %v", changed, err)
	}
	if h := r.Handle(guid(3)); h == nil || h.Epoch != 2 {
		t.Errorf("handle %+v", h)
	}
	r.Saw(handle(3, 7))
	if h := r.Handle(guid(3)); h.Epoch != 7 {
		t.Errorf("a newer handle from a handshake is not used: %+v", h)
	}

	l.add(r, l.left(3, 2, 1))
	if r.Count() != 2 || r.Has(guid(3)) || r.Handle(guid(3)) != nil {
		t.Error("one that left is still there")
	}
	if !r.OwnerOK(testKey(10_003).Public()) {
		t.Error("what a departed owner stored is disowned")
	}
	l.add(r, l.ready(3, 3, 0)) // it came back
	if r.Count() != 3 {
		t.Error("a returning member does not count")
	}
	if r.Domain(guid(2)) != "d2" || r.Domain(guid(77)) != guid(77).String() {
		t.Errorf("domains %q %q", r.Domain(guid(2)), r.Domain(guid(77)))
	}
	if !r.OwnerOK(testKey(10_002).Public()) || r.OwnerOK(testKey(10_077).Public()) {
		t.Error("owners")
	}
	if r.Admins() != 1 || len(r.List()) != 3 {
		t.Errorf("%d admins, %d listed", r.Admins(), len(r.List()))
	}
	if i, ok := r.Info(guid(2)); !ok || i.Status != Ready || i.Cert.Name != "n2" {
		t.Errorf("info %+v", i)
	}
}

func TestRenewalTakesOver(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2)...)
	c, err := ident.Certify(l.pool, testKey(100), l.admin(100), ident.Subject{
		Node: testKey(2).Public(), Owner: testKey(3).Public(), Role: ident.Member, Domain: "roof", Name: "new",
	}, t0+1)
	check(t, err)
	l.add(r, CertEntry(c))
	if r.Domain(guid(2)) != "roof" || r.Count() != 2 {
		t.Errorf("domain %q, %d members", r.Domain(guid(2)), r.Count())
	}
	for i := range int64(2 * maxCerts) {
		_, err := r.Add(CertEntry(l.certify(testKey(100), l.admin(100), 2, ident.Member, t0+100+i)))
		check(t, err)
	}
	if n := len(r.nodes[guid(2)].certs); n != maxCerts {
		t.Errorf("%d certificates of one node kept", n)
	}
	if _, err := r.Add(CertEntry(c)); !errors.Is(err, ErrFull) {
		t.Errorf("an old certificate among newer ones: %v", err)
	}
}

func TestRevokeMember(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2, 3)...)
	l.add(r, l.revoke(r, 100, 2))
	if r.Count() != 2 || r.Has(guid(2)) || !r.Revoked(guid(2)) || r.Handle(guid(2)) != nil {
		t.Error("a revoked member is still there")
	}
	if lost := r.TakeRevoked(); len(lost) != 1 || lost[0] != guid(2) || len(r.TakeRevoked()) != 0 {
		t.Errorf("revoked: %v", lost)
	}
	if err := r.CheckChain(l.member(100, 2)); !errors.Is(err, ident.ErrRevoked) {
		t.Errorf("its certificate is taken: %v", err)
	}
	check(t, r.CheckChain(l.member(100, 3)))
	// Neither a new word nor a new certificate brings the key back.
	l.add(r, l.ready(2, 5, 0))
	l.add(r, CertEntry(l.certify(testKey(100), l.admin(100), 2, ident.Member, t0+5)))
	if r.Has(guid(2)) || r.OwnerOK(testKey(10_002).Public()) {
		t.Error("a revoked key came back")
	}
	if i, ok := r.Info(guid(2)); !ok || i.Status != WasRevoked {
		t.Errorf("info %+v", i)
	}
}

// TestRevokeAdmin is 20-dht §7: "Those whom a revoked admin admitted stay; its
// certificates first seen later are refused."
func TestRevokeAdmin(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2, 3)...)
	l.add(r, CertEntry(l.admin(101)))
	l.add(r, CertEntry(l.member(101, 4)))
	l.add(r, l.ready(4, 1, 0))
	l.add(r, l.revoke(r, 101, 3))

	elsewhere := l.roster(5, CertEntry(l.admin(101)), CertEntry(l.member(101, 4)), CertEntry(l.member(101, 6)), l.ready(6, 1, 0))
	ban := l.revoke(r, 1, 101)
	l.add(r, ban)
	switch {
	case r.Has(guid(101)):
		t.Error("the revoked admin is a member")
	case !r.Has(guid(4)):
		t.Error("one whom it admitted has to go")
	case r.Has(guid(3)):
		t.Error("one whom it revoked is back")
	}
	if _, err := r.Add(CertEntry(l.member(101, 7))); !errors.Is(err, ident.ErrRevoked) || !errors.Is(err, ErrDisavowed) {
		t.Errorf("its later certificate: %v", err)
	}
	if err := r.CheckChain(l.member(101, 7)); !errors.Is(err, ident.ErrRevoked) {
		t.Errorf("its later certificate at the gate: %v", err)
	}
	check(t, r.CheckChain(l.member(101, 4)))
	late, err := l.roster(8, CertEntry(l.admin(101)), CertEntry(l.member(100, 2))).
		Revoke(testKey(101), l.admin(101), guid(2), "spite", t0, [16]byte{})
	check(t, err)
	if _, err := r.Add(late); !errors.Is(err, ident.ErrRevoked) {
		t.Errorf("its later revocation: %v", err)
	}

	// Where its later certificate came first, the revocation takes it back.
	l.add(elsewhere, ban)
	if elsewhere.Has(guid(6)) || elsewhere.Count() != 0 || !elsewhere.Has(guid(4)) {
		t.Error("a certificate that the revocation does not list stands where it came first")
	}
	if lost := elsewhere.TakeRevoked(); len(lost) != 2 {
		t.Errorf("revoked there: %v", lost)
	}
}

// TestRogueAdmin: who signs without end can be revoked nonetheless, and what it
// did for real members stands.
func TestRogueAdmin(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2)...)
	l.add(r, CertEntry(l.admin(101)))
	rogue := l.admin(101)
	for i := range MaxKeep + 50 {
		at := t0 - int64(i) // it lies about the time
		if _, err := r.Load([][]byte{CertEntry(l.certify(testKey(101), rogue, 1_000+i, ident.Member, at))}); err != nil {
			t.Fatal(err)
		}
	}
	l.add(r, CertEntry(l.certify(testKey(101), rogue, 4, ident.Member, t0+1)))
	l.add(r, l.ready(4, 1, 0))
	before := r.Len()
	r.bans = maxBans // as if it had revoked without end as well
	l.add(r, l.revoke(r, 1, 101))
	if !r.Has(guid(4)) || r.Has(guid(101)) || r.Len() != before+1-51 {
		t.Errorf("member kept: %v, admin gone: %v, %d entries of %d", r.Has(guid(4)), !r.Has(guid(101)), r.Len(), before)
	}
}

func TestRevokeRefuses(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, append(l.joined(2), CertEntry(l.admin(101)))...)
	for name, tc := range map[string]struct {
		key    ident.Key
		chain  ident.Chain
		target id.GUID
		reason string
		want   error
	}{
		"an unknown node":      {testKey(100), l.admin(100), guid(9), "", ErrUnknown},
		"an admin by an admin": {testKey(100), l.admin(100), guid(101), "", ident.ErrForbidden},
		"by a member":          {testKey(2), l.member(100, 2), guid(2), "", ident.ErrForbidden},
		"under another's name": {testKey(2), l.admin(100), guid(2), "", ident.ErrForbidden},
		"an unprintable word":  {testKey(100), l.admin(100), guid(2), "a\x1b", ident.ErrBadLabel},
	} {
		if _, err := r.Revoke(tc.key, tc.chain, tc.target, tc.reason, t0, [16]byte{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	// An admin that signs a revocation of an admin all the same changes nothing.
	v := &Revoked{Pool: l.pool.ID(), Node: testKey(101).Public(), By: testKey(100).Public(), Chain: l.admin(100)}
	v.Sig = testKey(100).Sign(ident.DomainRevoked, v.body())
	l.add(r, (&Entry{Revoked: v}).Encode())
	if !r.Has(guid(101)) {
		t.Error("an admin was revoked by an admin")
	}
}

func TestForgeries(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2)...)
	other, err := ident.NewPool(testKey(55), [16]byte{}, "other", 3, ident.Pastry)
	check(t, err)
	foreign, err := ident.Certify(other, testKey(55), nil, ident.Subject{Node: testKey(9).Public(), Role: ident.Admin}, t0)
	check(t, err)
	signed := func(v Revoked, k ident.Key) []byte {
		v.Pool, v.Node, v.By = l.pool.ID(), testKey(2).Public(), k.Public()
		v.Sig = k.Sign(ident.DomainRevoked, v.body())
		return (&Entry{Revoked: &v}).Encode()
	}
	thief := handle(3, 4)
	thief.GUID = guid(2)
	stolen := &State{Pool: l.pool.ID(), Node: testKey(3).Public(), Epoch: 4, Handle: thief}
	stolen.Sig = testKey(3).Sign(ident.DomainReady, stolen.body())
	l.add(r, CertEntry(l.member(100, 3)))

	for name, tc := range map[string]struct {
		entry []byte
		want  error
	}{
		"foreign certificate":         {CertEntry(foreign), ident.ErrWrongPool},
		"foreign ready":               {ReadyEntry(other.ID(), testKey(2), handle(2, 9), 0), ident.ErrWrongPool},
		"ready without a certificate": {l.ready(44, 1, 0), ErrUnknown},
		"another's GUID":              {(&Entry{State: stolen}).Encode(), ErrBadEntry},
		"revoked by a member":         {signed(Revoked{Chain: l.member(100, 3)}, testKey(3)), ErrBadEntry},
		"revoked by nobody":           {signed(Revoked{}, testKey(3)), ErrBadEntry},
		"revoked in an admin's name":  {signed(Revoked{Chain: l.admin(100)}, testKey(3)), ErrBadEntry},
		"list by an admin":            {signed(Revoked{Chain: l.admin(100), Keep: []Tag{{1}}}, testKey(100)), ErrBadEntry},
		"nothing":                     {nil, ErrBadEntry},
		"too long":                    {make([]byte, MaxEntry+1), ErrBadEntry},
	} {
		if _, err := r.Add(tc.entry); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for _, good := range [][]byte{CertEntry(l.member(100, 9)), l.ready(3, 9, 0), l.left(3, 9, 0), l.revoke(r, 100, 3), l.revoke(r, 1, 3)} {
		for i := range good {
			b := bytes.Clone(good)
			b[i] ^= 0x10
			if changed, err := r.Add(b); err == nil && changed {
				t.Fatalf("entry of kind %d with byte %d changed was taken", good[0], i)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	l := newLagoon(t)
	v := &Revoked{Reason: string(bytes.Repeat([]byte("x"), ident.MaxLabel)), Keep: make([]Tag, MaxKeep), Chain: l.admin(100)}
	if n := len((&Entry{Revoked: v}).Encode()); n > MaxEntry {
		t.Errorf("a revocation of %d bytes", n)
	}
	r := l.roster(100, l.joined(2, 3, 4)...)
	size := 0
	for _, s := range r.Seeds(guid(9), 1_500) {
		size += 2 + len(s)
	}
	if size < 750 || size > 1_500 {
		t.Errorf("%d of 1,500 bytes of seeds", size)
	}
	seeds := r.Seeds(guid(9), 48<<10)
	joiner := l.roster(9, seeds...)
	if joiner.Count() != 4 || joiner.Digest() != r.Digest() {
		t.Errorf("a joiner counts %d of 4 members", joiner.Count())
	}
}

func TestRestore(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2, 3)...)
	l.add(r, l.revoke(r, 100, 3))
	b := r.Encode()
	again := New(Config{}, l.pool)
	check(t, again.Restore(b))
	if !bytes.Equal(again.Encode(), b) || again.SetDigest() != r.SetDigest() || again.Version() == 0 {
		t.Error("a restored roster differs")
	}
	for i := 0; i < len(b); i += 3 {
		c := bytes.Clone(b)
		c[i] ^= 4
		x := New(Config{}, l.pool)
		if x.Restore(c) == nil {
			t.Fatalf("byte %d changed unnoticed", i)
		}
	}
}
