package sim

import (
	"slices"

	"atoll.example/atoll/internal/id"
)

// ring is the oracle's view of the ring: the nodes that may deliver, by GUID.
type ring struct{ at []ringEntry }

type ringEntry struct {
	g id.GUID
	n Ref
}

func (r *ring) find(g id.GUID) (int, bool) {
	return slices.BinarySearchFunc(r.at, g, func(e ringEntry, g id.GUID) int { return e.g.Cmp(g) })
}

func (r *ring) add(g id.GUID, n Ref) {
	if i, ok := r.find(g); !ok {
		r.at = slices.Insert(r.at, i, ringEntry{g, n})
	}
}

func (r *ring) remove(g id.GUID) {
	if i, ok := r.find(g); ok {
		r.at = slices.Delete(r.at, i, i+1)
	}
}

func (r *ring) has(g id.GUID) bool {
	_, ok := r.find(g)
	return ok
}

func (r *ring) len() int { return len(r.at) }

// root returns the node nearest to key among those that ok accepts (nil: all),
// World if there is none.
func (r *ring) root(key id.GUID, ok func(Ref) bool) Ref {
	n := len(r.at)
	i, _ := r.find(key)
	var best ringEntry
	try := func(step int) {
		for k := range n {
			j := i + step*k
			if step < 0 {
				j--
			}
			e := r.at[((j%n)+n)%n]
			if ok != nil && !ok(e.n) {
				continue
			}
			if best.n == World || id.CmpDist(key, e.g, best.g) < 0 {
				best = e
			}
			return
		}
	}
	try(1)
	try(-1)
	return best.n
}

// sides returns the up to h nodes before and after g that ok accepts, nearest
// first, without g itself. On a ring of at most 2h others a node may stand on
// both sides.
func (r *ring) sides(g id.GUID, h int, ok func(Ref) bool) (left, right []id.GUID) {
	n := len(r.at)
	i, has := r.find(g)
	walk := func(step int) (s []id.GUID) {
		j := i
		if !has && step > 0 {
			j--
		}
		for k := 1; k <= n && len(s) < h; k++ {
			e := r.at[(((j+step*k)%n)+n)%n]
			if e.g == g {
				break
			}
			if ok == nil || ok(e.n) {
				s = append(s, e.g)
			}
		}
		return s
	}
	return walk(-1), walk(1)
}

// prefixRange returns the positions [lo, hi) of the nodes that share the first
// digits digits with g.
func (r *ring) prefixRange(g id.GUID, digits int) (lo, hi int) {
	first, last := g, g
	for p := digits; p < id.Digits; p++ {
		first, last = first.WithDigit(p, 0), last.WithDigit(p, 15)
	}
	lo, _ = r.find(first)
	hi, found := r.find(last)
	if found {
		hi++
	}
	return lo, hi
}
