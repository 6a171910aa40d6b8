package acceptance

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
)

// sizesOf returns the number and bounds of files at the size asked for.
func sizesOf(rnd *rand.Rand) []int64 {
	if *full {
		return logUniform(rnd, 200, 64<<20, 1<<30)
	}
	return logUniform(rnd, 16, 4<<20, 16<<20)
}

// TestSurvival: eight processes, k = 3, files of all sizes put through random
// members and read through others. Two members are killed while the others
// read: no read fails, and within a minute every block has three copies again
// (heartbeats of 5 s, grace 10 s at full size). Two more are killed: everything is
// still read. Those killed come back with their disks: counted, not copied again.
func TestSurvival(t *testing.T) {
	alone(t)
	grace := "5s"
	if *full {
		grace = "10s"
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	p := newPool(t, 8, "--grace", grace)
	files := p.putAll(sizesOf(rnd), rnd)
	t.Logf("all at k after %s", p.allFull(0, 2*time.Minute))
	p.onDisk(0, files)

	for _, dead := range [][2]int{{2, 5}, {3, 6}} {
		stop := p.readOn(files, dead[0], dead[1])
		p.kill(dead[0])
		p.kill(dead[1])
		took := p.allFull(0, 60*time.Second)
		read, failed := stop()
		if len(failed) > 0 {
			t.Fatalf("%d of %d reads failed, the first: %v", len(failed), read, failed[0])
		}
		if read == 0 {
			t.Error("no read was done while two were killed and replaced: nothing was shown")
		}
		t.Logf("two killed: all at k again after %s; %d reads meanwhile", took, read)
		p.onDisk(0, files)
		p.readAll(files)
	}

	before := p.repairBytes()
	for _, i := range []int{2, 5, 3, 6} {
		p.start(i, "up")
	}
	t.Logf("four came back: all counted after %s", p.allFull(0, 2*time.Minute))
	p.onDisk(0, files)
	p.readAll(files)
	var total int64
	for _, f := range files {
		total += f.size
	}
	moved := p.repairBytes() - before
	t.Logf("repair bytes after the return: %d of %d stored", moved, 3*total)
	if moved > min(fewBlocks, total/10) {
		t.Errorf("members that came back with their disks were copied to again: %d bytes", moved)
	}
}

// fewBlocks is what members that return may be copied to: what changed around the
// kills themselves, not what they hold.
const fewBlocks = 4 << 20

// onDisk lets the holders read, from their disks, all copies of some files, and
// wants every copy that there should be.
func (p *pool) onDisk(i int, files []stored) {
	p.t.Helper()
	const most = 8
	step := max(1, len(files)/most)
	var blocks int64
	for at := 0; at < len(files); at += step {
		var v api.VerifyResult
		p.ok(i, &v, "verify", "--deep", files[at].link)
		if v.OK != v.Blocks || v.Corrupt+v.Missing != 0 {
			p.t.Errorf("status says that all copies are there, verify --deep: %+v", v)
		}
		blocks += v.Blocks
	}
	p.t.Logf("on the disks: every copy of %d blocks", blocks)
}

// putAll puts files of the given sizes through random members.
func (p *pool) putAll(sizes []int64, rnd *rand.Rand) []stored {
	p.t.Helper()
	files := make([]stored, len(sizes))
	var sum int64
	begin := time.Now()
	for i, size := range sizes {
		var err error
		if files[i], err = p.put(rnd.IntN(len(p.procs)), size, rnd); err != nil {
			p.t.Fatalf("put of %d bytes: %v", size, err)
		}
		sum += size
	}
	p.t.Logf("put %d files, %d bytes, in %s", len(files), sum, time.Since(begin))
	return files
}

// readAll reads every file through a member that runs, not the one it was put
// through where there is another.
func (p *pool) readAll(files []stored) {
	p.t.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	for i, f := range files {
		at := i % len(p.procs)
		for p.procs[at].cmd == nil || at == f.via && p.running() > 1 {
			at = (at + 1) % len(p.procs)
		}
		if err := p.get(at, f, rnd); err != nil {
			p.t.Fatal(err)
		}
	}
}

// readOn keeps reading through the members that are not in except, each what was
// put through another where there is such, until the function it returns is
// called, which gives the number of reads and those that failed.
func (p *pool) readOn(files []stored, except ...int) (stop func() (int, []error)) {
	var mu sync.Mutex
	var failed []error
	num := 0
	quit := make(chan struct{})
	var all sync.WaitGroup
	skip := make(map[int]bool)
	for _, i := range except {
		skip[i] = true
	}
	for i, pr := range p.procs {
		if skip[i] || pr.cmd == nil {
			continue
		}
		mine := slices.DeleteFunc(slices.Clone(files), func(f stored) bool { return f.via == i })
		if len(mine) == 0 {
			mine = files
		}
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 5))
			for n := 0; ; n++ {
				select {
				case <-quit:
					return
				default:
				}
				err := p.get(i, mine[rnd.IntN(len(mine))], rnd)
				mu.Lock()
				num++
				if err != nil {
					failed = append(failed, fmt.Errorf("through node %d: %w", i, err))
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		close(quit)
		all.Wait()
		return num, failed
	}
}

// repairBytes sums what all members have copied for repair since they started.
func (p *pool) repairBytes() (sum int64) {
	p.t.Helper()
	for i, pr := range p.procs {
		if pr.cmd != nil {
			sum += p.metric(i, `atoll_dht_bytes_total{what="repair"}`)
		}
	}
	return sum
}

// TestSharedChunks: two files of one owner share chunks; one is removed; the
// other still reads.
func TestSharedChunks(t *testing.T) {
	alone(t)
	p := newPool(t, 4)
	rnd := rand.New(rand.NewPCG(7, 8))
	first, second := p.twins(3<<20, rnd)
	p.ok(0, nil, "rm", first.link)
	if err := p.get(2, second, rnd); err != nil {
		t.Fatal(err)
	}
	if err := p.get(2, first, rnd); err == nil {
		t.Fatal("the file that was removed is still read")
	}
	var v api.VerifyResult
	p.ok(3, &v, "verify", second.link)
	if len(v.Unrepairable) > 0 || v.Corrupt > 0 {
		t.Fatalf("the file that stays is not whole: %+v", v)
	}
}

// TestGrowAndShrink: a pool of one grows to four while it is read, and shrinks
// by leave to two: no read fails, and writes work at every size. Each member that
// joins is read and written through as soon as it has come up.
func TestGrowAndShrink(t *testing.T) {
	alone(t)
	rnd := rand.New(rand.NewPCG(9, 10))
	p := newPool(t, 1)
	files := p.putAll([]int64{0, 1, 100_000, 3 << 20}, rnd)
	write := func(i int) {
		t.Helper()
		f, err := p.put(i, 200_000, rnd)
		if err != nil {
			t.Fatalf("a write through node %d in a pool of %d: %v", i, p.running(), err)
		}
		files = append(files, f)
	}
	write(0)

	var inv api.InviteResult
	p.ok(0, &inv, "invite", "--uses", "3")
	stops := []func() (int, []error){p.readOn(files)}
	begin := time.Now()
	for range 3 {
		i := p.add()
		p.start(i, "join", inv.Invite)
		var others []int
		for j := range i {
			others = append(others, j)
		}
		stops = append(stops, p.readOn(files, others...))
		write(i)
	}
	t.Logf("grew from 1 to 4, with a write through each, in %s", time.Since(begin))
	p.grow(0)
	write(0)
	for i, stop := range stops {
		read, failed := stop()
		if len(failed) > 0 {
			t.Fatalf("%d of %d reads through node %d failed while the pool grew, the first: %v", len(failed), read, i, failed[0])
		}
		t.Logf("%d reads through node %d while the pool grew", read, i)
	}
	p.readAll(files)
	p.allFull(0, time.Minute)
	for _, i := range []int{3, 2} {
		stop := p.readOn(files, i)
		p.ok(i, nil, "leave", "--yes")
		p.gone(i)
		read, failed := stop()
		if len(failed) > 0 {
			t.Fatalf("%d of %d reads failed while a member left, the first: %v", len(failed), read, failed[0])
		}
		for j := range i {
			write(j)
		}
		p.readAll(files)
	}
}

// TestNewcomerTakesItsShare: a new member of a loaded pool takes over its share
// while every object stays readable.
func TestNewcomerTakesItsShare(t *testing.T) {
	alone(t)
	rnd := rand.New(rand.NewPCG(11, 12))
	p := newPool(t, 4, "--grace", "5s") // with all copies there, a newcomer gets its own after the grace
	files := p.putAll(sizesOf(rnd), rnd)
	p.allFull(0, 2*time.Minute)
	var st api.Status
	p.ok(0, &st, "status")
	stop := p.readOn(files)
	p.grow(1)
	share := p.share(4)
	took := p.until(2*time.Minute, "the newcomer to hold its share", func() bool {
		return float64(p.metric(4, "atoll_store_blocks")) > 0.7*share*float64(st.Safety.Blocks) // chance has its part
	})
	p.allFull(4, 2*time.Minute)
	if _, failed := stop(); len(failed) > 0 {
		t.Fatalf("%d reads failed, the first: %v", len(failed), failed[0])
	}
	p.readAll(files)
	t.Logf("after %s the newcomer held its share; it is in the sets of %.0f %% of all keys, and has %d of %d blocks",
		took, 100*share, p.metric(4, "atoll_store_blocks"), st.Safety.Blocks)
}

// share is the part of all keys in whose replica sets member i is, by its own word
// on 300 that are evenly spread.
func (p *pool) share(i int) float64 {
	p.t.Helper()
	c := p.client(i)
	defer c.Close()
	st, err := c.Status(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	const keys = 300
	in := 0
	for k := range uint64(keys) {
		var key id.GUID
		binary.BigEndian.PutUint64(key[:], k*(math.MaxUint64/keys))
		set, err := c.Lookup(p.t.Context(), api.KeyRequest{Key: key})
		if err != nil {
			p.t.Fatal(err)
		}
		if slices.ContainsFunc(set.Replicas, func(r api.Replica) bool { return r.GUID == st.Node.GUID }) {
			in++
		}
	}
	return float64(in) / keys
}

// alone keeps a test at full size, which prints figures, from running beside
// others.
func alone(t *testing.T) {
	if !*full {
		t.Parallel()
	}
}
