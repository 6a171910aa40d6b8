// Package storetest is the conformance suite of store.Store: what callers rely
// on, whatever the disk behind it. Crashes and faults of a disk are the matter
// of store/diskstore's own tests.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

// Target makes the stores under test.
type Target struct {
	// Open makes an empty store of a limit in bytes; the test closes it.
	Open func(t testing.TB, limit int64) store.Store
	// Reopen closes a store and opens it again; nil if a store forgets.
	Reopen func(t testing.TB, s store.Store) store.Store
	// Large is a block size that the store treats in its own way.
	Large int
}

// limit of most tests: no record of theirs comes near it.
const limit = 1 << 30

// Run runs every test of the suite.
func Run(t *testing.T, target Target) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Target)
	}{
		{"PutGetDelete", testPutGetDelete},
		{"Named", testNamed},
		{"SubKeys", testSubKeys},
		{"BatchOrder", testBatchOrder},
		{"Bounds", testBounds},
		{"OwnSlices", testOwnSlices},
		{"Range", testRange},
		{"RangeNested", testRangeNested},
		{"Usage", testUsage},
		{"Full", testFull},
		{"Urgent", testUrgent},
		{"Context", testContext},
		{"Closed", testClosed},
		{"Concurrent", testConcurrent},
		{"SameBlock", testSameBlock},
		{"Model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, target) })
	}
}

