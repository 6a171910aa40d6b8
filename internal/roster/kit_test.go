package roster

import (
	"encoding/binary"
	"fmt"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
)

const t0 = int64(1_767_225_600_000)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testKey(n int) ident.Key {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	return ident.KeyFromSeed(seed)
}

// lagoon is a pool with a root key (number 1) and admins numbered from 100.
type lagoon struct {
	t    testing.TB
	root ident.Key
	pool *ident.Pool
}

func newLagoon(t testing.TB) *lagoon {
	t.Helper()
	p, err := ident.NewPool(testKey(1), [16]byte{7}, "lagoon", 3, ident.Pastry)
	check(t, err)
	return &lagoon{t, testKey(1), p}
}

func guid(n int) id.GUID { return testKey(n).GUID() }

func handle(n int, epoch uint32) *id.Handle {
	k := testKey(n)
	return &id.Handle{GUID: k.GUID(), Key: k.Public(), Epoch: epoch, Addrs: []string{fmt.Sprint("addr", n)}}
}

func (l *lagoon) certify(issuer ident.Key, above ident.Chain, n int, role ident.Role, at int64) ident.Chain {
	l.t.Helper()
	c, err := ident.Certify(l.pool, issuer, above, ident.Subject{
		Node: testKey(n).Public(), Owner: testKey(10_000 + n).Public(), Role: role, Domain: fmt.Sprint("d", n%4), Name: fmt.Sprint("n", n),
	}, at)
	check(l.t, err)
	return c
}

func (l *lagoon) admin(n int) ident.Chain {
	return l.certify(l.root, nil, n, ident.Admin, t0)
}

// member is a member taken in by an admin.
func (l *lagoon) member(admin, n int) ident.Chain {
	return l.certify(testKey(admin), l.admin(admin), n, ident.Member, t0)
}

func (l *lagoon) ready(n int, epoch, seq uint32) []byte {
	return ReadyEntry(l.pool.ID(), testKey(n), handle(n, epoch), seq)
}

func (l *lagoon) left(n int, epoch, seq uint32) []byte {
	return LeftEntry(l.pool.ID(), testKey(n), epoch, seq)
}

func (l *lagoon) roster(self int, entries ...[]byte) *Roster {
	l.t.Helper()
	r := New(Config{Self: guid(self), Seed: 1}, l.pool)
	_, err := r.Load(entries)
	check(l.t, err)
	return r
}

// joined are the entries of nodes that admin 100 took in and that are ready; 100
// itself is one of them.
func (l *lagoon) joined(nodes ...int) [][]byte {
	all := [][]byte{CertEntry(l.admin(100)), l.ready(100, 1, 0)}
	for _, n := range nodes {
		all = append(all, CertEntry(l.member(100, n)), l.ready(n, 1, 0))
	}
	return all
}

func (l *lagoon) revoke(r *Roster, by, target int) []byte {
	l.t.Helper()
	key, chain := l.root, ident.Chain(nil)
	if by != 1 {
		key, chain = testKey(by), l.admin(by)
	}
	b, err := r.Revoke(key, chain, guid(target), "lost", t0, [16]byte{byte(target)})
	check(l.t, err)
	return b
}

func (l *lagoon) add(r *Roster, entry []byte) {
	l.t.Helper()
	changed, err := r.Add(entry)
	check(l.t, err)
	if !changed {
		l.t.Fatal("no change")
	}
}
