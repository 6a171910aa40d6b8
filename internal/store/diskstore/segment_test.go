package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"
	"syscall"
	"testing"

	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// inSegments makes a store in memory with n blocks of one size in segments.
func inSegments(t testing.TB, o Options, n, size int) (*Store, []store.Op) {
	s := mustOpen(t, "/store", o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var ops []store.Op
	for i := range uint64(n) {
		ops = append(ops, storetest.Put(store.Block, storetest.GUID(i), "", storetest.Value(i, size)))
		apply(t, s, ops[i])
		if r := recordOf(t, s, ops[i].Key); r.form != formSegment {
			t.Fatalf("block %d has form %d", i, r.form)
		}
	}
	return s, ops
}

func apply(t testing.TB, s *Store, ops ...store.Op) {
	t.Helper()
	if err := s.Apply(t.Context(), store.Batch{Ops: ops}); err != nil {
		t.Fatal(err)
	}
}

func recordOf(t testing.TB, s *Store, k store.Key) *record {
	t.Helper()
	r, _, err := s.lookup(appendKey(nil, k))
	if err != nil {
		t.Fatalf("record of %v: %v", k, err)
	}
	return r
}

func wantValue(t testing.TB, s *Store, op store.Op) {
	t.Helper()
	if v, err := s.Get(t.Context(), op.Key); err != nil || !bytes.Equal(v, op.Value) {
		t.Errorf("get %v: %d bytes, %v", op.Key, len(v), err)
	}
}

// segmentFiles lists the segments of /store.
func segmentFiles(t testing.TB, f vfs.FS) (names []string) {
	t.Helper()
	all, err := f.List("/store/" + segmentsName)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if isSegment(name) {
			names = append(names, name)
		}
	}
	return names
}

// Most of many blocks go: their segments are emptied and deleted, and what is
// left stays readable all the time.
func TestGarbageIsCollected(t *testing.T) {
	disk := vfs.NewMem()
	const n, size = 200, 5000
	s, ops := inSegments(t, testOptions(disk), n, size)
	full := len(segmentFiles(t, disk))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for i := 0; ; i += 10 {
			select {
			case <-stop:
				return
			default:
				wantValue(t, s, ops[i%n])
			}
		}
	})
	for i := range ops {
		if i%10 != 0 {
			apply(t, s, storetest.Delete(store.Block, ops[i].Key.GUID, ""))
		}
	}
	// Twenty blocks are left, in three segments if they were packed; half of a
	// segment may be garbage. The collector looks on writes only.
	eventually(t, "garbage gone", func() error {
		apply(t, s, storetest.Put(store.Block, storetest.GUID(n), "", storetest.Value(n, size)))
		if now := len(segmentFiles(t, disk)); now > 8 {
			return fmt.Errorf("%d segments of %d are left", now, full)
		}
		return nil
	})
	close(stop)
	readers.Wait()
	for i := 0; i < n; i += 10 {
		wantValue(t, s, ops[i])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, "/store", testOptions(disk))
	for i := 0; i < n; i += 10 {
		wantValue(t, again, ops[i])
	}
	if err := checkFiles(again); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A block is put while the compactor moves its old value: the put stands.
func TestMoveLosesToPut(t *testing.T) {
	s, ops := inSegments(t, testOptions(vfs.NewMem()), 2, 5000)
	for i, change1 := range []store.Op{
		storetest.Put(store.Block, ops[0].Key.GUID, "", storetest.Value(9, 6000)),
		storetest.Delete(store.Block, ops[1].Key.GUID, ""),
	} {
		key := appendKey(nil, ops[i].Key)
		was := recordOf(t, s, ops[i].Key)
		apply(t, s, change1)
		to := record{form: formSegment, length: was.length, sum: was.sum}
		late := &request{bytes: was.length, appended: was.length, changes: []change{
			{key: key, block: true, from: was, rec: to, value: ops[i].Value},
		}}
		if err := s.move(late); err != nil {
			t.Fatal(err)
		}
		if change1.Delete {
			if _, err := s.Get(t.Context(), change1.Key); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a deleted block is back: %v", err)
			}
		} else {
			wantValue(t, s, change1)
		}
	}
	if err := checkFiles(s); err != nil {
		t.Error(err)
	}
}

// Damage in a segment shows, stays where it is when the rest moves on, and a
// put repairs it.
func TestDamagedSegment(t *testing.T) {
	disk := vfs.NewMem()
	s, ops := inSegments(t, testOptions(disk), 3, 5000)
	r := recordOf(t, s, ops[1].Key)
	b, err := disk.UnsafeGetFileDataBuffer(s.segments.path(r.file))
	if err != nil {
		t.Fatal(err)
	}
	for at := int(r.offset); at < int(r.offset)+int(extent(appendKey(nil, ops[1].Key), r.length)); at += 1 + at/200 {
		b[at] ^= 0x10
		wantCorrupt(t, s, ops[1])
		b[at] ^= 0x10
	}
	b[r.offset+1000] ^= 1
	s.compact(r.file)
	wantCorrupt(t, s, ops[1])
	if now := recordOf(t, s, ops[1].Key); !now.sameFile(r) {
		t.Error("a damaged value was moved")
	}
	for _, i := range []int{0, 2} {
		wantValue(t, s, ops[i])
		if now := recordOf(t, s, ops[i].Key); now.offset < r.offset {
			t.Errorf("block %d was not moved", i)
		}
	}
	repaired(t, s, ops[1])
	if err := checkFiles(s); err != nil {
		t.Error(err)
	}
}

