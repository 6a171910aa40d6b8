package acceptance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/machine/machinetest"
)

// mount makes dir and puts a small file system there, which takes root. Where
// that is required, as in CI, not being able to is a failure.
func mount(t *testing.T, dir, options string) (done func()) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		machinetest.Skip(t, fmt.Sprintf("a small file system, which root can mount: %v: %s", err, out))
	}
	return func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}
}

// smallDisk gives a member a disk of 320 MiB, to be filled.
func smallDisk(t *testing.T, p *pool, i int) {
	t.Helper()
	done := mount(t, filepath.Join(p.dir, fmt.Sprintf("n%d", i)), "size=320m,mode=0700")
	t.Cleanup(func() {
		p.kill(i) // it holds files open there
		done()
	})
}

// fill takes all that is left of a member's disk, as somebody else's files do,
// and returns what gives it back.
func (p *pool) fill(i int) (empty func()) {
	p.t.Helper()
	path := filepath.Join(p.procs[i].dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(buf)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		p.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			p.t.Error(err)
		}
	}
}

// putUntilRefused puts files of 8 MiB through member i until one is refused.
func (p *pool) putUntilRefused(i int, rnd *rand.Rand) (files []stored) {
	p.t.Helper()
	for range 80 {
		f, err := p.put(i, 8<<20, rnd)
		if err != nil {
			p.t.Logf("full after %d files: %v", len(files), err)
			return files
		}
		files = append(files, f)
	}
	p.t.Fatal("640 MiB went into 320")
	return nil
}

// TestFullDisk: three members whose disks are smaller than their limits. They
// refuse before the disks are full; then others fill the disks to the last
// byte, so that every write meets ENOSPC. What is refused says so with exit 5,
// nobody dies, everything is read, and there is room again when there is.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	p := noPool(t, "--limit", "512MiB")
	for i := range 3 {
		smallDisk(t, p, i)
	}
	p.found(3)
	rnd := rand.New(rand.NewPCG(51, 52))
	files := p.putUntilRefused(0, rnd)
	if len(files) < 10 {
		t.Fatalf("only %d files of 8 MiB went into 320 MiB", len(files))
	}
	path := filepath.Join(p.dir, "too-much")
	writeFile(t, path, 8<<20, rnd)
	p.refused(t, 1, refusal{"refused by the reserve", []string{"put", path}, 5, "full", []string{"n0", "n1", "n2", "remove files"}})

	var empty []func()
	for i := range 3 {
		empty = append(empty, p.fill(i))
	}
	for i := range 3 {
		p.refused(t, i, refusal{"not a byte left", []string{"put", path}, 5, "full", nil}) // the pool's disks or its own, whichever it meets first
	}
	p.readAll(files)
	var st api.Status
	for i := range 3 {
		p.ok(i, &st, "status")
	}
	for _, f := range empty {
		f()
	}
	p.ok(0, nil, "rm", files[0].link)
	p.ok(0, nil, "rm", files[1].link)
	files = files[2:]
	p.until(20*time.Second, "room again", func() bool {
		f, err := p.put(2, 1<<20, rnd)
		if err == nil {
			files = append(files, f)
		}
		return err == nil
	})
	p.readAll(files)
	p.stillRun()
}

// TestOneFullDisk: of three members one has no byte left. The others take
// writes, which is a quorum; the full one serves reads and says that it is
// full, and has its copies soon after it has room.
func TestOneFullDisk(t *testing.T) {
	t.Parallel()
	p := noPool(t, "--limit", "512MiB", "--grace", "5s")
	smallDisk(t, p, 1)
	p.found(3)
	rnd := rand.New(rand.NewPCG(53, 54))
	files := p.putAll([]int64{0, 5_000, 3 << 20}, rnd)
	p.allFull(0, 30*time.Second)
	empty := p.fill(1)
	files = append(files, p.putAllAt(0, []int64{4_000, 300_000, 8 << 20}, rnd)...)
	p.readAll(files)

	// A download to the full disk is refused, and leaves the member alone.
	p.refused(t, 1, refusal{
		"a get to a full disk",
		[]string{"get", files[len(files)-1].link, "-o", filepath.Join(p.procs[1].dir, "out")},
		5, "full",
		[]string{"no space left", "make room"},
	})
	p.refused(t, 1, refusal{"a put through the full one", []string{"put", p.temporary(8<<20, rnd)}, 5, "full", []string{"no space left", "make room"}})
	empty()
	if !*full { // else it comes without operator, who would rather not wait a minute
		p.ok(0, nil, "repair", "--all")
	}
	t.Logf("all copies %s after there was room", p.allFull(0, 3*time.Minute))
	f, err := p.put(1, 1<<20, rnd)
	if err != nil {
		t.Errorf("with room again: %v", err)
	}
	p.readAll(append(files, f))
	p.stillRun()
}

// putAllAt is putAll through one member.
func (p *pool) putAllAt(i int, sizes []int64, rnd *rand.Rand) (files []stored) {
	p.t.Helper()
	for _, size := range sizes {
		f, err := p.put(i, size, rnd)
		if err != nil {
			p.t.Fatalf("put of %d bytes: %v", size, err)
		}
		files = append(files, f)
	}
	return files
}

func (p *pool) temporary(size int64, rnd *rand.Rand) string {
	path := filepath.Join(p.dir, "temporary")
	writeFile(p.t, path, size, rnd)
	return path
}

// stillRun: no member has ended, or stopped after a disk error.
func (p *pool) stillRun() {
	p.t.Helper()
	for i, pr := range p.procs {
		select {
		case <-pr.ended:
			p.t.Errorf("node %d has ended: %s", i, pr.stderr)
		default:
		}
		if _, err := os.Stat(filepath.Join(pr.dir, "store", "FAILED")); err == nil {
			p.t.Errorf("node %d has given its disk up", i)
		}
	}
}
