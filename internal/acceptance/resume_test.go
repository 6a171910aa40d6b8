package acceptance

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
)

var seed = flag.Uint64("seed", 0, "of TestResumed; 0: a new one, which is printed")

// block is the size of a chunk, and near enough that of its block.
const block = 1 << 20

// TestResumed kills puts and gets at random points, now the command with
// SIGKILL, now the member that works for it, and runs the same command again:
// it goes on, sends or fetches only what was missing, and the bytes are right.
func TestResumed(t *testing.T) {
	alone(t)
	rounds, spread := 2, 16
	if *full {
		rounds, spread = 20, 80
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", *seed)
	rnd := rand.New(rand.NewPCG(*seed, 61))
	p := newPool(t, 4, "--grace", "10m")
	r := &resumer{pool: p, rnd: rnd, path: filepath.Join(p.dir, "in"), out: filepath.Join(p.dir, "out")}
	for round := range rounds {
		r.size = int64(48+rnd.IntN(spread)) * block
		sum := writeFile(t, r.path, r.size, rnd)
		for _, victim := range []string{"command", "node"} {
			if victim == "node" { // another file under the same name
				sum = writeFile(t, r.path, r.size, rnd)
			}
			owner, link := r.put(round, victim)
			r.get(round, victim, link)
			if err := p.get(rnd.IntN(4), stored{link: link, size: r.size, sum: sum}, rnd); err != nil {
				t.Fatal(err)
			}
			p.ok(owner, nil, "rm", link) // leaves room for the next ones
		}
	}
}

// resumer is the state of TestResumed.
type resumer struct {
	*pool
	rnd       *rand.Rand
	path, out string
	size      int64
}

// point is a number of blocks at which to kill: what is left of the transfer must
// outlast the look that sees them and the kill, also on a busy machine.
func (r *resumer) point() int64 { return 1 + r.rnd.Int64N(r.size/block-24) }

// put kills a put at a random point and goes on with it.
func (r *resumer) put(round int, victim string) (i int, link string) {
	r.t.Helper()
	i = r.rnd.IntN(4)
	point := r.point()
	r.broken(i, victim, func() bool { return acked(r.t, r.procs[i].dir) >= point }, "put", r.path)
	had := acked(r.t, r.procs[i].dir)
	r.allFull(i, time.Minute) // what is acknowledged gets its last copy: no part of what comes now

	before := r.bytes("stored")
	var done api.PutResult
	r.ok(i, &done, "put", r.path)
	r.allFull(i, time.Minute)
	moved := r.bytes("stored") - before
	missing := done.Blocks - done.Resumed
	r.t.Logf("round %d: put, %s of node %d killed at %d of %d blocks: went on with %d, %d MiB stored for %d missing blocks of 3 copies",
		round+1, victim, i, had, done.Blocks, done.Resumed, moved>>20, missing)
	if done.Resumed < had || had == 0 {
		r.t.Errorf("%d blocks were acknowledged, and only %d not sent again", had, done.Resumed)
	}
	if most := 3 * missing * (block + block/64); moved > most {
		r.t.Errorf("%d bytes were stored, for %d missing blocks at most %d", moved, missing, most)
	}
	return i, done.Link
}

// get kills a get at a random point and goes on with it.
func (r *resumer) get(round int, victim, link string) {
	r.t.Helper()
	i := r.rnd.IntN(4)
	point := r.point()
	r.broken(i, victim, func() bool { return written(r.t, r.out) >= point }, "get", link, "-o", r.out)
	had := written(r.t, r.out)

	before := r.bytes("served")
	var done api.GetResult
	r.ok(i, &done, "get", link, "-o", r.out)
	moved := r.bytes("served") - before
	r.t.Logf("round %d: get, %s of node %d killed at %d of %d blocks: went on with %d, %d MiB served",
		round+1, victim, i, had, r.size/block, done.Resumed/block, moved>>20)
	if done.Resumed < had*block || had == 0 {
		r.t.Errorf("%d blocks were written, and only %d not fetched again", had, done.Resumed/block)
	}
	// Hedged reads fetch some twice; manifests are fetched in any case.
	if most := (r.size-done.Resumed)*11/10 + 4*block; moved > most {
		r.t.Errorf("%d bytes were served, for %d missing at most %d", moved, r.size-done.Resumed, most)
	}
	if err := os.Remove(r.out); err != nil {
		r.t.Fatal(err)
	}
}

// broken runs a command at member i and kills the victim when reached says so.
// The member runs again afterwards, with nothing under way.
func (r *resumer) broken(i int, victim string, reached func() bool, args ...string) {
	r.t.Helper()
	c := r.begin(i, args...)
	r.soon(reached)
	if victim == "node" {
		r.kill(i)
		exit := c.end(r.t.(*testing.T))
		var body struct{ Error *api.Error }
		if err := json.Unmarshal(c.errs.Bytes(), &body); err != nil || exit != 4 || body.Error == nil || body.Error.Code != api.Unavailable {
			r.t.Errorf("%s whose node was killed: exit %d: %s%s", args[0], exit, c.out.String(), c.errs.String())
		}
		r.start(i, "up")
		r.grow(0)
		return
	}
	if err := c.cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	_ = c.cmd.Wait()
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && !status.Signaled() {
		r.t.Fatalf("%s had ended before it was killed: %s", args[0], c.errs.String())
	}
	r.idle(i)
}

// bytes sums a counter of bytes over the members since they started.
func (r *resumer) bytes(what string) (sum int64) {
	for i := range r.procs {
		sum += r.metric(i, fmt.Sprintf("atoll_dht_bytes_total{what=%q}", what))
	}
	return sum
}

// acked counts the acknowledgements in the journals of a member (package files).
func acked(t testing.TB, dir string) (num int64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "uploads", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		const intent, ack = 1 + 32 + 4, 1 + 8 + 1 + 4 + 3 + 32 + 32 + 4
		for len(b) > 3 {
			size := intent
			switch b[0] {
			case 'H':
				size = 3 + int(binary.BigEndian.Uint16(b[1:])) + 4
			case 'A':
				size = ack
			}
			if len(b) < size {
				break
			}
			if b[0] == 'A' {
				num++
			}
			b = b[size:]
		}
	}
	return num
}

// written counts the chunks that the part of an output has (package files).
func written(t testing.TB, out string) (num int64) {
	t.Helper()
	b, err := os.ReadFile(out + ".atoll-map")
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	const head = 4 + 32 + 8 + 4
	for _, x := range b[min(head, len(b)):] {
		num += int64(bits.OnesCount8(x))
	}
	return num
}
