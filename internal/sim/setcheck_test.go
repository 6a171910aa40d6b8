package sim

import (
	"strings"
	"testing"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

func TestSetChecker(t *testing.T) {
	owner, other := [32]byte{1}, [32]byte{2}
	type world struct {
		s    *setChecker
		b    *blockModel
		told []string
	}
	for _, c := range []struct {
		name string
		do   func(w *world)
		want string // "" : no complaint
	}{
		{"ack on W disks", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 2, false)
		}, ""},
		{"ack on one disk", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 2, false)
		}, "bytes durable on 1"},
		{"claim on one disk", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 1, false)
		}, "claim durable on 1"},
		{"copy dropped", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 2, false)
			w.s.onDisk(2, w.b.guid, false, false)
		}, "deleted a copy"},
		{"copies destroyed", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 2, false)
			w.s.onDisk(2, w.b.guid, false, true)
			w.s.onDisk(1, w.b.guid, false, true)
			w.s.lost()
		}, "no disk has"},
		{"removed, then its copies go", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 2, false)
			w.b.claim(owner, [16]byte{}).removeAsked = 11
			w.s.removeAcked(w.b, owner, [16]byte{}, 11, 2)
			w.s.onDisk(1, w.b.guid, false, false)
			w.s.onDisk(2, w.b.guid, false, false)
			if !w.b.gone() || w.b.must() || w.s.lost() != 0 {
				w.told = append(w.told, "not gone")
			}
		}, ""},
		{"another claim keeps it", func(w *world) {
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 10, 2, false)
			w.s.asked(w.b.bytes, other, [16]byte{}, 10)
			w.s.acked(w.b, other, [16]byte{}, 10, 2, false)
			w.b.claim(owner, [16]byte{}).removeAsked = 11
			w.s.removeAcked(w.b, owner, [16]byte{}, 11, 2)
			w.s.onDisk(1, w.b.guid, false, false)
		}, "deleted a copy"},
		{"put again after removal", func(w *world) {
			w.b.claim(owner, [16]byte{}).removeAsked = 11
			w.s.removeAcked(w.b, owner, [16]byte{}, 11, 2)
			w.s.asked(w.b.bytes, owner, [16]byte{}, 12)
			if w.b.gone() {
				w.told = append(w.told, "gone")
			}
			w.s.onDisk(1, w.b.guid, true, false)
			w.s.onDisk(2, w.b.guid, true, false)
			w.s.acked(w.b, owner, [16]byte{}, 12, 2, false)
			if !w.b.must() {
				w.told = append(w.told, "not kept")
			}
		}, ""},
		{"tombstone on one disk", func(w *world) {
			w.s.removeAcked(w.b, owner, [16]byte{}, 11, 1)
		}, "tombstone durable on 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{}
			w.s = newSetChecker(3, func(kind, what string) { w.told = append(w.told, kind+": "+what) })
			w.b = w.s.asked([]byte("a block"), owner, [16]byte{}, 10)
			c.do(w)
			all := strings.Join(w.told, "\n")
			if c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("told %q, want %q", all, c.want)
			}
		})
	}
}

func TestRegisterChecker(t *testing.T) {
	var told []string
	fail := func(kind, _ string) { told = append(told, kind) }
	r := &regChecker{fail: fail, note: func(string) {}}
	m := &regModel{stable: true, values: map[uint64][][32]byte{1: {{1}, {2}}, 2: {{3}}}, acked: map[uint64][32]byte{}, seen: map[Ref]uint64{}}
	r.wrote(m, 1, [32]byte{1})
	r.read(m, 1, 1, 1, [32]byte{1})
	r.wrote(m, 2, [32]byte{3})
	if len(told) != 0 {
		t.Fatalf("complaints about a right history: %v", told)
	}
	r.wrote(m, 1, [32]byte{2})
	r.read(m, 1, 2, 1, [32]byte{1})
	r.read(m, 1, 2, 2, [32]byte{9})
	if strings.Join(told, ",") != "fork,stale read,wrong bytes" {
		t.Fatalf("told %v", told)
	}
}

func TestRegistersOnDisks(t *testing.T) {
	var told []string
	r := &regChecker{fail: func(kind, _ string) { told = append(told, kind) }, note: func(string) {}}
	m := &regModel{guid: dht.SignedGUID([32]byte{1}, nil), disks: make(map[Ref]uint64)}
	r.regs = append(r.regs, m)
	d := newDisk()
	d.signed = func(g id.GUID, record []byte) { r.onDisk(1, g, record) }
	write := func(seq uint64) {
		k := store.Key{Family: store.Signed, GUID: m.guid}
		d.apply(store.Batch{Ops: []store.Op{{Key: k, Value: dht.Encode(&dht.Signed{Owner: [32]byte{1}, Seq: seq})}}})
	}
	write(1)
	write(3)
	write(3)
	if len(told) != 0 {
		t.Fatalf("complaints about a seq that rises: %v", told)
	}
	var fc FaultCounts
	k, ok := d.rot(testRand(), &fc)
	if !ok || k.Family != store.Signed {
		t.Fatalf("%v rotted", k)
	}
	write(2)
	if strings.Join(told, ",") != "seq fell" {
		t.Fatalf("told %v", told)
	}
	told = nil
	d.rot(testRand(), &fc)
	r.forget(1, d)
	write(1)
	if len(told) != 0 {
		t.Fatalf("complaints about a node that starts without the record: %v", told)
	}
}

func TestRotAndUsage(t *testing.T) {
	d := newDisk()
	d.limit = 1000
	d.apply(store.Batch{Ops: []store.Op{{Key: store.Key{Family: store.Block}, Value: make([]byte, 100)}}})
	var fc FaultCounts
	k, ok := d.rot(testRand(), &fc)
	if !ok || fc[FaultBitRot] != 1 {
		t.Fatal("nothing rotted")
	}
	if _, err := d.get([]store.Key{k}); err != store.ErrCorrupt {
		t.Fatalf("rotten block reads: %v", err)
	}
	if u := d.usage(); u.Used != 100 || u.Blocks != 1 || u.Free != 1000-100-50 {
		t.Fatalf("usage %+v", u)
	}
	if _, err := d.submit(1, k.GUID, store.Batch{Ops: []store.Op{{Key: store.Key{Family: store.Head}, Value: make([]byte, 900)}}}, 1, 0, testRand(), &fc); err != store.ErrFull {
		t.Fatalf("overfull disk: %v", err)
	}
}
