package id

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

type guids []GUID

func (g guids) GUIDAt(n uint32) *GUID { return &g[n] }

// TestIndexIsAMap: the index finds what a map finds. Few prefixes, so that
// numbers crowd together.
func TestIndexIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x Index
		in := guids{{}}
		model := map[GUID]uint32{}
		some := func() GUID {
			g := GUID{}
			g[7] = rapid.Byte().Draw(t, "prefix") % 40
			g[Size-1] = rapid.Byte().Draw(t, "rest") % 3
			return g
		}
		for range rapid.IntRange(1, 300).Draw(t, "operations") {
			g := some()
			n, have := model[g]
			switch {
			case !have:
				in = append(in, g)
				n = uint32(len(in) - 1)
				model[g] = n
				x.Add(n, in)
			case rapid.Bool().Draw(t, "remove"):
				x.Remove(n, in)
				delete(model, g)
				x.Remove(n, in) // out already
				x.Fit(in)
			}
			g = some()
			if got := x.Find(&g, in); got != model[g] || x.Len() != len(model) {
				t.Fatalf("%s is number %d of %d, want %d of %d", g.Short(), got, x.Len(), model[g], len(model))
			}
			alike, last := 0, uint32(0)
			for h, n := range model {
				if [8]byte(h[:8]) == [8]byte(g[:8]) {
					alike, last = alike+1, n
				}
			}
			got, matches := x.FindPrefix(binary.BigEndian.Uint64(g[:8]), in)
			if matches != min(2, alike) || matches == 1 && got != last || matches != 1 && got != 0 {
				t.Fatalf("prefix of %s: number %d, %d matches, want %d, %d", g.Short(), got, matches, last, alike)
			}
		}
	})
}
