package pastry

import (
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
)

// TestPeersKeepReferences: whatever goes and whatever room is given back, a
// reference means the same peer, the one freed last is given next, and what is
// free is nobody.
func TestPeersKeepReferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPeers()
		live := map[uint32]*id.Handle{}
		var free []uint32
		made := 0
		for range rapid.IntRange(1, 300).Draw(t, "operations") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				p.fit()
			case 1, 2, 3:
				for r := range p.end() { // in order, as the sweep does
					if live[r] != nil {
						p.remove(r)
						delete(live, r)
						free = append(free, r)
						break
					}
				}
			default:
				h := handle(guidN(made), 1)
				made++
				r, want := p.add(h), p.end()-1
				if n := len(free); n > 0 {
					want, free = free[n-1], free[:n-1]
				}
				if r != want {
					t.Fatalf("reference %d, want %d", r, want)
				}
				live[r] = h
			}
			for r := range p.end() {
				if got := p.at(r).h; got != live[r] {
					t.Fatalf("reference %d is %v, want %v", r, got, live[r])
				}
				if h := live[r]; h != nil && p.find(h.GUID) != r {
					t.Fatalf("%s is not found under %d", h.GUID.Short(), r)
				}
			}
			if len(p.list) != len(live)+1 || p.index.Len() != len(live) {
				t.Fatalf("%d records, %d indexed, %d peers", len(p.list)-1, p.index.Len(), len(live))
			}
		}
	})
}
