package roster

import (
	"fmt"
	"testing"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenBytes: entries are signed once and kept for ever.
func TestGoldenBytes(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(100, l.joined(2)...)
	entry := func(name string, b []byte) wiretest.Sample {
		e, err := Parse(b)
		check(t, err)
		return wiretest.Sample{Name: name, Value: e, Bytes: e.Encode(), Decode: wiretest.Decoder(Parse)}
	}
	samples := []wiretest.Sample{
		entry("entry certificate", CertEntry(l.member(100, 2))),
		entry("entry ready", l.ready(2, 3, 4)),
		entry("entry left", l.left(2, 3, 5)),
		entry("entry revoked by an admin", l.revoke(r, 100, 2)),
		entry("entry revoked by the root key", l.revoke(r, 1, 100)),
		{Name: "roster on disk", Value: r.SetDigest(), Bytes: r.Encode(), Decode: func(b []byte) (any, error) {
			again := New(Config{}, l.pool)
			err := again.Restore(b)
			return again.SetDigest(), err
		}},
	}
	have := &Have{Answer: true, Tags: []Tag{{0, 1}, {0, 2}, {9}}}
	have.set(0)
	have.set(9)
	sums := &Buckets{}
	for i := range sums.Sums {
		sums.Sums[i] = Tag{byte(i), 1}
	}
	for _, m := range []machine.Message{
		&Compare{Sum: [32]byte{1}, Count: 3}, sums, have, &Entries{Push: true, Entries: [][]byte{{1}, {2, 3}}},
	} {
		var w wire.Writer
		machine.AppendMessage(&w, m)
		samples = append(samples, wiretest.Sample{
			Name: fmt.Sprintf("message %d %T", m.Kind(), m), Value: m, Bytes: w.B, Decode: wiretest.Decoder(Decode),
		})
	}
	wiretest.Bytes(t, "roster", samples)
}
