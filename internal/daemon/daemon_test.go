package daemon

import (
	"context"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
}
