package diskstore

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// damaged makes a store in memory with three blocks: 1 inline, 2 and 3 in files.
func damaged(t testing.TB) (*vfs.MemFS, *Store, []store.Op) {
	disk := vfs.NewMem()
	s := mustOpen(t, "/store", testOptions(disk))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ops := []store.Op{
		storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, 500)),
		storetest.Put(store.Block, storetest.GUID(2), "", storetest.Value(2, testLarge)),
		storetest.Put(store.Block, storetest.GUID(3), "", storetest.Value(3, testLarge)),
	}
	for _, op := range ops {
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	return disk, s, ops
}

// stored returns what Pebble holds under a key.
func stored(t testing.TB, s *Store, k store.Key) []byte {
	t.Helper()
	b, closer, err := s.table.Get(appendKey(nil, k))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closer.Close() }()
	return bytes.Clone(b)
}

func overwrite(t testing.TB, s *Store, k store.Key, b []byte) {
	t.Helper()
	if err := s.table.Set(appendKey(nil, k), b, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

func wantCorrupt(t testing.TB, s *Store, op store.Op) {
	t.Helper()
	if v, err := s.Get(t.Context(), op.Key); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("get %v: %d bytes, %v; want corrupt", op.Key, len(v), err)
	}
}

// repaired puts the good value again and reads it back.
func repaired(t testing.TB, s *Store, op store.Op) {
	t.Helper()
	if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(t.Context(), op.Key); err != nil || !bytes.Equal(v, op.Value) {
		t.Errorf("repaired %v: %d bytes, %v", op.Key, len(v), err)
	}
}

// Any flipped bit of a stored record shows, and a put repairs it.
func TestFlippedBitInline(t *testing.T) {
	_, s, ops := damaged(t)
	good := stored(t, s, ops[0].Key)
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		overwrite(t, s, ops[0].Key, bad)
		wantCorrupt(t, s, ops[0])
		if i%97 == 0 {
			repaired(t, s, ops[0])
		}
	}
	repaired(t, s, ops[0])
}

func TestFlippedBitInRecordOfFile(t *testing.T) {
	_, s, ops := damaged(t)
	good := stored(t, s, ops[1].Key)
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		overwrite(t, s, ops[1].Key, bad)
		wantCorrupt(t, s, ops[1])
	}
	repaired(t, s, ops[1])
}

// file returns the bytes of the block file of a key.
func file(t testing.TB, disk *vfs.MemFS, s *Store, k store.Key) (path string, b []byte) {
	t.Helper()
	r, _, err := parseEnvelope(s.tag, appendKey(nil, k), stored(t, s, k))
	if err != nil || r.form != formFile {
		t.Fatalf("%v is not in a file: %v", k, err)
	}
	path = s.blocks.path(r.file)
	b, err = disk.UnsafeGetFileDataBuffer(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, b
}

func TestFlippedBitInFile(t *testing.T) {
	disk, s, ops := damaged(t)
	_, b := file(t, disk, s, ops[1].Key)
	for at := 0; at < len(b); at += 1 + at/10 {
		b[at] ^= 0x10
		wantCorrupt(t, s, ops[1])
		b[at] ^= 0x10
	}
	b[3000] ^= 1
	repaired(t, s, ops[1])
}

// A value that does not have the name it is said to have was not hashed on its
// way to disk, and is damaged for whoever reads it.
func TestNamedWrongly(t *testing.T) {
	s := mustOpen(t, "/store", testOptions(vfs.NewMem()))
	defer s.Close()
	for i, n := range []int{500, testLarge - 1, testLarge} {
		op := storetest.Put(store.Block, storetest.GUID(uint64(i)), "", storetest.Value(1, n))
		op.Named = true
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
		wantCorrupt(t, s, op)
		op.Named = false
		repaired(t, s, op)
	}
}

// Writes that landed elsewhere: a sound value under a wrong key.
func TestMisdirected(t *testing.T) {
	disk, s, ops := damaged(t)
	a, b, c := stored(t, s, ops[0].Key), stored(t, s, ops[1].Key), stored(t, s, ops[2].Key)
	overwrite(t, s, ops[0].Key, b)
	wantCorrupt(t, s, ops[0])
	overwrite(t, s, ops[1].Key, a)
	wantCorrupt(t, s, ops[1])
	overwrite(t, s, ops[0].Key, a)
	overwrite(t, s, ops[1].Key, b)
	overwrite(t, s, ops[2].Key, c)

	_, f1 := file(t, disk, s, ops[1].Key)
	_, f2 := file(t, disk, s, ops[2].Key)
	copy(f1, f2)
	wantCorrupt(t, s, ops[1])
	repaired(t, s, ops[1])
	repaired(t, s, ops[2])
}

// A value of another pool's store is not ours.
func TestForeignPool(t *testing.T) {
	_, s, ops := damaged(t)
	b := stored(t, s, ops[0].Key)
	b[2]++
	overwrite(t, s, ops[0].Key, b)
	wantCorrupt(t, s, ops[0])
}

// A file shortened, or gone.
func TestLostFile(t *testing.T) {
	disk, s, ops := damaged(t)
	path, b := file(t, disk, s, ops[1].Key)
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(b[:len(b)-1])); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	wantCorrupt(t, s, ops[1])
	if err := disk.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantCorrupt(t, s, ops[1])
	repaired(t, s, ops[1])
}

