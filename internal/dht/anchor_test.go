package dht

import (
	"errors"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// youngSet makes a pool of six elders and, nearest to b, three newcomers, and
// returns the elders nearest to b.
func youngSet(t *testing.T, b []byte) (w *world, elders []*tnodeT) {
	w = newWorld(t, LAN())
	w.grow(6)
	elders = w.set(b)
	w.young = make(map[id.GUID]bool)
	for i, digits := 0, GUIDOf(b).String()[:5]; i < 3; i++ {
		x := w.at(digits + string("048"[i]))
		w.young[x.h.GUID] = true
		w.boot(x)
		w.run(machine.Second)
	}
	for _, x := range w.set(b) {
		if !w.young[x.h.GUID] {
			t.Fatal("the set is not of newcomers alone")
		}
	}
	return w, elders
}

// Newcomers of whom the other side of a split may not have heard do not
// acknowledge alone: one of the elders nearest to the key has a copy too.
func TestNewcomersDoNotAcknowledgeAlone(t *testing.T) {
	b := block(77, 3000)
	w, elders := youngSet(t, b)
	w.put(elders[0], b)
	if !slices.ContainsFunc(w.holders(b), func(x *tnodeT) bool { return slices.Contains(elders, x) }) {
		t.Error("acknowledged by newcomers alone")
	}

	w, elders = youngSet(t, b)
	client := w.outsider(b)
	for slices.Contains(elders, client) {
		client = w.nodes[slices.Index(w.nodes, client)+1]
	}
	for _, x := range elders {
		w.crash(x)
	}
	if _, err := w.do(client, w.putCmd(b, 1)); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("put with newcomers only within reach: %v, want no_quorum", err)
	}
}

// One elder out of reach may be the only one who knows of a put on the other side.
func TestNotFoundNeedsTheElders(t *testing.T) {
	b := block(77, 3000)
	w, elders := youngSet(t, b)
	client := w.set(b)[0]
	w.getErr(client, b, ErrNotFound)
	w.crash(elders[1])
	w.getErr(client, b, ErrUnavailable)
}
