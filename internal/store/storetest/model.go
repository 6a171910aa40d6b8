package storetest

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"pgregory.net/rapid"
)

// testModel compares a store with a map over random batches, with restarts
// where the store survives them.
func testModel(t *testing.T, target Target) {
	rapid.Check(t, func(rt *rapid.T) {
		s := target.Open(t, limit)
		defer func() {
			if err := s.Close(); err != nil {
				rt.Errorf("close: %v", err)
			}
		}()
		model := make(map[store.Key][]byte)
		for range rapid.IntRange(1, 8).Draw(rt, "batches") {
			var b store.Batch
			for range rapid.IntRange(0, 5).Draw(rt, "ops") {
				op := drawOp(rt, target.Large)
				b.Ops = append(b.Ops, op)
				if op.Delete {
					delete(model, op.Key)
				} else {
					model[op.Key] = op.Value
				}
			}
			if err := s.Apply(t.Context(), b); err != nil {
				rt.Fatalf("apply: %v", err)
			}
			if target.Reopen != nil && rapid.IntRange(0, 3).Draw(rt, "reopen") == 0 {
				s = target.Reopen(t, s)
			}
			compare(t, rt, s, model)
		}
	})
}

func drawOp(rt *rapid.T, large int) store.Op {
	fam := rapid.SampledFrom([]store.Family{store.Block, store.Head, store.Claim}).Draw(rt, "family")
	g := GUID(rapid.Uint64Range(0, 3).Draw(rt, "guid"))
	sub := ""
	if fam == store.Claim {
		sub = rapid.SampledFrom([]string{"", "a", "\xff"}).Draw(rt, "sub")
	}
	if rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
		return Delete(fam, g, sub)
	}
	n := rapid.SampledFrom([]int{0, 1, 300, large - 1, large}).Draw(rt, "size")
	return Put(fam, g, sub, Value(rapid.Uint64Range(0, 2).Draw(rt, "seed"), n))
}

func compare(t *testing.T, rt *rapid.T, s store.Store, model map[store.Key][]byte) {
	var used, blocks int64
	for k, v := range model {
		got, err := s.Get(t.Context(), k)
		if err != nil || !bytes.Equal(got, v) {
			rt.Fatalf("get %v: %d bytes, %v; want %d bytes", k, len(got), err, len(v))
		}
		used += store.Cost(k, len(v))
		if k.Family == store.Block {
			blocks++
		}
	}
	if u := s.Usage(); u.Used != used || u.Blocks != blocks {
		rt.Fatalf("usage %+v, want used %d, blocks %d", u, used, blocks)
	}
	for _, fam := range []store.Family{store.Block, store.Head, store.Claim} {
		var want, got []store.Key
		for k := range maps.Keys(model) {
			if k.Family == fam {
				want = append(want, k)
			}
		}
		slices.SortFunc(want, func(a, b store.Key) int {
			if c := a.GUID.Cmp(b.GUID); c != 0 {
				return c
			}
			return bytes.Compare([]byte(a.Sub), []byte(b.Sub))
		})
		err := s.Range(t.Context(), fam, id.GUID{}, GUID(1<<60), func(k store.Key, v []byte) bool {
			if fam != store.Block && !bytes.Equal(v, model[k]) {
				rt.Errorf("range: %v has a wrong value", k)
			}
			got = append(got, k)
			return true
		})
		if err != nil || !slices.Equal(got, want) {
			rt.Fatalf("range %c: %v, %v; want %v", fam, got, err, want)
		}
	}
}
