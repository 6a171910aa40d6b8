//go:build unix

package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// TestFIFOWithoutWriter: a put that waits for somebody to write ends by Ctrl-C.
func TestFIFOWithoutWriter(t *testing.T) {
	before := goleak.IgnoreCurrent()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := open(ctx, path)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0) // else only the end of the process ends the open
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	goleak.VerifyNone(t, before)
}
