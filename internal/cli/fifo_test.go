//go:build unix

package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/api/apitest"
)

// TestNobodyWrites: a command that waits for somebody to write to a FIFO or to its
// standard input ends by Ctrl-C and by --timeout.
func TestNobodyWrites(t *testing.T) {
	dir := t.TempDir()
	stop, err := apitest.Serve(apitest.New(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	run := func(ctx context.Context, args ...string) (int, string) {
		var out, errs bytes.Buffer
		a := &app{in: r, out: &out, err: &errs}
		ended := make(chan int, 1)
		go func() { ended <- a.run(ctx, append(args, "--dir", dir)) }()
		select {
		case code := <-ended:
			return code, errs.String()
		case <-time.After(20 * time.Second):
			t.Fatalf("%v does not end", args)
			return 0, ""
		}
	}
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(signalled{os.Interrupt})
	for _, args := range [][]string{{"put", fifo}, {"dht", "put", fifo}, {"dht", "put", "-"}, {"get", "-"}, {"join", "-"}} {
		if code, said := run(interrupted, args...); code != 130 || !strings.Contains(said, "interrupted") {
			t.Errorf("%v and Ctrl-C: exit %d: %s", args, code, said)
		}
		if args[0] == "join" { // it serves: no timeout
			continue
		}
		if code, said := run(t.Context(), append(args, "--timeout", "10ms")...); code != 4 || !strings.Contains(said, "not done in time") {
			t.Errorf("%v and --timeout: exit %d: %s", args, code, said)
		}
	}
	_ = w.Close()
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // else only the end of the process ends the opens
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
