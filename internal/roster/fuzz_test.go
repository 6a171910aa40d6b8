package roster

import (
	"bytes"
	"testing"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

func FuzzEntry(f *testing.F) {
	l := newLagoon(f)
	r := l.roster(100, l.joined(2)...)
	for _, e := range append(l.joined(2), l.left(2, 1, 1), l.revoke(r, 100, 2), l.revoke(r, 1, 100)) {
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(e.Encode(), b) {
			t.Errorf("re-encodes to other bytes:\n%x\n%x", b, e.Encode())
		}
		_, _ = r.Add(b)
	})
}

func FuzzMessage(f *testing.F) {
	l := newLagoon(f)
	h := &Have{Tags: []Tag{{0, 1}, {0, 2}, {9}}}
	h.set(0)
	h.set(9)
	for _, m := range []machine.Message{&Compare{Count: 3}, &Buckets{}, h, &Entries{Push: true, Entries: l.joined(2)}} {
		var w wire.Writer
		machine.AppendMessage(&w, m)
		f.Add(w.B)
	}
	r := l.roster(100, l.joined(2)...)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		var w wire.Writer
		machine.AppendMessage(&w, m)
		if !bytes.Equal(w.B, b) {
			t.Errorf("re-encodes to other bytes:\n%x\n%x", b, w.B)
		}
		r.Step(1, machine.Event{Kind: machine.Receive, From: handle(2, 1), Msg: m}, nil)
	})
}

func FuzzRestore(f *testing.F) {
	l := newLagoon(f)
	f.Add(l.roster(100, l.joined(2)...).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := New(Config{}, l.pool)
		if r.Restore(b) != nil {
			return
		}
		again := New(Config{}, l.pool)
		if err := again.Restore(r.Encode()); err != nil || !bytes.Equal(again.Encode(), r.Encode()) {
			t.Errorf("a roster that was restored cannot be again: %v", err)
		}
	})
}
