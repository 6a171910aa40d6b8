package diskstore

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func wantError(t testing.TB, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, o := range map[string]Options{
		"no pool":         {},
		"short tag":       {Pool: []byte("abc")},
		"long tag":        {Pool: []byte("123456789")},
		"small limit":     {Pool: testPool, Limit: store.MinLimit - 1},
		"negative limit":  {Pool: testPool, Limit: -1},
		"negative sizes":  {Pool: testPool, Threshold: -1},
		"negative memory": {Pool: testPool, Cache: -1},
	} {
		if err := o.Validate(); err == nil {
			t.Errorf("%s: no fault found", name)
		}
		if _, err := Open(t.TempDir(), o); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	good := Options{Pool: testPool}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Pool: testPool, Limit: 1 << 30})
	_, err := Open(dir, Options{Pool: testPool})
	wantError(t, err, store.ErrInUse, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, dir, Options{Pool: testPool}).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestInUseByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), holdDir+"="+dir)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process says %q", line)
	}
	_, err = Open(dir, Options{Pool: testPool})
	wantError(t, err, store.ErrInUse)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, dir, Options{Pool: testPool}).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNotOurs(t *testing.T) {
	o := Options{Pool: testPool, Limit: 1 << 30}
	t.Run("other files", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "thesis.odt"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, o)
		wantError(t, err, store.ErrFormat, "thesis.odt", "empty folder")
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("the folder was changed: %v", names)
		}
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, o)
		wantError(t, err, store.ErrFormat, "not a folder")
	})
	for name, c := range map[string]struct{ format, says string }{
		"newer":   {"atoll store\nformat 3\npool 706f6f6c2d746167\n", "format 3"},
		"garbled": {"atoll store\nformat x\npool 706f6f6c2d746167\n", "or damaged"},
		"strange": {"hello", "not ours"},
		"cut":     {"atoll store\nformat 2\npo", "printf"},
		"pool":    {"atoll store\nformat 1\npool 00000000\n", "pool 00000000"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, formatName), []byte(c.format), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, o)
			wantError(t, err, store.ErrFormat, c.says)
		})
	}
	t.Run("format gone", func(t *testing.T) {
		dir := t.TempDir()
		if err := mustOpen(t, dir, o).Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, formatName)
		was, err := os.ReadFile(path)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(dir, o)
		wantError(t, err, store.ErrFormat, "printf 'atoll store\\nformat 2\\npool 706f6f6c2d746167\\n' > '"+path+"'")
		if text := formatText(o.Pool, "\n"); text != string(was) {
			t.Errorf("FORMAT was %q, to be put back is %q", was, text)
		}
	})
	t.Run("records gone", func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir, o)
		op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, 1<<20))
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, metaName)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, o)
		wantError(t, err, store.ErrFormat, metaName)
		if n := len(blockPaths(t, vfs.Default, dir)); n != 1 {
			t.Errorf("%d block files left", n)
		}
	})
}

// The tests may run as root, whom permissions do not stop: the error is injected.
func TestReadOnlyFolder(t *testing.T) {
	for _, cause := range []error{syscall.EROFS, syscall.EACCES} {
		for _, kind := range []errorfs.OpKind{errorfs.OpMkdirAll, errorfs.OpLock, errorfs.OpCreate} {
			inj := errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind {
					return &os.PathError{Op: "open", Path: op.Path, Err: cause}
				}
				return nil
			})
			_, err := Open("/store", testOptions(faulty(vfs.NewMem(), inj)))
			wantError(t, err, cause, "/store cannot be written")
		}
	}
}

// Pebble writes its log to a table when it opens, and tries for ever where it
// cannot: the store says so instead, and loses nothing.
func TestOpenCannotWriteATable(t *testing.T) {
	for cause, want := range map[error]error{
		syscall.EACCES: syscall.EACCES, syscall.ENOSPC: store.ErrFull, syscall.EIO: store.ErrFailed,
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			t.Parallel()
			disk := vfs.NewMem()
			o := testOptions(disk)
			s := mustOpen(t, "/store", o)
			op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, 1000))
			if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			inj := errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
					return &os.PathError{Op: "open", Path: op.Path, Err: cause}
				}
				return nil
			})
			_, err := Open("/store", testOptions(faulty(disk, inj)))
			wantError(t, err, want, "/store")
			o.AcceptFailed = true // EIO
			s = mustOpen(t, "/store", o)
			if _, err := s.Get(t.Context(), op.Key); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLimitIsRemembered(t *testing.T) {
	disk := vfs.NewMem()
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 10 << 30, TotalBytes: 20 << 30})
	o := testOptions(disk)
	limit := func(ask int64) int64 {
		o.Limit = ask
		s := mustOpen(t, "/store", o)
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		return s.Usage().Limit
	}
	if got := limit(0); got != 8<<30 {
		t.Errorf("first start: %d, want 80 %% of 10 GiB", got)
	}
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 20 << 30})
	if got := limit(0); got != 8<<30 {
		t.Errorf("second start: %d, want what it was", got)
	}
	if got := limit(2 << 30); got != 2<<30 {
		t.Errorf("given: %d", got)
	}
	if got := limit(0); got != 2<<30 {
		t.Errorf("after: %d, want what was given", got)
	}
}