func open(t testing.TB, target Target, limit int64) store.Store {
	t.Helper()
	s := target.Open(t, limit)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// GUID returns a GUID that starts with n, for tests that care for order.
func GUID(n uint64) (g id.GUID) {
	binary.BigEndian.PutUint64(g[:], n)
	return g
}

// Value returns n bytes that depend on seed.
func Value(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(b) // never fails
	return b
}

// Put makes an operation that sets a record.
func Put(f store.Family, g id.GUID, sub string, v []byte) store.Op {
	return store.Op{Key: store.Key{Family: f, GUID: g, Sub: sub}, Value: v}
}

// Delete makes an operation that deletes a record.
func Delete(f store.Family, g id.GUID, sub string) store.Op {
	return store.Op{Key: store.Key{Family: f, GUID: g, Sub: sub}, Delete: true}
}

func apply(t testing.TB, s store.Store, ops ...store.Op) {
	t.Helper()
	if err := s.Apply(t.Context(), store.Batch{Ops: ops}); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

func wantValue(t testing.TB, s store.Store, k store.Key, want []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), k)
	if err != nil {
		t.Fatalf("get %v: %v", k, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("get %v: %d bytes, want %d, or they differ", k, len(got), len(want))
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func wantAbsent(t testing.TB, s store.Store, k store.Key) {
	t.Helper()
	_, err := s.Get(t.Context(), k)
	wantError(t, err, store.ErrNotFound)
}

func testPutGetDelete(t *testing.T, target Target) {
	s := open(t, target, limit)
	for i, n := range []int{0, 1, 4096, target.Large - 1, target.Large, target.Large + 1, store.MaxValue} {
		for _, fam := range []store.Family{store.Block, store.Signed} {
			op := Put(fam, GUID(uint64(i)), "", Value(uint64(i), n))
			wantAbsent(t, s, op.Key)
			apply(t, s, op)
			wantValue(t, s, op.Key, op.Value)
			other := Put(fam, GUID(uint64(i)), "", Value(uint64(i)+100, n+1-2*(n/store.MaxValue)))
			apply(t, s, other)
			wantValue(t, s, op.Key, other.Value)
			apply(t, s, Delete(fam, GUID(uint64(i)), ""))
			wantAbsent(t, s, op.Key)
			apply(t, s, Delete(fam, GUID(uint64(i)), "")) // absent: no error
		}
	}
	if u := s.Usage(); u.Used != 0 || u.Blocks != 0 {
		t.Errorf("empty again, yet usage is %+v", u)
	}
}

// A block named by its hash is the same record, whether the store is told so or
// finds out.
func testNamed(t *testing.T, target Target) {
	s := open(t, target, limit)
	for i, n := range []int{0, 1, 4096, target.Large - 1, target.Large, store.MaxValue} {
		v := Value(uint64(i), n)
		op := Put(store.Block, blake3.Sum256(v), "", v)
		for _, named := range []bool{true, false, true} {
			op.Named = named
			apply(t, s, op)
			wantValue(t, s, op.Key, v)
			CheckUsage(t, s)
		}
	}
}

func testSubKeys(t *testing.T, target Target) {
	s := open(t, target, limit)
	g := GUID(7)
	full := string(Value(1, store.MaxSub))
	for i, sub := range []string{"", "a", "ab", full} {
		apply(t, s, Put(store.Claim, g, sub, []byte{byte(i)}))
		apply(t, s, Put(store.Tombstone, g, sub, []byte{byte(i), 1}))
	}
	apply(t, s, Delete(store.Claim, g, "a"))
	wantAbsent(t, s, store.Key{Family: store.Claim, GUID: g, Sub: "a"})
	wantValue(t, s, store.Key{Family: store.Claim, GUID: g}, []byte{0})
	wantValue(t, s, store.Key{Family: store.Claim, GUID: g, Sub: "ab"}, []byte{2})
	wantValue(t, s, store.Key{Family: store.Claim, GUID: g, Sub: full}, []byte{3})
	wantValue(t, s, store.Key{Family: store.Tombstone, GUID: g, Sub: "a"}, []byte{1, 1})
}

// Operations of one batch on one key act in their order.
func testBatchOrder(t *testing.T, target Target) {
	s := open(t, target, limit)
	for _, n := range []int{10, target.Large} {
		g := GUID(uint64(n))
		k := store.Key{Family: store.Block, GUID: g}
		a, b := Value(1, n), Value(2, n+1)
		apply(t, s, Put(store.Block, g, "", a), Delete(store.Block, g, ""), Put(store.Block, g, "", b))
		wantValue(t, s, k, b)
		apply(t, s, Put(store.Block, g, "", a), Put(store.Block, g, "", b))
		wantValue(t, s, k, b)
		apply(t, s, Put(store.Block, g, "", a), Delete(store.Block, g, ""))
		wantAbsent(t, s, k)
	}
	if u := s.Usage(); u.Used != 0 || u.Blocks != 0 {
		t.Errorf("empty again, yet usage is %+v", u)
	}
}

func testBounds(t *testing.T, target Target) {
	s := open(t, target, limit)
	good := Put(store.Head, GUID(1), "", []byte("x"))
	for _, bad := range []store.Op{
		Put(store.Head, GUID(1), string(make([]byte, store.MaxSub+1)), nil),
		Put(store.Block, GUID(1), "", make([]byte, store.MaxValue+1)),
		Put(0, GUID(1), "", nil),
	} {
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{good, bad}}); err == nil {
			t.Errorf("%v of %d bytes was taken", bad.Key, len(bad.Value))
		}
	}
	wantAbsent(t, s, good.Key)
	if err := s.Apply(t.Context(), store.Batch{}); err != nil {
		t.Errorf("empty batch: %v", err)
	}
}

// What Get returns belongs to the caller; what Apply was given is not kept.
func testOwnSlices(t *testing.T, target Target) {
	s := open(t, target, limit)
	for _, n := range []int{100, target.Large} {
		v := Value(3, n)
		k := store.Key{Family: store.Block, GUID: GUID(uint64(n))}
		apply(t, s, store.Op{Key: k, Value: v})
		want := bytes.Clone(v)
		v[0]++
		got, err := s.Get(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		got[1]++
		wantValue(t, s, k, want)
	}
}

func collect(t testing.TB, s store.Store, fam store.Family, lo, hi id.GUID) (keys []store.Key, values [][]byte) {
	t.Helper()
	err := s.Range(t.Context(), fam, lo, hi, func(k store.Key, v []byte) bool {
		keys = append(keys, k)
		values = append(values, bytes.Clone(v))
		return true
	})
	if err != nil {
		t.Fatalf("range: %v", err)
	}
	return keys, values
}

func testRange(t *testing.T, target Target) {
	s := open(t, target, limit)
	var top id.GUID
	for i := range top {
		top[i] = 0xff
	}
	guids := []id.GUID{{}, GUID(1), GUID(2), GUID(1 << 63), top}
	var want []store.Key
	for _, g := range guids {
		for _, sub := range []string{"", "\x00", "a", "b\xff", "\xff\xff"} {
			want = append(want, store.Key{Family: store.Holder, GUID: g, Sub: sub})
		}
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(want)) {
		apply(t, s, store.Op{Key: want[i], Value: []byte(fmt.Sprint(i))})
	}
	apply(t, s, Put(store.Holder-1, top, "z", nil), Put(store.Holder+1, id.GUID{}, "", nil))
	apply(t, s, Put(store.Block, GUID(1), "", []byte("small")), Put(store.Block, GUID(2), "", Value(1, target.Large)))

	for lo := range guids {
		for hi := range guids {
			keys, values := collect(t, s, store.Holder, guids[lo], guids[hi])
			var expect []store.Key
			if lo <= hi {
				expect = want[lo*5 : hi*5+5]
			}
			if fmt.Sprint(keys) != fmt.Sprint(expect) {
				t.Fatalf("range %d to %d: %v, want %v", lo, hi, keys, expect)
			}
			for i, v := range values {
				if string(v) != fmt.Sprint(lo*5+i) {
					t.Errorf("range: %v has value %q", keys[i], v)
				}
			}
		}
	}
	keys, values := collect(t, s, store.Block, id.GUID{}, top)
	if len(keys) != 2 || values[0] != nil || values[1] != nil {
		t.Errorf("range over blocks: %v, values must be nil", keys)
	}
	n := 0
	err := s.Range(t.Context(), store.Holder, id.GUID{}, top, func(store.Key, []byte) bool { n++; return n < 3 })
	if err != nil || n != 3 {
		t.Errorf("stopped after %d with %v, want 3", n, err)
	}
}

// The function given to Range may call the store.
func testRangeNested(t *testing.T, target Target) {
	s := open(t, target, limit)
	for i := range uint64(20) {
		apply(t, s, Put(store.Head, GUID(i), "", []byte{byte(i)}))
	}
	n := 0
	err := s.Range(t.Context(), store.Head, GUID(0), GUID(1000), func(k store.Key, v []byte) bool {
		n++
		wantValue(t, s, k, v)
		apply(t, s, store.Op{Key: k, Delete: true}, store.Op{Key: store.Key{Family: store.Claim, GUID: k.GUID}, Value: v})
		return true
	})
	if err != nil || n != 20 {
		t.Fatalf("%d records, %v", n, err)
	}
	if keys, _ := collect(t, s, store.Head, GUID(0), GUID(1000)); len(keys) != 0 {
		t.Errorf("%d records left", len(keys))
	}
}

func testUsage(t *testing.T, target Target) {
	s := open(t, target, limit)
	var want int64
	for i, n := range []int{0, 5000, target.Large, target.Large} {
		op := Put(store.Block, GUID(uint64(i)), "", Value(uint64(i), n))
		apply(t, s, op)
		apply(t, s, op) // the same again costs nothing
		want += store.Cost(op.Key, n)
	}
	head := Put(store.Head, GUID(1), "sub", []byte("12345"))
	apply(t, s, head)
	want += store.Cost(head.Key, 5)
	u := s.Usage()
	if u.Used != want || u.Blocks != 4 || u.Limit != limit || u.Reserve != store.ReserveOf(limit) {
		t.Errorf("usage %+v, want used %d", u, want)
	}
	if u.Free < 0 || u.Free > u.Limit-u.Used-u.Reserve {
		t.Errorf("free %d of %+v", u.Free, u)
	}
	apply(t, s, Put(store.Block, GUID(2), "", Value(9, 10)), Delete(store.Block, GUID(3), ""))
	want -= 2*store.Cost(head.Key, target.Large) - 2*3 - store.Cost(head.Key, 10) + 3
	if u := s.Usage(); u.Used != want || u.Blocks != 3 {
		t.Errorf("after delete: used %d, blocks %d, want %d, 3", u.Used, u.Blocks, want)
	}
}

// fill puts 1 MiB blocks until the store is full and returns how many.
func fill(t testing.TB, s store.Store, urgent bool, from uint64) uint64 {
	t.Helper()
	v := Value(from, 1<<20)
	for i := from; ; i++ {
		err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{Put(store.Block, GUID(i), "", v)}, Urgent: urgent})
		if errors.Is(err, store.ErrFull) {
			return i
		}
		if err != nil {
			t.Fatal(err)
		}
		if i > 2*store.MinLimit>>20 {
			t.Fatal("the limit has no effect")
		}
	}
}

