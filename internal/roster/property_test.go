package roster

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
)

// history draws what may be said in a pool with three admins and six members,
// revocations of admins included.
func (l *lagoon) history(t *rapid.T) [][]byte {
	admins := []int{100, 101, 102}
	all := [][]byte{CertEntry(l.admin(100)), CertEntry(l.admin(101)), CertEntry(l.admin(102))}
	know := New(Config{}, l.pool) // what the revoking node knows
	_, err := know.Load(all)
	check(l.t, err)
	for range rapid.IntRange(1, 24).Draw(t, "length") {
		n := rapid.IntRange(1, 6).Draw(t, "node") + 1
		by := rapid.SampledFrom(admins).Draw(t, "admin")
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0, 1, 2:
			at := t0 + rapid.Int64Range(0, 3).Draw(t, "at")
			all = append(all, CertEntry(l.certify(testKey(by), l.admin(by), n, ident.Member, at)))
		case 3, 4:
			all = append(all, l.ready(n, uint32(rapid.IntRange(1, 2).Draw(t, "epoch")), 0))
		case 5:
			all = append(all, l.left(n, uint32(rapid.IntRange(1, 2).Draw(t, "epoch")), 0))
		case 6:
			if b, err := know.Revoke(testKey(by), l.admin(by), guid(n), "", t0, [16]byte{1}); err == nil {
				all = append(all, b)
			}
		case 7:
			if b, err := know.Revoke(l.root, nil, guid(by), "", t0, [16]byte{byte(len(all))}); err == nil {
				all = append(all, b)
			}
		default: // the revoking node learns of some
			for _, e := range all {
				if rapid.Bool().Draw(t, "learn") {
					_, _ = know.Add(e)
				}
			}
		}
	}
	return all
}

func (l *lagoon) of(entries [][]byte) *Roster {
	r := New(Config{}, l.pool)
	_, _ = r.Load(entries)
	return r
}

func (r *Roster) all() [][]byte {
	var all [][]byte
	for _, x := range r.sorted(func(*held) bool { return true }) {
		all = append(all, x.bytes)
	}
	return all
}

func same(a, b *Roster) bool {
	return a.SetDigest() == b.SetDigest() && a.Digest() == b.Digest() && slices.EqualFunc(a.List(), b.List(), func(x, y Info) bool {
		return x.GUID == y.GUID && x.Status == y.Status && a.OwnerOK(x.Cert0().Owner) == b.OwnerOK(y.Cert0().Owner)
	})
}

// Cert0 is the certificate, or an empty one.
func (i Info) Cert0() *ident.Certificate {
	if i.Cert == nil {
		return &ident.Certificate{}
	}
	return i.Cert
}

// TestMergeProperties: merging is commutative and idempotent, and once everything
// has been said to everybody, in whatever order, all say the same.
func TestMergeProperties(t *testing.T) {
	l := newLagoon(t)
	rapid.Check(t, func(t *rapid.T) {
		all := l.history(t)
		pick := func(label string) *Roster {
			var some [][]byte
			for _, e := range all {
				if rapid.Bool().Draw(t, label) {
					some = append(some, e)
				}
			}
			return l.of(some)
		}
		a, b := pick("a"), pick("b")
		ab, ba := l.of(a.all()), l.of(b.all())
		_, _ = ab.Load(b.all())
		_, _ = ba.Load(a.all())
		if !same(ab, ba) {
			t.Fatal("merging is not commutative")
		}
		before := ab.SetDigest()
		_, _ = ab.Load(ab.all())
		_, _ = ab.Load(b.all())
		if ab.SetDigest() != before {
			t.Fatal("merging is not idempotent")
		}
		if r := l.of(nil); r.Restore(ab.Encode()) != nil || !same(r, ab) {
			t.Fatal("encoding loses something")
		}

		want := l.of(all)
		got := l.of(nil)
		for range 2 {
			for _, e := range rapid.Permutation(all).Draw(t, "order") {
				_, _ = got.Add(e)
			}
			_, _ = got.Load(all)
		}
		if !same(got, want) {
			t.Fatal("the order of entries shows in the result")
		}
	})
}

// TestNearest: the fast answer equals sorting.
func TestNearest(t *testing.T) {
	l := newLagoon(t)
	nodes := make([]int, 20)
	for i := range nodes {
		nodes[i] = i + 2
	}
	whole := l.joined(nodes...)
	rapid.Check(t, func(t *rapid.T) {
		r := l.of(whole[:2*rapid.IntRange(0, len(whole)/2).Draw(t, "members")])
		key := id.GUID(rapid.SliceOfN(rapid.Byte(), id.Size, id.Size).Draw(t, "key"))
		n := rapid.IntRange(0, 25).Draw(t, "n")
		var naive []id.GUID
		for _, i := range r.List() {
			naive = append(naive, i.GUID)
		}
		slices.SortFunc(naive, func(a, b id.GUID) int { return id.CmpDist(key, a, b) })
		naive = naive[:min(n, len(naive))]
		if got := r.Nearest(key, n); !slices.Equal(got, naive) {
			t.Fatalf("Nearest = %v, want %v", got, naive)
		}
	})
}

// Elders by the wall clock while the node is young, by its own experience later:
// a renewal makes nobody young, and neither does a clock that is wrong.
func TestElders(t *testing.T) {
	l := newLagoon(t)
	const age, hour = 5 * machine.Minute, 3_600_000
	r := l.roster(100, l.joined(2, 3)...)
	begin := machine.Time(machine.Hour)
	r.Start(begin, nil)
	elders := func(now machine.Time, wall int64) int {
		got := r.Elders(guid(4), 9, now, wall, age)
		if slices.Contains(got, guid(4)) != (len(got) == 4) {
			t.Errorf("%v", got)
		}
		return len(got)
	}
	l.add(r, CertEntry(l.certify(testKey(100), l.admin(100), 2, ident.Member, t0+hour)))
	if got := elders(begin, t0+hour); got != 3 {
		t.Errorf("%d elders an hour after they were taken in, want 3", got)
	}
	if got := elders(begin, t0); got != 0 {
		t.Errorf("%d elders as all are taken in, want 0", got)
	}
	if got := elders(begin.Add(age), t0-hour); got != 3 {
		t.Errorf("%d elders by a clock that is behind, of members known for long, want 3", got)
	}
	r.lastNow = begin.Add(settling)
	l.add(r, CertEntry(l.certify(testKey(100), l.admin(100), 4, ident.Member, t0+hour)))
	l.add(r, l.ready(4, 1, 0))
	if got := elders(r.lastNow.Add(age-1), t0+9*hour); got != 3 {
		t.Errorf("%d elders by a clock that is ahead, when one was just heard of, want 3", got)
	}
	if got := elders(r.lastNow.Add(age), t0); got != 4 {
		t.Errorf("%d elders when the last is known for long, want 4", got)
	}
}

// TestBuckets: the digest kept along the way equals that of a fresh set.
func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s buckets
		have := map[Tag]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			tag := Tag{rapid.Byte().Draw(t, "bucket") % 4, rapid.Byte().Draw(t, "tag") % 4}
			if rapid.Bool().Draw(t, "add") {
				s.add(tag)
				have[tag] = true
			} else {
				s.drop(tag)
				delete(have, tag)
			}
			if rapid.Bool().Draw(t, "ask") {
				var fresh buckets
				for tag := range have {
					fresh.add(tag)
				}
				if s.digest(len(have)) != fresh.digest(len(have)) {
					t.Fatal("digests differ")
				}
			}
		}
	})
}
