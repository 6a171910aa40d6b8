package acceptance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cpuUse is what a piece of work took of the processors, in all processes.
type cpuUse struct {
	parts map[cpuPart]time.Duration // by the profiles
	spent time.Duration             // by the kernel's account
}

// TestCPUParts puts a large file and gets it, each with all members and the
// command under the CPU profiler, and prints the CPU seconds per GiB by part,
// summed over all processes. A third column is what the members take to start
// and to end without work, which is in the other two as well.
func TestCPUParts(t *testing.T) {
	alone(t)
	members, size := 3, int64(32<<20)
	if *full {
		members, size = 8, 1<<30
	}
	p := newPool(t, members)
	in, out := filepath.Join(p.dir, "large"), filepath.Join(p.dir, "large.out")
	writeFile(t, in, size, rand.New(rand.NewPCG(41, 42)))
	p.stopAll()

	link := ""
	put := p.profiled("put", func(run func(i int, args ...string) string) {
		link = strings.TrimSpace(run(0, "put", in))
		p.allFull(0, 3*time.Minute) // the third copy is part of the price
	})
	get := p.profiled("get", func(run func(i int, args ...string) string) {
		run(members-1, "get", link, "-o", out)
	})
	idle := p.profiled("idle", func(func(i int, args ...string) string) {})

	perGiB := func(d time.Duration) float64 { return d.Seconds() * (1 << 30) / float64(size) }
	t.Logf("CPU seconds per GiB, %d MiB, %d processes, k = 3, and the commands:", size>>20, members)
	t.Logf("%-12s %8s %8s   start and end alone, s", "part", "put", "get")
	row := func(name string, put, get, idle time.Duration) {
		t.Logf("%-12s %8.2f %8.2f %8.2f", name, perGiB(put), perGiB(get), idle.Seconds())
	}
	for _, part := range cpuParts {
		row(string(part), put.parts[part], get.parts[part], idle.parts[part])
	}
	row("sum", put.sum(), get.sum(), idle.sum())
	row("by kernel", put.spent, get.spent, idle.spent)

	if *full {
		for _, part := range []cpuPart{partHash, partCipher, partDisk, partTransport, partTLS} {
			if put.parts[part] == 0 {
				t.Errorf("the put shows no processor time for %s: the table of parts is out of date", part)
			}
		}
		if put.sum() < put.spent/2 || put.sum() > put.spent*3/2 {
			t.Errorf("the profiles show %s of processor time, the kernel %s", put.sum(), put.spent)
		}
	}
	// The small size is a few samples: chance decides how many belong to no part.
	if put.sum() == 0 || *full && put.parts[partOther]*5 > put.sum() {
		t.Errorf("%s of %s belong to no part: the table of parts is out of date", put.parts[partOther], put.sum())
	}
}

func (u cpuUse) sum() (d time.Duration) {
	for _, v := range u.parts {
		d += v
	}
	return d
}

// profiled starts all members under the profiler, lets work run commands under
// it as well, and ends the members.
func (p *pool) profiled(name string, work func(run func(i int, args ...string) string)) cpuUse {
	p.t.Helper()
	use := cpuUse{parts: make(map[cpuPart]time.Duration)}
	var paths []string
	environ := func(who string) []string {
		paths = append(paths, filepath.Join(p.dir, name+"-"+who+".pprof"))
		return []string{"ATOLL_CPUPROFILE=" + paths[len(paths)-1]}
	}
	var all sync.WaitGroup
	for i, pr := range p.procs {
		pr.cpu, pr.env = 0, environ(fmt.Sprint("node-", i))
		all.Go(func() { p.start(i, "up") })
	}
	all.Wait()
	p.grow(0) // until all know each other
	work(func(i int, args ...string) string {
		cmd := exec.Command(program, append([]string{"--dir", p.procs[i].dir, "--quiet"}, args...)...)
		cmd.Env, cmd.Stderr = append(os.Environ(), environ(args[0])...), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			p.t.Fatalf("%s: %v", strings.Join(args, " "), err)
		}
		use.spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return string(out)
	})
	p.stopAll()
	for _, pr := range p.procs {
		use.spent += pr.cpu
		pr.env = nil
	}
	for _, path := range paths {
		if err := readProfile(path, use.parts); err != nil {
			p.t.Fatal(err)
		}
	}
	return use
}
