package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/cli"
	"atoll.example/atoll/internal/node"
)

// TestDoctorLooksOnly: a folder that does not exist is not made by a look at it, nor
// by a backup of nothing or the restoring of garbage, and an empty one stays so.
func TestDoctorLooksOnly(t *testing.T) {
	ctx := t.Context()
	empty, garbage := t.TempDir(), filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(t.TempDir(), "typo"), empty} {
		found, err := doctor(ctx, cli.DoctorOptions{Dir: dir})
		if err != nil || len(found) != 1 || found[0].OK || found[0].Check != "folder" {
			t.Errorf("a look: %+v, %v", found, err)
		}
		if _, err := doctor(ctx, cli.DoctorOptions{Dir: dir, Backup: filepath.Join(t.TempDir(), "b")}); !errors.Is(err, node.ErrNotMade) {
			t.Errorf("a backup of nothing: %v", err)
		}
		if _, err := doctor(ctx, cli.DoctorOptions{Dir: dir, Restore: garbage}); err == nil || api.AsError("doctor", err).Code != api.BadRequest {
			t.Errorf("garbage restored, or: %v", err)
		}
		if _, err := doctor(ctx, cli.DoctorOptions{Dir: dir, Restore: garbage + "x"}); err == nil || api.AsError("doctor", err).Code != api.BadRequest {
			t.Errorf("a restore of nothing: %v", err)
		}
		if entries, err := os.ReadDir(dir); len(entries) > 0 || err == nil && dir != empty {
			t.Errorf("%s was made, or written: %v", dir, entries)
		}
	}
	busy := t.TempDir()
	if err := os.WriteFile(filepath.Join(busy, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := doctor(ctx, cli.DoctorOptions{Dir: busy}); err == nil || api.AsError("doctor", err).Code != api.BadDir {
		t.Errorf("a folder of something else: %v", err)
	}
}
