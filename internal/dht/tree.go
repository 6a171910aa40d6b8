package dht

import (
	"bytes"
	"math/bits"
	"sort"

	"atoll.example/atoll/internal/id"
)

// sum128 is a number modulo 2^128.
type sum128 struct{ hi, lo uint64 }

func (a sum128) add(b sum128) sum128 {
	lo, c := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, c)
	return sum128{hi, lo}
}

func (a sum128) sub(b sum128) sum128 {
	lo, c := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, c)
	return sum128{hi, lo}
}

func (d *digest) add(e digest) {
	d.sum = d.sum.add(e.sum)
	d.count += e.count
}

// leafItems is how many entries a leaf of the tree holds before it splits.
// Chosen between memory (a leaf's slice wastes up to half) and the cost of
// shifting: 64 pointers are half a kilobyte.
const leafItems = 64

// tree holds the entries of this node in order of GUID: a trie of 16-way
// branches over the GUID's digits, each branch with the digest of what lies
// below it. Looking up, changing a tag, and the digest of any range cost one
// or two paths.
type tree struct{ root tnode }

type tnode struct {
	d     digest
	kids  *[16]*tnode
	items []*entry // of a leaf, in order
}

func (t *tree) len() int { return int(t.root.d.count) }

func search(items []*entry, g *id.GUID) int {
	return sort.Search(len(items), func(i int) bool { return bytes.Compare(items[i].guid[:], g[:]) >= 0 })
}

func (t *tree) get(g id.GUID) *entry {
	n := &t.root
	for row := 0; n.kids != nil; row++ {
		if n = n.kids[g.Digit(row)]; n == nil {
			return nil
		}
	}
	if i := search(n.items, &g); i < len(n.items) && n.items[i].guid == g {
		return n.items[i]
	}
	return nil
}

// insert adds e, whose GUID is not in the tree; its tag is counted as it is.
func (t *tree) insert(e *entry) {
	n, row := &t.root, 0
	for ; n.kids != nil; row++ {
		n.d.add(digest{e.tag, 1})
		k := &n.kids[e.guid.Digit(row)]
		if *k == nil {
			*k = &tnode{}
		}
		n = *k
	}
	n.d.add(digest{e.tag, 1})
	i := search(n.items, &e.guid)
	if i < len(n.items) && n.items[i].guid == e.guid {
		panic("dht: entry inserted twice: " + e.guid.String())
	}
	n.items = append(n.items, nil)
	copy(n.items[i+1:], n.items[i:])
	n.items[i] = e
	if len(n.items) > leafItems && row < id.Digits-1 {
		n.split(row)
	}
}

func (n *tnode) split(row int) {
	n.kids = new([16]*tnode)
	for _, e := range n.items {
		k := &n.kids[e.guid.Digit(row)]
		if *k == nil {
			*k = &tnode{items: make([]*entry, 0, leafItems/4)}
		}
		(*k).items = append((*k).items, e)
		(*k).d.add(digest{e.tag, 1})
	}
	n.items = nil
}

// remove takes e out.
func (t *tree) remove(e *entry) {
	n := &t.root
	for row := 0; ; row++ {
		n.d.sum = n.d.sum.sub(e.tag)
		n.d.count--
		if n.kids == nil {
			break
		}
		k := &n.kids[e.guid.Digit(row)]
		if *k == nil {
			panic("dht: entry removed twice: " + e.guid.String())
		}
		if (*k).d.count == 1 {
			*k = nil
			if n.d.count == 0 {
				n.kids = nil
			}
			return
		}
		n = *k
	}
	i := search(n.items, &e.guid)
	n.items = append(n.items[:i], n.items[i+1:]...)
}

// retag replaces the tag of e.
func (t *tree) retag(e *entry, tag sum128) {
	n := &t.root
	for row := 0; ; row++ {
		n.d.sum = n.d.sum.sub(e.tag).add(tag)
		if n.kids == nil {
			break
		}
		n = n.kids[e.guid.Digit(row)]
	}
	e.tag = tag
}

