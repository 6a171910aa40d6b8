//go:build unix

package cli

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFIFOWithoutWriter: a put that waits for somebody to write ends by Ctrl-C.
func TestFIFOWithoutWriter(t *testing.T) {
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
}
