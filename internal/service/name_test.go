package service

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atoll.example/atoll/internal/api"
)

// TestUnnamed: a file without a name is removed by the digits that ls shows, and a
// put that waits for more copies than there are members is refused at once.
func TestUnnamed(t *testing.T) {
	ctx := context.Background()
	p := startPool(t, 2)
	s := p.services[0]
	for _, text := range []string{"ebb", "flow"} {
		if _, err := s.Put(ctx, api.PutParams{Size: -1}, strings.NewReader(text), quiet); err != nil {
			t.Fatal(err)
		}
	}
	listed := func() []api.File {
		t.Helper()
		res, err := s.Ls(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		return res.Files
	}
	files := listed()
	if len(files) != 2 || files[0].GUID == files[1].GUID {
		t.Fatalf("listed: %+v", files)
	}
	if _, err := s.Rm(ctx, api.LinkRequest{Link: files[0].GUID.Short()}); err != nil {
		t.Fatal(err)
	}
	if left := listed(); len(left) != 1 || left[0].GUID != files[1].GUID {
		t.Errorf("left: %+v", left)
	}
	if _, err := s.Rm(ctx, api.LinkRequest{Link: files[0].GUID.Short()}); err == nil || api.AsError("rm", err).Code != api.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	_, err := s.Put(ctx, api.PutParams{Size: -1, K: 5, W: 5}, strings.NewReader("x"), quiet)
	if err == nil || api.AsError("put", err).Code != api.BadRequest || !strings.Contains(err.Error(), "the pool has 2 members") {
		t.Errorf("a put that can never be synced so often: %v", err)
	}
}

// TestDeceptiveNames: neither a name that is given nor that of the path may turn
// what a terminal shows.
func TestDeceptiveNames(t *testing.T) {
	s := startPool(t, 1).services[0]
	path := filepath.Join(t.TempDir(), "a\x1b[2Jb")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []api.PutParams{{Path: path, Size: -1}, {Path: path, Name: "a\u202eb", Size: -1}} {
		if _, err := s.Put(t.Context(), p, nil, quiet); err == nil || api.AsError("put", err).Code != api.BadRequest {
			t.Errorf("%q: %v", p.Name, err)
		}
	}
	if _, err := s.Put(t.Context(), api.PutParams{Path: path, Name: "ab", Size: -1}, nil, quiet); err != nil {
		t.Error(err)
	}
}

// TestMetricsAreOurs: nothing of the whole machine's network stands under the name
// of the process.
func TestMetricsAreOurs(t *testing.T) {
	p := startPool(t, 1)
	families, err := p.services[0].Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names bytes.Buffer
	for _, f := range families {
		names.WriteString(f.GetName() + "\n")
	}
	if all := names.String(); strings.Contains(all, "process_network") || !strings.Contains(all, "process_cpu_seconds_total") || !strings.Contains(all, "atoll_members") || !strings.Contains(all, "atoll_store_damage") {
		t.Errorf("metrics: %s", all)
	}
}