func TestNoRoomForAStore(t *testing.T) {
	disk := vfs.NewMem()
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 300 << 20, TotalBytes: 20 << 30})
	o := testOptions(disk)
	o.Limit = 0
	_, err := Open("/store", o)
	wantError(t, err, store.ErrFull, "300 MiB", "256 MiB")
}

// The file system has less than the limit: the reserve is that of what there is, and
// kept from all but what is urgent.
func TestFileSystemNearlyFull(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(disk)
	o.Limit = 10 << 40 // 5 % of it are more than the disk has
	has := func(free int64) {
		disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: uint64(free), TotalBytes: 90 << 30})
	}
	has(67 << 30)
	s := mustOpen(t, "/store", o)
	if u, want := s.Usage(), int64(67<<30)/20+store.Ballast; u.Reserve < want || u.Reserve > want+1<<10 || u.Free != 67<<30-u.Reserve {
		t.Errorf("usage %+v, want a reserve of %d", u, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	// Others have filled it but for the reserve: of n bytes free that is n/20 and the ballast.
	has((store.Ballast + 1000) * 20 / 19)
	s = mustOpen(t, "/store", o)
	if u := s.Usage(); u.Free < 990 || u.Free > 1000 {
		t.Errorf("usage %+v", u)
	}
	put := func(n int, urgent bool) error {
		op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, n))
		return s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}, Urgent: urgent})
	}
	wantError(t, put(1000, false), store.ErrFull)
	wantError(t, put(testLarge, false), store.ErrFull)
	if n := len(blockPaths(t, disk, "/store")); n != 0 {
		t.Errorf("%d block files written", n)
	}
	for _, n := range []int{1000, testLarge} {
		if err := put(n, true); err != nil {
			t.Errorf("urgent: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFailedNeedsAcceptance(t *testing.T) {
	disk := vfs.NewMem()
	o := testOptions(disk)
	s := mustOpen(t, "/store", o)
	op := storetest.Put(store.Block, storetest.GUID(1), "", storetest.Value(1, testLarge))
	if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
		t.Fatal(err)
	}
	s.fail(errors.New("sector 7 is gone"))
	<-s.Failed()
	wantError(t, s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}), store.ErrFailed, "sector 7")
	_, err := s.Get(t.Context(), op.Key)
	wantError(t, err, store.ErrFailed)
	lo, hi := everything()
	wantError(t, s.Range(t.Context(), store.Block, lo, hi, func(store.Key, []byte) bool { return true }), store.ErrFailed)
	wantError(t, s.Close(), store.ErrFailed)

	for range 2 { // refusing changes nothing
		_, err = Open("/store", o)
		wantError(t, err, ErrNotAccepted, "sector 7")
		wantError(t, err, store.ErrFailed)
	}
	accepted := o
	accepted.AcceptFailed = true
	if err := mustOpen(t, "/store", accepted).Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open("/store", o) // the check did not end well, or not at all
	wantError(t, err, ErrNotAccepted, "sector 7")
	s = mustOpen(t, "/store", accepted)
	if err := s.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "/store", o)
	if _, err := s.Get(t.Context(), op.Key); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Counters that are lost are counted anew.
func TestRecount(t *testing.T) {
	o := testOptions(vfs.NewMem())
	s := mustOpen(t, "/store", o)
	for i := range 10 {
		op := storetest.Put(store.Block, storetest.GUID(uint64(i)), "", storetest.Value(1, i*2000))
		if err := s.Apply(t.Context(), store.Batch{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	want := s.Usage()
	if err := s.table.Delete(countersKey, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, "/store", o)
	if got := s.Usage(); got.Used != want.Used || got.Blocks != want.Blocks || got.Blocks != 10 {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
