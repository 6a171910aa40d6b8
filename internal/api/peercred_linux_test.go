package api_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/machine/machinetest"

	"golang.org/x/sys/unix"
)

// Another user who gets past the socket's mode is hung up on unheard.
func TestStrangerRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		machinetest.Skip(t, "only root can become another user")
	}
	n := apitest.New()
	c, dir := serve(t, n)
	path := filepath.Join(dir, api.SocketName)
	for d := path; d != "/"; d = filepath.Dir(d) { // what a careless user might do
		fi, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o005 != 0o005 {
			if err := os.Chmod(d, 0o777); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := make(chan error, 1)
	go func() { // on a thread of its own, which ends with it
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			done <- e
			return
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: atoll\r\n\r\n") // may find the door shut
		b, _ := io.ReadAll(conn)
		if len(b) != 0 {
			t.Errorf("a stranger was told: %s", b)
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if calls := n.Calls(); len(calls) != 0 {
		t.Errorf("the node was asked: %v", calls)
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Error(err)
	}
}
