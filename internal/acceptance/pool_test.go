package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/id"
)

var full = flag.Bool("full", false, "run at full size and print figures")

// program is the binary under test, built once.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	if most := flag.Lookup("test.parallel"); !*full && most.Value.String() == most.DefValue {
		_ = most.Value.Set("4") // the processors are idle while members wait for each other
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "atoll-acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "atoll")
	build := exec.Command("go", "build", "-o", program, "atoll.example/atoll/cmd/atoll")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// pool is members in processes of their own.
type pool struct {
	t     testing.TB
	dir   string
	flags []string // of up and join
	procs []*proc
}

// proc is one member's folder and, while it runs, its process.
type proc struct {
	dir    string
	env    []string // of the process, beside the test's own
	cmd    *exec.Cmd
	invite string // that "up" printed on its first use
	ended  chan struct{}
	stderr *apitest.Output
	peakKB int64         // resident memory, of processes that have ended
	cpu    time.Duration // likewise
}

// newPool starts num members, which join at once.
func newPool(t testing.TB, num int, flags ...string) *pool {
	t.Helper()
	p := noPool(t, flags...)
	p.found(num)
	return p
}

// noPool is a pool before its first member, who could want a folder of its own.
func noPool(t testing.TB, flags ...string) *pool {
	p := &pool{t: t, dir: t.TempDir()}
	p.flags = append([]string{"--loopback", "--quic=false", "--limit", "4GiB"}, flags...)
	t.Cleanup(p.killAll)
	return p
}

// found starts the first num members.
func (p *pool) found(num int) {
	p.t.Helper()
	p.add()
	p.start(0, "up")
	p.grow(num - 1)
}

func (p *pool) add() int {
	p.procs = append(p.procs, &proc{dir: filepath.Join(p.dir, fmt.Sprintf("n%d", len(p.procs)))})
	return len(p.procs) - 1
}

// grow lets num more members join at once, and waits until all count them.
func (p *pool) grow(num int) {
	p.t.Helper()
	if num > 0 {
		var inv api.InviteResult
		p.ok(0, &inv, "invite", "--uses", fmt.Sprint(num))
		var all sync.WaitGroup
		for range num {
			i := p.add()
			all.Go(func() { p.start(i, "join", inv.Invite) })
		}
		all.Wait()
	}
	want := p.running()
	p.until(time.Minute, "all members to know each other", func() bool {
		for i, pr := range p.procs {
			var st api.Status
			if pr.cmd != nil && (p.try(i, &st, "status") != nil || st.Members.Live != want) {
				return false
			}
		}
		return true
	})
}

func (p *pool) running() (num int) {
	for _, pr := range p.procs {
		if pr.cmd != nil {
			num++
		}
	}
	return num
}

// start runs a member and waits until it says that it serves.
func (p *pool) start(i int, args ...string) {
	pr := p.procs[i]
	args = append(args, "--dir", pr.dir, "--json", "--name", fmt.Sprintf("n%d", i), "--domain", fmt.Sprintf("d%d", i))
	cmd := exec.Command(program, append(args, p.flags...)...)
	pr.stderr = &apitest.Output{}
	cmd.Env, cmd.Stderr = append(os.Environ(), pr.env...), pr.stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.t.Errorf("starting node %d: %v", i, err)
		return
	}
	pr.cmd, pr.ended = cmd, make(chan struct{})
	var started struct{ Node, Invite string }
	if err := json.NewDecoder(out).Decode(&started); err != nil {
		p.t.Errorf("node %d did not come up: %v\n%s", i, err, pr.stderr)
	}
	pr.invite = started.Invite
	go func() {
		_ = cmd.Wait()
		close(pr.ended)
	}()
}

// mostKB bounds the resident memory of a member, whatever it went through.
const mostKB = 400 << 10

// kill ends a member with SIGKILL, by pid.
func (p *pool) kill(i int) { p.signal(i, syscall.SIGKILL) }

// stop ends a member as an operator does.
func (p *pool) stop(i int) { p.signal(i, syscall.SIGTERM) }

func (p *pool) signal(i int, sig syscall.Signal) {
	pr := p.procs[i]
	if pr.cmd == nil {
		return
	}
	_ = syscall.Kill(pr.cmd.Process.Pid, sig)
	p.gone(i)
}

// gone waits for the end of a member's process and takes down what it used.
func (p *pool) gone(i int) {
	pr := p.procs[i]
	<-pr.ended
	if u, ok := pr.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		pr.peakKB = max(pr.peakKB, u.Maxrss)
		if u.Maxrss > mostKB {
			p.t.Errorf("node %d took %d MiB, want at most %d", i, u.Maxrss>>10, mostKB>>10)
		}
		pr.cpu += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	pr.cmd = nil
}

// stopAll ends all members at once, as operators do.
func (p *pool) stopAll() {
	var all sync.WaitGroup
	for i := range p.procs {
		all.Go(func() { p.stop(i) })
	}
	all.Wait()
}

func (p *pool) killAll() {
	for i := range p.procs {
		p.kill(i)
	}
}

// client talks to member i without a process in between.
func (p *pool) client(i int) *api.Client { return api.NewClient(p.procs[i].dir) }

func mustGUID(t testing.TB, s string) id.GUID {
	t.Helper()
	g, err := id.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// command runs a command against member i.
func (p *pool) command(i int, args ...string) (stdout, stderr []byte, exit int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"--dir", p.procs[i].dir, "--json"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), p.procs[i].env...), &out, &errs
	err := cmd.Run()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		p.t.Errorf("%s: %v", strings.Join(args, " "), err)
	}
	return out.Bytes(), errs.Bytes(), cmd.ProcessState.ExitCode()
}

// try runs a command and decodes its result.
func (p *pool) try(i int, into any, args ...string) error {
	out, errs, exit := p.command(i, args...)
	// status tells by exit 4 that blocks are below the quorum: it has answered.
	if exit != 0 && !(args[0] == "status" && exit == 4 && len(out) > 0) {
		return fmt.Errorf("atoll %s at node %d: exit %d: %s", strings.Join(args, " "), i, exit, errs)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out, into)
}

// ok is try that must succeed.
func (p *pool) ok(i int, into any, args ...string) {
	p.t.Helper()
	if err := p.try(i, into, args...); err != nil {
		p.t.Fatal(err)
	}
}

// often calls f each millisecond, until the function that it returns is called.
func often(f func()) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

// until waits for a condition.
func (p *pool) until(limit time.Duration, what string, holds func() bool) time.Duration {
	p.t.Helper()
	start := time.Now()
	over := time.After(limit)
	glance := time.NewTicker(200 * time.Millisecond)
	defer glance.Stop()
	for !holds() {
		select {
		case <-glance.C:
		case <-over:
			p.t.Fatalf("waited %s in vain for %s", limit, what)
		}
	}
	return time.Since(start)
}

// allFull waits until the pool says, at member i, that every block has all its
// copies and that everybody has had a say.
func (p *pool) allFull(i int, limit time.Duration) time.Duration {
	p.t.Helper()
	var st api.Status
	var last error
	defer func() {
		if p.t.Failed() {
			p.t.Logf("last status: %+v, %v", st, last)
		}
	}()
	return p.until(limit, "every block to have all copies", func() bool {
		st = api.Status{}
		if last = p.try(i, &st, "status"); last != nil {
			return false
		}
		s := st.Safety
		return s.Blocks > 0 && s.Full == s.Blocks && len(s.Silent) == 0 && len(s.Learning) == 0 && st.Members.Live == p.running()
	})
}