// A segment is gone, or ends early.
func TestLostSegment(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(disk)
	s, ops := inSegments(t, o, 2, 5000)
	name := s.segments.path(recordOf(t, s, ops[0].Key).file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := disk.Remove(name); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "/store", o)
	for _, op := range ops {
		wantCorrupt(t, s, op)
		repaired(t, s, op)
	}
	if missing, _ := s.Damage(); missing != 1 {
		t.Errorf("%d files missing, want 1", missing)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "/store", o)
	for _, op := range ops {
		wantValue(t, s, op)
	}
	if missing, _ := s.Damage(); missing != 0 {
		t.Errorf("%d files missing after the repair", missing)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Segments no record names go at the next start; what is not ours stays.
func TestSweepSegments(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(disk)
	s, ops := inSegments(t, o, 1, 5000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{segmentName(77), "FF.seg", "notes.txt"} {
		f, err := disk.Create(path.Join("/store", segmentsName, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, "/store", o)
	names, err := disk.List("/store/" + segmentsName)
	if err != nil || len(names) != 3 {
		t.Errorf("left: %v, %v", names, err)
	}
	wantValue(t, s, ops[0])
	if n := s.segments.next; n != 78 {
		t.Errorf("next segment %d, want 78", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The fsync of a segment meets the end of the disk: refused, nothing lost, and
// the store goes on. Any other error of it is the end.
func TestSegmentSyncFails(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		disk := vfs.NewCrashableMem()
		f := &fault{from: 1, until: 2, err: cause, match: func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileSyncData && isSegment(op.Path)
		}}
		o := testOptions(faulty(disk, f))
		s := mustOpen(t, "/store", o)
		first := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, 5000))
		apply(t, s, first)
		f.on.Store(true)
		second := storetest.Put(store.Block, storetest.GUID(2), "", storetest.Value(2, 5000))
		err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{second}})
		if cause == syscall.EIO {
			wantError(t, err, store.ErrFailed)
			wantError(t, s.Close(), store.ErrFailed)
			continue
		}
		wantError(t, err, store.ErrFull)
		apply(t, s, second)
		wantValue(t, s, first)
		wantValue(t, s, second)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = mustOpen(t, "/store", testOptions(clone(disk, randomly(t), 0)))
		wantValue(t, s, first)
		wantValue(t, s, second)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A block that comes alone is in Pebble, with one fsync; several share two.
func TestAloneGoesInline(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.alone = aloneBytes
	s := mustOpen(t, "/store", o)
	var ops []store.Op
	for i := range uint64(3) {
		ops = append(ops, storetest.Put(store.Block, storetest.GUID(i), "", storetest.Value(i, 4096)))
	}
	apply(t, s, ops[0])
	apply(t, s, ops[1:]...)
	for i, form := range []byte{formInline, formSegment, formSegment} {
		wantValue(t, s, ops[i])
		if r := recordOf(t, s, ops[i].Key); r.form != form {
			t.Errorf("block %d has form %d, want %d", i, r.form, form)
		}
	}
	if err := checkFiles(s); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A store of format 1 has no segments; it opens, and is of this format then.
func TestOlderFormat(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(disk)
	s := mustOpen(t, "/store", o)
	op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, 500))
	apply(t, s, op)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := disk.RemoveAll("/store/" + segmentsName); err != nil {
		t.Fatal(err)
	}
	format := func() []byte {
		b, err := readFile(disk, "/store/"+formatName, 4096)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	now := format()
	old := bytes.Replace(now, []byte("format 2"), []byte("format 1"), 1)
	if err := writeFile(disk, "/store", formatName, old); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "/store", o)
	wantValue(t, s, op)
	apply(t, s, storetest.Put(store.Block, storetest.GUID(2), "", storetest.Value(2, 5000)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := format(); !bytes.Equal(got, now) || bytes.Equal(got, old) {
		t.Errorf("FORMAT says %q, want %q", got, now)
	}
}

// The descriptors of segments do not pile up.
func TestSegmentsAreClosed(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(vfs.Default)
	s := mustOpen(t, dir, o)
	count := func() int {
		names, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := count()
	for i := range uint64(100) {
		op := storetest.Put(store.Block, storetest.GUID(i), "", storetest.Value(i, 5000))
		apply(t, s, op)
		wantValue(t, s, op)
	}
	if after := count(); after > before+10 {
		t.Errorf("%d descriptors after 100 blocks, %d before", after, before)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
