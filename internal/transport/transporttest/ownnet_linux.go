package transporttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"atoll.example/atoll/internal/machine/machinetest"
)

// ownNet names, in the environment, the test that runs in a network of its own.
const ownNet = "ATOLL_TEST_NET"

// OwnNet runs the calling test in a second process whose network namespace
// holds nothing but a loopback interface that is up and takes multicast. It
// returns true in that process, where the test goes on, and false in the first
// one, where all is done. Where the system allows no namespaces the test is
// skipped; with ATOLL_REQUIRE=all it fails.
func OwnNet(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNet) == t.Name() {
		if err := loopbackUp(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), ownNet+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		t.Logf("in a network of its own:\n%s", out)
	case errors.As(err, new(*exec.ExitError)):
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	default:
		machinetest.Skip(t, "no network namespace: "+err.Error())
	}
	return false
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_MULTICAST | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}
