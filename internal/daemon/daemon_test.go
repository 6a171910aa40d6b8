package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTooFewFiles: who may open too few files is told how to change that.
func TestTooFewFiles(t *testing.T) {
	err := startError(&os.PathError{Op: "open", Path: "MANIFEST", Err: syscall.EMFILE})
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "ulimit -n") {
		t.Error(err)
	}
}

// TestUpAboveTheDisk: a limit that the disk has no room for is told at the start.
func TestUpAboveTheDisk(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var warned string
	err := up(ctx, cli.UpOptions{NodeOptions: cli.NodeOptions{
		Dir: filepath.Join(t.TempDir(), "n"), Loopback: true, Nodes: 1, Preset: "local", Limit: 1 << 60,
	}}, func(at cli.Started) {
		warned = strings.Join(at.Warnings, "\n")
		cancel()
	})
	if err != nil || !strings.Contains(warned, "limit is 1.0 EiB") || !strings.Contains(warned, "it takes at most") {
		t.Errorf("%q, %v", warned, err)
	}
}

// TestUp: a process of three nodes serves until it is asked to end, and has ended
// then: nothing of it still runs.
func TestUp(t *testing.T) {
	o := cli.UpOptions{NodeOptions: cli.NodeOptions{
		Dir: filepath.Join(t.TempDir(), "n"), Loopback: true, Nodes: 3, Preset: "local", Limit: 1 << 30,
	}}
	before := goleak.IgnoreCurrent()
	for _, founds := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		var s cli.Started
		err := up(ctx, o, func(at cli.Started) {
			s = at
			cancel()
		})
		cancel()
		if err != nil || len(s.Nodes) != 3 || (s.Invite != "") != founds {
			t.Fatalf("founding %t: %+v, %v", founds, s, err)
		}
		if err := goleak.Find(before); err != nil {
			t.Errorf("founding %t: %v", founds, err)
		}
	}
	// Without the number of nodes another pool would be founded beside them.
	for _, other := range []struct {
		nodes int
		dir   string
	}{{1, o.Dir}, {2, filepath.Join(o.Dir, "node-1")}} {
		o.Nodes, o.Dir = other.nodes, other.dir
		ctx, cancel := context.WithCancel(t.Context())
		err := up(ctx, o, func(cli.Started) { cancel() })
		cancel()
		if err == nil || api.AsError("up", err).Code != api.BadDir || !strings.Contains(err.Error(), "--nodes") {
			t.Errorf("%d in %s: %v", o.Nodes, o.Dir, err)
		}
	}
}
