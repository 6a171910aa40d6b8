package ident

import (
	"bytes"
	"encoding/binary"
	"testing"

	"atoll.example/atoll/internal/id"
)

// t0 is when the stories of these tests begin: 2026-01-01 in Unix ms.
const t0 = int64(1_767_225_600_000)

const (
	hour   = int64(3600_000)
	minute = int64(60_000)
)

// testKey is a key made from a small number.
func testKey(n uint64) Key {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], n)
	return KeyFromSeed(seed)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lagoon is a pool with its founder.
type lagoon struct {
	root, admin Key
	pool        *Pool
	chain       Chain // of admin
	issuer      *Issuer
}

func newLagoon(t testing.TB) *lagoon {
	t.Helper()
	l := &lagoon{root: testKey(1), admin: testKey(2)}
	var err error
	l.pool, err = NewPool(l.root, [16]byte{7}, "lagoon", 3, Pastry)
	check(t, err)
	l.chain, err = Certify(l.pool, l.root, nil, Subject{
		Node: l.admin.Public(), Owner: testKey(3).Public(), Role: Admin, Domain: "attic", Name: "first",
	}, t0)
	check(t, err)
	l.issuer, err = NewIssuer(l.pool, l.admin, l.chain, l.root)
	check(t, err)
	return l
}

func (l *lagoon) invite(t testing.TB, uses int) *Invite {
	t.Helper()
	v, err := l.issuer.Invite(Token{1, 2, 3}, Terms{Role: Member, Uses: uses, TTL: 24 * hour, Quota: 5, Addrs: []string{"10.0.0.1:7", "10.0.0.2:7"}}, t0)
	check(t, err)
	return v
}

func (l *lagoon) request(t testing.TB, v *Invite, n uint64) *JoinRequest {
	t.Helper()
	q, err := NewJoinRequest(v, Subject{Node: testKey(n).Public(), Owner: testKey(n + 1).Public(), Domain: "cellar", Name: "second"}, t0)
	check(t, err)
	return q
}

func (l *lagoon) member(t testing.TB, n uint64) Chain {
	t.Helper()
	c, err := Certify(l.pool, l.admin, l.chain, Subject{Node: testKey(n).Public(), Owner: testKey(n + 1).Public(), Role: Member, Name: "m"}, t0)
	check(t, err)
	return c
}

func (l *lagoon) hello(c Chain) *Hello {
	key := c.Leaf().Node
	return &Hello{
		Min: WireMin, Max: WireMax, Wall: t0, Pool: l.pool.ID(), Chain: c,
		Handle: &id.Handle{GUID: GUIDOf(key), Key: key, Epoch: 1, Addrs: []string{"a"}}, Roster: [32]byte{9},
	}
}

func (l *lagoon) gate() Gate { return Gate{Pool: l.pool, Min: WireMin, Max: WireMax} }

func sameBytes(t testing.TB, what string, a, b []byte) {
	t.Helper()
	if !bytes.Equal(a, b) {
		t.Errorf("%s: re-encodes to other bytes:\n%x\n%x", what, a, b)
	}
}
