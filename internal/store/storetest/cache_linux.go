package storetest

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InCache reports whether the page of a file at an offset, which is a multiple
// of the page size, is in the page cache.
func InCache(t testing.TB, f *os.File, off int64) bool {
	t.Helper()
	b, err := unix.Mmap(int(f.Fd()), off, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	var there [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&there[0])))
	if errno != 0 {
		t.Fatalf("the page cache cannot be asked: %v", errno)
	}
	return there[0]&1 != 0
}
