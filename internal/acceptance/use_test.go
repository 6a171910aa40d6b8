package acceptance

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
)

// TestFirstUse is the promise of the README: four commands to a stored file on
// three machines (here three processes with their own folders and ports),
// nothing edited, under a minute.
func TestFirstUse(t *testing.T) {
	begin := time.Now()
	p := &pool{t: t, dir: t.TempDir(), flags: []string{"--loopback"}}
	t.Cleanup(p.killAll)
	file := filepath.Join(p.dir, "tide table.txt")
	if err := os.WriteFile(file, []byte("high water 04:12, 16:37\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	p.add()
	p.start(0, "up") // 1
	p.add()
	p.start(1, "join", p.procs[0].invite) // 2, on the second machine
	p.add()
	p.start(2, "join", p.procs[0].invite) // and on the third
	var put api.PutResult
	p.ok(0, &put, "put", file) // 3
	out := filepath.Join(p.dir, "out.txt")
	p.ok(2, nil, "get", put.Link, "-o", out) // 4, elsewhere

	if b, err := os.ReadFile(out); err != nil || string(b) != "high water 04:12, 16:37\n" {
		t.Fatalf("came back as %q, %v", b, err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Fatalf("took %s, want under a minute", took)
	}
}
