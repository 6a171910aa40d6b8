package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestHomeRefusesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir); !errors.Is(err, ErrNotOurs) {
		t.Fatalf("folder with other things: %v, want ErrNotOurs", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("refusing changed the folder: %v", entries)
	}
}

func TestHomeOfAnotherFormat(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, markFile), []byte("atoll-node 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir); !errors.Is(err, ErrNotOurs) {
		t.Fatalf("newer format: %v, want ErrNotOurs", err)
	}
}

func TestHomeServesOneProcess(t *testing.T) {
	dir := t.TempDir()
	h, err := openHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir); !errors.Is(err, ErrInUse) {
		t.Fatalf("second opening: %v, want ErrInUse", err)
	}
	h.close()
	h, err = openHome(dir)
	if err != nil {
		t.Fatalf("after closing: %v", err)
	}
	h.close()
}

// TestLockFault: only a lock that another process holds is told as such.
func TestLockFault(t *testing.T) {
	for _, c := range []struct {
		cause, want error
		says        string
	}{
		{syscall.EWOULDBLOCK, ErrInUse, "stop it first"},
		{syscall.ENOLCK, ErrNoLock, "local disk"},
		{syscall.ENOSYS, ErrNoLock, "local disk"},
		{syscall.ENOTSUP, ErrNoLock, "local disk"},
		{syscall.EIO, ErrNoLock, syscall.EIO.Error()},
	} {
		err := lockFault(c.cause)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.cause, err)
		}
		if c.want != ErrInUse && !strings.Contains(err.Error(), c.cause.Error()) {
			t.Errorf("%v: the cause is not told: %v", c.cause, err)
		}
	}
}

func TestEpochRisesAndJumps(t *testing.T) {
	h, err := openHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for _, step := range []struct{ atLeast, want uint32 }{{0, 1}, {0, 2}, {9, 9}, {3, 10}} {
		if got, err := h.nextEpoch(step.atLeast); err != nil || got != step.want {
			t.Fatalf("nextEpoch(%d) = %d, %v, want %d", step.atLeast, got, err, step.want)
		}
	}
	if err := h.write(epochFile, []byte{1, 2}); err != nil {
		t.Fatal(err)
	}
	if got, err := h.nextEpoch(0); err != nil || got != 1 {
		t.Fatalf("after damage: %d, %v", got, err)
	}
}

// TestHomeIsPrivate: a folder made before the first start is closed to others.
func TestHomeIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := openHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestHomeIsUsable: a folder of another user is refused as that, and a full disk as
// full. The tests may run as root, whom rights do not stop: the errors are injected.
func TestHomeIsUsable(t *testing.T) {
	for cause, want := range map[error]*Fault{syscall.EACCES: ErrDenied, syscall.EPERM: ErrDenied, syscall.EROFS: ErrNoWrite} {
		if err := rightsFault("/home", cause); !errors.Is(err, want) || !strings.Contains(err.Error(), "/home") {
			t.Errorf("%v: %v", cause, err)
		}
	}
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if err := spaceFault(cause, nil); !errors.Is(err, ErrNoRoom) || !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
	}
	if err := spaceFault(syscall.EIO, ErrNoWrite); !errors.Is(err, ErrNoWrite) {
		t.Errorf("EIO: %v", err)
	}
}
