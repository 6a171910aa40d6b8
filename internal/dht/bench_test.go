package dht

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// benchWorld has signatures that cost nothing, so that the machine's own work
// shows, and hands messages over without the codec.
func benchWorld(b *testing.B) *world {
	w := newWorld(b, LAN())
	w.net.Decode = nil
	w.verify = func([32]byte, string, []byte, [64]byte) bool { return true }
	w.usageOff = true
	w.grow(8)
	return w
}

// BenchmarkPut is one put of 4 KiB through client, coordinator and three
// replicas, with receipts signed for real and nothing verified.
func BenchmarkPut(b *testing.B) {
	w := benchWorld(b)
	cmds := make([]PutCmd, b.N)
	for i := range cmds {
		blk := block(uint64(i), 4096)
		cmds[i] = PutCmd{Cert: NewStoreCert(w.pool, GUIDOf(blk), pub(w.owner), [16]byte{1}, len(blk), 3, uint64(w.wall())), Block: blk}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range cmds {
		if _, err := w.do(w.nodes[i%8], cmds[i]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGet is one get of a 1 MiB block from another node, hash included.
func BenchmarkGet(b *testing.B) {
	w := benchWorld(b)
	blk := block(1, 1<<20)
	w.put(w.nodes[0], blk)
	w.run(machine.Second)
	x := w.outsider(blk)
	b.SetBytes(int64(len(blk)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		w.get(x, blk)
	}
}

// BenchmarkRebuild is one change in a leaf set of 33.
func BenchmarkRebuild(b *testing.B) {
	w := newWorld(b, LAN())
	w.grow(33)
	n := w.nodes[0].n
	b.ResetTimer()
	for range b.N {
		n.circle = circle{}
		n.rebuild()
	}
}

// BenchmarkIndexMemory reports the bytes of memory per block remembered.
func BenchmarkIndexMemory(b *testing.B) {
	const blocks = 200_000
	for range b.N {
		var o owners
		var t tree
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		owner := o.num([32]byte{1})
		for i := range uint64(blocks) {
			e := &entry{guid: id.GUID(blake3.Sum256(binary.BigEndian.AppendUint64(nil, i))), flags: flagHave, size: 4096}
			e.set(claim{owner: owner, stamp: i})
			e.tag = o.tagOf(e)
			t.insert(e)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/blocks, "B/block")
		if t.len() != blocks {
			b.Fatal("lost")
		}
	}
}