func testFull(t *testing.T, target Target) {
	s := open(t, target, store.MinLimit)
	free := s.Usage().Free
	n := fill(t, s, false, 0)
	u := s.Usage()
	if want := free >> 20; int64(n) != want {
		t.Errorf("%d blocks of 1 MiB went into %d bytes", n, free)
	}
	if u.Free >= 1<<20+1024 || u.Limit-u.Used < u.Reserve {
		t.Errorf("full at %+v", u)
	}
	big := Put(store.Block, GUID(n), "", Value(n, 1<<20))
	small := Put(store.Head, GUID(n), "", []byte("head"))
	err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{small, big}})
	wantError(t, err, store.ErrFull)
	wantAbsent(t, s, small.Key)
	wantAbsent(t, s, big.Key)
	if now := s.Usage(); now.Used != u.Used || now.Blocks != u.Blocks {
		t.Errorf("a refused batch changed usage from %+v to %+v", u, now)
	}
	// What does not grow is taken: the same block, a deletion, a swap.
	apply(t, s, Put(store.Block, GUID(0), "", Value(0, 1<<20)))
	apply(t, s, Put(store.Block, GUID(1), "", Value(0, 1000)))
	apply(t, s, Delete(store.Block, GUID(2), ""))
	apply(t, s, big)
}