var maxGUID = func() (g id.GUID) {
	for i := range g {
		g[i] = 0xff
	}
	return g
}()

// digest sums up [lo, hi], both inclusive.
func (t *tree) digest(lo, hi id.GUID) digest {
	var d digest
	t.root.digest(id.GUID{}, 0, &lo, &hi, &d)
	return d
}

// digest: n covers the GUIDs that share base's first row digits.
func (n *tnode) digest(base id.GUID, row int, lo, hi *id.GUID, d *digest) {
	if n.d.count == 0 {
		return
	}
	last := ceil(base, row)
	if bytes.Compare(last[:], lo[:]) < 0 || bytes.Compare(hi[:], base[:]) < 0 {
		return
	}
	if bytes.Compare(lo[:], base[:]) <= 0 && bytes.Compare(last[:], hi[:]) <= 0 {
		d.add(n.d)
		return
	}
	if n.kids == nil {
		for i := search(n.items, lo); i < len(n.items); i++ {
			e := n.items[i]
			if bytes.Compare(e.guid[:], hi[:]) > 0 {
				break
			}
			d.add(digest{e.tag, 1})
		}
		return
	}
	for i, k := range n.kids {
		if k != nil {
			k.digest(base.WithDigit(row, i), row+1, lo, hi, d)
		}
	}
}

// ceil is the last GUID that shares g's first row digits.
func ceil(g id.GUID, row int) id.GUID {
	i := row / 2
	if row%2 == 1 {
		g[i] |= 0x0f
		i++
	}
	for ; i < len(g); i++ {
		g[i] = 0xff
	}
	return g
}

// floor is the first GUID that shares g's first row digits.
func floor(g id.GUID, row int) id.GUID {
	i := row / 2
	if row%2 == 1 {
		g[i] &= 0xf0
		i++
	}
	for ; i < len(g); i++ {
		g[i] = 0
	}
	return g
}

// walk calls f for the entries of [lo, hi] in order until f returns false. The
// tree must not change meanwhile.
func (t *tree) walk(lo, hi id.GUID, f func(*entry) bool) {
	t.root.walk(id.GUID{}, 0, &lo, &hi, f)
}

func (n *tnode) walk(base id.GUID, row int, lo, hi *id.GUID, f func(*entry) bool) bool {
	if n.d.count == 0 {
		return true
	}
	if last := ceil(base, row); bytes.Compare(last[:], lo[:]) < 0 {
		return true
	}
	if bytes.Compare(hi[:], base[:]) < 0 {
		return false
	}
	if n.kids == nil {
		for i := search(n.items, lo); i < len(n.items); i++ {
			if bytes.Compare(n.items[i].guid[:], hi[:]) > 0 || !f(n.items[i]) {
				return false
			}
		}
		return true
	}
	for i, k := range n.kids {
		if k != nil && !k.walk(base.WithDigit(row, i), row+1, lo, hi, f) {
			return false
		}
	}
	return true
}

// split divides [lo, hi] into up to 16 parts at the first digit in which lo
// and hi differ. Part i is empty if ok is false.
func split(lo, hi id.GUID, i int) (a, b id.GUID, ok bool) {
	row := id.CommonDigits(lo, hi)
	if row >= id.Digits {
		return lo, hi, i == 0
	}
	d := floor(lo, row).WithDigit(row, i)
	a, b = floor(d, row+1), ceil(d, row+1)
	if a.Less(lo) {
		a = lo
	}
	if hi.Less(b) {
		b = hi
	}
	return a, b, !b.Less(a)
}

// kids are the digests of the parts of [lo, hi].
func (t *tree) kids(lo, hi id.GUID) (k kids) {
	for i := range k {
		if a, b, ok := split(lo, hi, i); ok {
			k[i] = t.digest(a, b)
		}
	}
	return k
}