// Range leaves out what is damaged, hands over the rest and says so.
func TestRangeOverDamage(t *testing.T) {
	_, s, _ := damaged(t)
	for i := range uint64(5) {
		op := storetest.Put(store.Head, storetest.GUID(i), "", []byte("head"))
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	k := store.Key{Family: store.Head, GUID: storetest.GUID(2)}
	b := stored(t, s, k)
	b[len(b)-1] ^= 1
	overwrite(t, s, k, b)
	n := 0
	lo, hi := everything()
	err := s.Range(t.Context(), store.Head, lo, hi, func(store.Key, []byte) bool { n++; return true })
	if n != 4 || !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%d records, %v", n, err)
	}
}

// Records that cannot be read for a while are replaced and removed all the
// same: what was removed stays so, and the next start knows what is used.
func TestUnreadableRecords(t *testing.T) {
	disk := vfs.NewMem()
	f := &fault{from: 1, until: 1 << 60, err: syscall.EIO, match: func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst")
	}}
	o := testOptions(faulty(disk, f))
	s := mustOpen(t, "/store", o)
	var ops []store.Op
	for i, size := range []int{300, 5000, testLarge, 300, 5000, testLarge} {
		ops = append(ops, storetest.Put(store.Block, storetest.GUID(uint64(i)), "", storetest.Value(uint64(i), size)))
	}
	apply(t, s, ops...)
	if err := s.table.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Cache = 1 // every look reads
	s = mustOpen(t, "/store", o)
	f.on.Store(true)
	for i := range 3 {
		apply(t, s, storetest.Delete(store.Block, storetest.GUID(uint64(i)), ""))
		ops[i+3].Value = storetest.Value(9, 100)
		apply(t, s, ops[i+3])
	}
	f.on.Store(false)
	if f.hits.Load() == 0 {
		t.Fatal("nothing was unreadable")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first start counts anew, the second believes it
		s = mustOpen(t, "/store", o)
		for i := range 3 {
			if _, err := s.Get(t.Context(), ops[i].Key); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("removed block %d: %v", i, err)
			}
			wantValue(t, s, ops[i+3])
		}
		apply(t, s, storetest.Put(store.Head, storetest.GUID(1), "", []byte("x")))
		if err := checkFiles(s); err != nil {
			t.Error(err)
		}
		if n := len(blockPaths(t, disk, "/store")) + len(segmentFiles(t, disk)); n != 0 {
			t.Errorf("%d files are left that hold nothing", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Files no record names go at the next start; what is not ours stays.
func TestSweep(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(disk)
	s := mustOpen(t, "/store", o)
	op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, testLarge))
	if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
	key := appendKey(nil, op.Key)
	for range 3 {
		if _, err := s.blocks.write(key, op.Value, checksum(op.Value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"000000000000000f.tmp", "00000000000000ff.blk", "notes.txt"} {
		f, err := disk.Create("/store/blocks/0000000000/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.MkdirAll("/store/blocks/0000000007", 0o700); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "/store", o)
	if paths := blockPaths(t, disk, "/store"); len(paths) != 1 {
		t.Errorf("left: %v", paths)
	}
	names, err := disk.List("/store/blocks/0000000000")
	if err != nil || len(names) != 2 {
		t.Errorf("left: %v, %v", names, err)
	}
	if shards, err := disk.List("/store/blocks"); err != nil || len(shards) != 1 {
		t.Errorf("folders left: %v, %v", shards, err)
	}
	if v, err := s.Get(t.Context(), op.Key); err != nil || !bytes.Equal(v, op.Value) {
		t.Errorf("the live block: %d bytes, %v", len(v), err)
	}
	if missing, _ := s.Damage(); missing != 0 {
		t.Errorf("%d files missing", missing)
	}
	// A number once seen is not used again.
	if n := s.blocks.next.Load(); n != 0x100 {
		t.Errorf("next number %#x, want 0x100", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The files of deleted and overwritten blocks are deleted.
func TestFilesAreDeleted(t *testing.T) {
	disk, s, _ := damaged(t)
	for i, b := range []store.Op{
		storetest.Delete(store.Block, storetest.GUID(2), ""),
		storetest.Put(store.Block, storetest.GUID(3), "", storetest.Value(9, testLarge)),
	} {
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{b}}); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := s.Close(); err != nil { // the remover is done
		t.Fatal(err)
	}
	if paths := blockPaths(t, disk, "/store"); len(paths) != 1 {
		t.Errorf("left: %v", paths)
	}
}