func testUrgent(t *testing.T, target Target) {
	s := open(t, target, store.MinLimit)
	n := fill(t, s, false, 0)
	tomb := Put(store.Tombstone, GUID(0), "o", []byte("removed"))
	err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{Delete(store.Block, GUID(0), ""), tomb}, Urgent: true})
	if err != nil {
		t.Fatalf("tombstone in a full store: %v", err)
	}
	m := fill(t, s, true, n)
	u := s.Usage()
	if m <= n || u.Free != 0 || u.Used > u.Limit {
		t.Errorf("urgent batches stopped after %d blocks at %+v", m-n, u)
	}
	apply(t, s, Delete(store.Block, GUID(1), "")) // frees, even if not urgent
}

func testContext(t *testing.T, target Target) {
	s := open(t, target, limit)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	op := Put(store.Head, GUID(1), "", []byte("x"))
	wantError(t, s.Apply(ctx, store.Batch{Ops: []store.Op{op}}), context.Canceled)
	_, err := s.Get(ctx, op.Key)
	wantError(t, err, context.Canceled)
	wantError(t, s.Range(ctx, store.Head, id.GUID{}, GUID(9), func(store.Key, []byte) bool { return true }), context.Canceled)
	wantAbsent(t, s, op.Key)
}

func testClosed(t *testing.T, target Target) {
	s := target.Open(t, limit)
	op := Put(store.Head, GUID(1), "", []byte("x"))
	apply(t, s, op)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	wantError(t, s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}), store.ErrClosed)
	_, err := s.Get(t.Context(), op.Key)
	wantError(t, err, store.ErrClosed)
	wantError(t, s.Range(t.Context(), store.Head, id.GUID{}, GUID(9), func(store.Key, []byte) bool { return true }), store.ErrClosed)
	select {
	case <-s.Failed():
		t.Error("closed, not failed")
	default:
	}
}

// Many callers at once, on keys of their own and on shared ones.
func testConcurrent(t *testing.T, target Target) {
	s := open(t, target, limit)
	const callers, rounds = 16, 30
	var wg sync.WaitGroup
	for c := range uint64(callers) {
		wg.Go(func() {
			for i := range uint64(rounds) {
				n := 100
				if i%10 == 0 {
					n = target.Large
				}
				own := Put(store.Block, GUID((c+1)<<32|i%3), "", Value(c*1000+i, n))
				shared := Put(store.Block, GUID(i%4), "", Value(i%4, n))
				if i%7 == 3 {
					shared.Delete = true
				}
				if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{own, shared}}); err != nil {
					t.Errorf("apply: %v", err)
					return
				}
				got, err := s.Get(t.Context(), own.Key)
				if err != nil || !bytes.Equal(got, own.Value) {
					t.Errorf("caller %d round %d: read back %d bytes, %v", c, i, len(got), err)
					return
				}
				if _, err := s.Get(t.Context(), shared.Key); err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("shared: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	CheckUsage(t, s)
}

// Many callers put the same large block while others delete it: a put that is
// answered leaves it readable unless a deletion came after.
func testSameBlock(t *testing.T, target Target) {
	s := open(t, target, limit)
	v := Value(1, target.Large)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 20 {
				op := Put(store.Block, GUID(1), "", v)
				op.Delete = c%4 == 3 && i%2 == 1
				if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
					t.Errorf("apply: %v", err)
				}
				got, err := s.Get(t.Context(), op.Key)
				if err == nil && !bytes.Equal(got, v) || err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("get: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	apply(t, s, Put(store.Block, GUID(1), "", v))
	wantValue(t, s, store.Key{Family: store.Block, GUID: GUID(1)}, v)
	CheckUsage(t, s)
}

// CheckUsage compares Usage with what Range and Get find.
func CheckUsage(t testing.TB, s store.Store) {
	t.Helper()
	var used, blocks int64
	var top id.GUID
	for i := range top {
		top[i] = 0xff
	}
	for fam := store.Family('A'); fam <= 'z'; fam++ {
		keys, _ := collect(t, s, fam, id.GUID{}, top)
		for _, k := range keys {
			v, err := s.Get(t.Context(), k)
			if err != nil {
				t.Fatalf("range names %v, get: %v", k, err)
			}
			used += store.Cost(k, len(v))
			if fam == store.Block {
				blocks++
			}
		}
	}
	if u := s.Usage(); u.Used != used || u.Blocks != blocks {
		t.Errorf("usage says %d bytes in %d blocks, the records %d in %d", u.Used, u.Blocks, used, blocks)
	}
}
