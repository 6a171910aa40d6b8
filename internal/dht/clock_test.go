package dht

import (
	"errors"
	"testing"
)

// A removal dated before the put, by a clock that was set back, would end
// nothing: it is refused, with the stamp that a new one must be above.
func TestRemoveDatedBeforePut(t *testing.T) {
	w := newWorld(t, LAN())
	w.grow(5)
	w.run(time20)
	b := w.fill(1)[0]
	c := w.removeCmd(b, 1)
	c.Rec.Stamp = 1
	sign := func() { c.Rec.SignWith(signer(w.owner)) }
	sign()
	for _, x := range w.nodes {
		_, err := w.do(x, c)
		var r *Refusal
		if !errors.As(err, &r) || r.Code != CodeStaleSeq || r.Stamp <= 1 {
			t.Fatalf("a removal dated before the put: %v", err)
		}
		w.get(x, b)
		c.Rec.Stamp = r.Stamp - 1
		sign()
	}
	c.Rec.Stamp += 2
	sign()
	if _, err := w.do(w.nodes[0], c); err != nil {
		t.Fatal(err)
	}
	w.getErr(w.nodes[1], b, ErrRemoved)
}
