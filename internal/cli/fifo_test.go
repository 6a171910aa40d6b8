//go:build unix

package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
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

// TestSettingsOfNoFile: a settings file that is none is refused, not read for ever.
func TestSettingsOfNoFile(t *testing.T) {
	for name, setUp := range map[string]func(path string) error{
		"FIFO": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link to one": func(path string) error {
			return errors.Join(syscall.Mkfifo(path+".fifo", 0o600), os.Symlink(path+".fifo", path))
		},
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := t.TempDir()
		if err := setUp(filepath.Join(dir, ConfigName)); err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: io.Discard, err: &errs}
		ended := make(chan int, 1)
		go func() { ended <- a.run(t.Context(), []string{"ls", "--dir", dir}) }()
		select {
		case code := <-ended:
			if code != api.ExitUsage || !strings.Contains(errs.String(), "not a regular file") {
				t.Errorf("%s: exit %d: %s", name, code, errs.String())
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: does not end", name)
		}
	}
}
