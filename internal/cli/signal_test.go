package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
)

// start runs the program and returns it with a reader of its output; what it
// writes to standard error is collected.
func start(t *testing.T, dir string, args ...string) (*exec.Cmd, *bufio.Reader, *strings.Builder) {
	t.Helper()
	cmd := exec.Command("atoll", args...)
	cmd.Env = append(os.Environ(), "ATOLL_DIR="+dir, "TEST_SERVE=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // has ended, if the test passed
	return cmd, bufio.NewReader(out), &errs
}

// finish sends a signal and returns the exit code.
func finish(t *testing.T, cmd *exec.Cmd, out io.Reader, sig os.Signal) int {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func until(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("no %q: %v", text, err)
		}
	}
}

// A node that serves ends well by SIGTERM, and with 130 by Ctrl-C.
func TestUpSignals(t *testing.T) {
	for sig, want := range map[os.Signal]int{syscall.SIGTERM: 0, syscall.SIGINT: 130} {
		cmd, out, errs := start(t, t.TempDir(), "up")
		until(t, out, "atoll-invite1:")
		if code := finish(t, cmd, out, sig); code != want {
			t.Errorf("%v: exit %d\n%s", sig, code, errs)
		}
		if strings.Contains(errs.String(), "atoll:") {
			t.Errorf("%v: %s", sig, errs)
		}
	}
}

// Ctrl-C ends a transfer in the node too, and tells how to continue: also while
// standard input keeps the program waiting.
func TestInterrupt(t *testing.T) {
	n := apitest.New()
	n.Hold = make(chan struct{})
	dir := t.TempDir()
	stop, err := apitest.Serve(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := n.Add("name", []byte("text"), false).Link
	c := api.NewClient(dir)
	defer c.Close()
	for _, args := range [][]string{{"put", file}, {"get", link, "-o", file + "2"}, {"verify", "--all"}} {
		cmd, out, errs := start(t, dir, args...)
		<-n.Held
		if code := finish(t, cmd, out, syscall.SIGINT); code != 130 {
			t.Errorf("%v: exit %d", args, code)
		}
		again := args[0] != "verify"
		if !strings.Contains(errs.String(), "interrupted") || strings.Contains(errs.String(), "same command again") != again {
			t.Errorf("%v: %s", args, errs)
		}
	}
	waitFor(t, func() bool {
		js, err := c.Jobs(t.Context())
		for _, j := range js.Jobs {
			if j.State == "running" {
				return false
			}
		}
		return err == nil && len(js.Jobs) == 3
	})

	r, w, err := os.Pipe() // nobody ever writes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	close(n.Hold)
	cmd := exec.Command("atoll", "put", "-", "--json")
	cmd.Env = append(os.Environ(), "ATOLL_DIR="+dir)
	cmd.Stdin = r
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-n.Held
	if code := finish(t, cmd, strings.NewReader(""), syscall.SIGINT); code != 130 || !strings.Contains(errs.String(), `"code":"cancelled"`) {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

// status --watch prints again and again until Ctrl-C.
func TestWatch(t *testing.T) {
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
	cmd, out, errs := start(t, dir, "status", "--watch", "--json")
	until(t, out, `"blocks":1234`)
	until(t, out, `"blocks":1234`)
	if code := finish(t, cmd, out, os.Interrupt); code != 130 {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]string{"y\n": "", "YES\n": "", "n\n": api.Cancelled, "\n": api.Cancelled, "": api.Cancelled} {
		var errs strings.Builder
		a := &app{in: strings.NewReader(answer), err: &errs, inTTY: true}
		cmd, _, err := a.root().Find([]string{"leave"})
		if err != nil {
			t.Fatal(err)
		}
		cmd.SetContext(t.Context())
		err = a.confirm(cmd, "Sure?")
		code := ""
		if err != nil {
			code = api.AsError("", err).Code
		}
		if code != want || errs.String() != "Sure? [y/N] " {
			t.Errorf("%q: %v, %q", answer, err, errs.String())
		}
	}
}

// waitFor waits for a condition.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	give := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-give:
			t.Fatal("waited 10 s")
		}
	}
}
