package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/node"
)

// refusal is what a command must answer when it can't be done: the exit code,
// the error's code, and words without which a user would not know what to do.
type refusal struct {
	name string
	args []string
	exit int
	code string
	says []string
}

// refused runs a command that must fail in this way.
func (p *pool) refused(t *testing.T, i int, r refusal) {
	t.Helper()
	out, errs, exit := p.command(i, r.args...)
	var body struct{ Error *api.Error }
	// What is logged before stands on lines of its own.
	lines := bytes.Split(bytes.TrimSpace(errs), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &body); err != nil || body.Error == nil {
		t.Errorf("%s: exit %d, no error object: %s%s", r.name, exit, out, errs)
		return
	}
	e := body.Error
	if exit != r.exit || e.Code != r.code {
		t.Errorf("%s: exit %d, code %s; want %d, %s: %s", r.name, exit, e.Code, r.exit, r.code, e.Message)
	}
	text := e.Error()
	for _, word := range r.says {
		if !strings.Contains(text, word) {
			t.Errorf("%s: the message does not say %q: %s", r.name, word, text)
		}
	}
	if strings.Contains(text, "0000000") || strings.Contains(text, "dht:") || strings.Contains(text, e.Op+": "+e.Op+":") {
		t.Errorf("%s: not a message for people: %s", r.name, text)
	}
}

// at is the number of a folder that is no member of the pool yet.
func (p *pool) at(dir string) int {
	p.procs = append(p.procs, &proc{dir: dir})
	return len(p.procs) - 1
}

// mistype changes the character in the middle of a secret.
func mistype(s string) string {
	b := []byte(s)
	i := len(b) / 2
	if b[i] == 'a' {
		b[i] = 'b'
	} else {
		b[i] = 'a'
	}
	return string(b)
}

// TestRefusals: bad input of all kinds, at a pool of three. Each is refused in
// words that help, with its own exit code, and changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3)
	rnd := rand.New(rand.NewPCG(15, 16))
	f, err := p.put(0, 3<<20, rnd)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("invites", func(t *testing.T) { refuseInvites(t, p) })
	t.Run("links", func(t *testing.T) { refuseLinks(t, p, f) })
	t.Run("starts", func(t *testing.T) { refuseStarts(t, p) })
	t.Run("no node", func(t *testing.T) { refuseWithoutNode(t, p, f) })
	t.Run("files", func(t *testing.T) { refuseFiles(t, p, f) })

	if err := p.get(1, f, rnd); err != nil {
		t.Errorf("after all that was refused: %v", err)
	}
	for i := range 3 {
		var st api.Status
		p.ok(i, &st, "status")
		if st.Members.Total != 3 || st.Members.Live != 3 {
			t.Errorf("after all that was refused: %+v", st.Members)
		}
	}
}

func refuseInvites(t *testing.T, p *pool) {
	good := func(i int, args ...string) string {
		var inv api.InviteResult
		p.ok(i, &inv, append([]string{"invite"}, args...)...)
		return inv.Invite
	}
	expired := good(0, "--ttl", "1s")
	born := time.Now()
	used := good(0)

	// A pool of one more, and one that takes its address over.
	other := p.at(filepath.Join(p.dir, "other"))
	port := freePort(t)
	start := func(i int) {
		p.start(i, "up", "--pool", "other", "--listen", port)
	}
	start(other)
	foreign := good(other)
	p.stop(other)
	third := p.at(filepath.Join(p.dir, "third"))
	start(third)
	unheard := p.at(filepath.Join(p.dir, "unheard"))
	defer p.stop(third)
	p.stop(third)

	join := func(invite string) []string { return append([]string{"join", invite}, p.flags...) }
	p.refused(t, unheard, refusal{
		"nobody answers", join(foreign), 4, "unavailable",
		[]string{port, "check that the node that gave it runs"},
	})
	p.start(third, "up", "--listen", port)

	// The used one has been used by a member that has left since.
	guest := p.at(filepath.Join(p.dir, "guest"))
	p.start(guest, "join", used)
	p.ok(guest, nil, "leave", "--yes")
	p.gone(guest)

	p.until(5*time.Second, "the invite to expire", func() bool { return time.Since(born) > 1200*time.Millisecond })
	for _, r := range []refusal{
		{"mistyped", join(mistype(used)), 2, "bad_invite", []string{"mistyped"}},
		{"cut off", join(used[:len(used)/2]), 2, "bad_invite", []string{"mistyped or cut off"}},
		{"no invite", join("atoll:r1:aebagbaf"), 2, "bad_invite", []string{"atoll-invite1:"}},
		{"expired", join(expired), 5, "invite_expired", []string{"expired", "UTC", "ask for a new one"}},
		{"used up", join(used), 5, "invite_used", []string{"used up", "ask for a new one"}},
		{"another pool at its address", join(foreign), 2, "wrong_pool", []string{"another pool"}},
	} {
		i := p.at(filepath.Join(p.dir, "x-"+strings.ReplaceAll(r.name, " ", "-")))
		p.refused(t, i, r)
		if _, err := os.Stat(filepath.Join(p.procs[i].dir, "member")); err == nil {
			t.Errorf("%s: the folder is that of a member now", r.name)
		}
	}
	p.refused(t, other, refusal{"folder of another pool's member", join(good(0)), 1, "bad_dir", []string{"member of a pool", "--dir"}})
	p.refused(t, 1, refusal{"invite by a member", []string{"invite"}, 5, "forbidden", []string{"only admins invite"}})
}

// freePort is an address on which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func refuseLinks(t *testing.T, p *pool, f stored) {
	other := p.at(filepath.Join(p.dir, "links-other"))
	p.start(other, "up", "--pool", "other")
	defer p.stop(other)
	out := filepath.Join(p.dir, "not-written")
	var gone api.PutResult
	file := filepath.Join(p.dir, "gone.txt")
	if err := os.WriteFile(file, []byte("soon gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.ok(0, &gone, "put", file)
	p.ok(0, nil, "rm", gone.Link)
	for _, r := range []refusal{
		{"a flipped character", []string{"get", mistype(f.link), "-o", out}, 2, "bad_link", []string{"typing error"}},
		{"cut off", []string{"get", f.link[:60], "-o", out}, 2, "bad_link", []string{"typing error", "characters"}},
		{"an invite", []string{"stat", "atoll-invite1:aebagbaf"}, 2, "bad_link", []string{"join"}},
		{"removed", []string{"get", gone.Link, "-o", out}, 3, "removed", []string{"removed by its owner"}},
		{"a name that nobody put", []string{"rm", "nobody.txt"}, 3, "not_found", []string{"no file of this name"}},
		{"no such block", []string{"dht", "get", strings.Repeat("7", 64)}, 3, "not_found", nil},
		{"half a GUID", []string{"dht", "get", "77"}, 2, "bad_request", []string{"64"}},
	} {
		p.refused(t, 1, r)
	}
	p.refused(t, other, refusal{"another pool", []string{"get", f.link, "-o", out}, 2, "wrong_pool", []string{"another pool"}})
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused get has written its output")
	}
}

func refuseStarts(t *testing.T, p *pool) {
	strange := filepath.Join(p.dir, "strange")
	if err := os.Mkdir(strange, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strange, "diary.txt")
	if err := os.WriteFile(file, []byte("dear diary"), 0o600); err != nil {
		t.Fatal(err)
	}
	var st api.Status
	p.ok(0, &st, "status")
	up := func(args ...string) []string { return append(append([]string{"up"}, args...), p.flags...) }
	for _, r := range []struct {
		dir string
		refusal
	}{
		{filepath.Join(p.dir, "port"), refusal{"port in use", up("--listen", st.Node.Addrs[0]), 1, "port_in_use", []string{st.Node.Addrs[0], "--listen"}}},
		{strange, refusal{"not ours", up(), 1, "bad_dir", []string{strange, "diary.txt", "--dir"}}},
		{file, refusal{"a file", up(), 1, "bad_dir", []string{file, "cannot be written", "--dir"}}},
		{filepath.Join(file, "below"), refusal{"below a file", up(), 1, "bad_dir", []string{"cannot be written", "--dir"}}},
		{"/proc/atoll", refusal{"a file system that takes no folders", up(), 1, "bad_dir", []string{"/proc/atoll", "cannot be written", "--dir"}}},
		{p.procs[1].dir, refusal{"in use", up(), 1, "dir_in_use", []string{p.procs[1].dir, "stop it first", "--dir"}}},
		{filepath.Join(p.dir, "small"), refusal{"too small", append(up(), "--limit", "1MiB"), 2, "bad_request", []string{"256MiB"}}},
	} {
		p.refused(t, p.at(r.dir), r.refusal)
	}
	copied := filepath.Join(p.dir, "copied")
	if err := os.CopyFS(copied, identityOf(p.procs[2].dir)); err != nil {
		t.Fatal(err)
	}
	p.ok(2, &st, "status")
	p.refused(t, p.at(copied), refusal{
		"a copy of the folder of a member that runs", up(), 1, "dir_in_use",
		[]string{st.Node.Addrs[0], copied, "stop that one", "atoll invite", "atoll join INVITE"},
	})
	if entries, err := os.ReadDir(strange); err != nil || len(entries) != 1 {
		t.Errorf("a folder that is not ours was changed: %v, %v", entries, err)
	}
	t.Run("read-only", func(t *testing.T) { refuseReadOnly(t, p) })
	for name, mode := range map[string]os.FileMode{".": os.ModeDir | 0o700, node.SocketName: os.ModeSocket | 0o600} {
		if info, err := os.Stat(filepath.Join(p.procs[0].dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v: %v", name, info.Mode(), mode, err)
		}
	}
}

// identityOf is a member's folder without its store and its socket.
func identityOf(dir string) fs.FS { return onlyFiles{os.DirFS(dir)} }

type onlyFiles struct{ fs.FS }

func (f onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return !e.Type().IsRegular() }), err
}

// refuseReadOnly: permissions do not bind root, for whom a file system is mounted
// that nobody can write to.
func refuseReadOnly(t *testing.T, p *pool) {
	dir := filepath.Join(p.dir, "read-only")
	if os.Geteuid() == 0 {
		defer mount(t, dir, "ro,size=1m")()
	} else if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	p.refused(t, p.at(dir), refusal{"read-only", append([]string{"up"}, p.flags...), 1, "bad_dir", []string{dir, "cannot be written"}})
}

// refuseWithoutNode: every command that needs a node says how to get one.
func refuseWithoutNode(t *testing.T, p *pool, f stored) {
	nobody := p.at(filepath.Join(p.dir, "nobody"))
	file := filepath.Join(p.dir, "some.txt")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	guid := strings.Repeat("7", 64)
	for _, args := range []string{
		"status", "peers", "invite", "revoke " + guid + " --yes", "leave --yes", "put " + file, "get " + f.link + " -o x", "ls",
		"rm x", "stat " + f.link, "verify --all", "repair --all", "lookup " + guid, "route " + guid, "table",
		"dht put " + file, "dht get " + guid, "dht remove " + guid,
	} {
		p.refused(t, nobody, refusal{args, strings.Fields(args), 4, "not_running", []string{"atoll up", p.procs[nobody].dir}})
	}
	if _, err := os.Stat(p.procs[nobody].dir); err == nil {
		t.Error("a command without a node has made its folder")
	}
}

func refuseFiles(t *testing.T, p *pool, f stored) {
	out := filepath.Join(p.dir, "kept.txt")
	if err := os.WriteFile(out, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []refusal{
		{"the output exists", []string{"get", f.link, "-o", out}, 5, "exists", []string{"--force", "-o"}},
		{"no such file", []string{"put", filepath.Join(p.dir, "none")}, 2, "bad_request", []string{"no such file"}},
		{"a folder", []string{"put", p.dir}, 2, "bad_request", []string{"tar"}},
		{"more waited for than kept", []string{"put", out, "--k", "2", "--w", "3"}, 2, "bad_request", []string{"--w"}},
	} {
		p.refused(t, 1, r)
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != "mine" {
		t.Errorf("the file that was there is %q now, %v", b, err)
	}
	p.ok(1, nil, "get", f.link, "-o", out, "--force")
	if info, err := os.Stat(out); err != nil || info.Size() != f.size {
		t.Errorf("get --force: %v, %v", info, err)
	}
	t.Run("changing", func(t *testing.T) { refuseChanging(t, p) })
}

// refuseChanging puts a file that grows all the while.
func refuseChanging(t *testing.T, p *pool) {
	rnd := rand.New(rand.NewPCG(17, 18))
	path := filepath.Join(p.dir, "log.txt")
	writeFile(t, path, 24<<20, rnd)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop := often(func() { _, _ = f.WriteString("one line more\n") })
	p.refused(t, 0, refusal{"changing", []string{"put", path}, 5, "changed", []string{"changed while it was put"}})
	stop()
	p.ok(0, nil, "put", path)
}

// started is a command under way in its own process.
type command struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	errs bytes.Buffer
}

func (p *pool) begin(i int, args ...string) *command {
	p.t.Helper()
	c := &command{cmd: exec.Command(program, append([]string{"--dir", p.procs[i].dir, "--json"}, args...)...)}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errs
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (c *command) end(t *testing.T) (exit int) {
	t.Helper()
	err := c.cmd.Wait()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return c.cmd.ProcessState.ExitCode()
}

// underWay waits until a put at member i has acknowledged blocks in its journal.
func (p *pool) underWay(i int) {
	p.t.Helper()
	p.soon(func() bool {
		journals, err := filepath.Glob(filepath.Join(p.procs[i].dir, "uploads", "*"))
		for _, path := range journals {
			if info, err := os.Stat(path); err == nil && info.Size() > 4<<10 {
				return true
			}
		}
		return err != nil
	})
}

// soon looks at a condition often: what it waits for is soon over.
func (p *pool) soon(holds func() bool) {
	p.t.Helper()
	limit := time.After(30 * time.Second)
	glance := time.NewTicker(time.Millisecond)
	defer glance.Stop()
	for !holds() {
		select {
		case <-glance.C:
		case <-limit:
			p.t.Fatal("waited in vain for half a minute")
		}
	}
}

// idle waits until no job runs at member i.
func (p *pool) idle(i int) {
	p.t.Helper()
	c := api.NewClient(p.procs[i].dir)
	defer c.Close()
	p.until(30*time.Second, "the jobs to end", func() bool {
		js, err := c.Jobs(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		return !slices.ContainsFunc(js.Jobs, func(j api.Job) bool { return j.State == "running" })
	})
}

// TestInterrupted: Ctrl-C ends a put and a get with 130; the same command again
// goes on from there. A member that is killed in the middle of another's put
// does not stop it.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3)
	rnd := rand.New(rand.NewPCG(19, 20))
	const size = 96 << 20
	path, out := filepath.Join(p.dir, "in"), filepath.Join(p.dir, "out")
	sum := writeFile(t, path, size, rnd)

	interrupt := func(i int, underWay func(), op string, args ...string) {
		t.Helper()
		c := p.begin(i, append([]string{op}, args...)...)
		underWay()
		if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if exit := c.end(t); exit != 130 || !strings.Contains(c.errs.String(), "run the same command again to continue") {
			t.Fatalf("%s, interrupted: exit %d: %s%s", op, exit, c.out.String(), c.errs.String())
		}
		p.idle(i)
	}
	interrupt(0, func() { p.underWay(0) }, "put", path)
	var put api.PutResult
	p.ok(0, &put, "put", path)
	if put.Resumed == 0 {
		t.Errorf("the put did not go on: %+v", put)
	}
	interrupt(1, func() {
		p.soon(func() bool {
			var part syscall.Stat_t
			return syscall.Stat(out+".atoll-part", &part) == nil && part.Blocks*512 > 8<<20
		})
	}, "get", put.Link, "-o", out)
	var got api.GetResult
	p.ok(1, &got, "get", put.Link, "-o", out)
	if got.Resumed == 0 || got.Size != size {
		t.Errorf("the get did not go on: %+v", got)
	}
	if err := p.get(1, stored{link: put.Link, size: size, sum: sum}, rnd); err != nil {
		t.Error(err)
	}
	t.Logf("put went on with %d of %d blocks there, get with %d of %d bytes", put.Resumed, put.Blocks, got.Resumed, got.Size)

	sum = writeFile(t, path, size/2, rnd)
	c := p.begin(0, "put", path)
	p.underWay(0)
	p.kill(2)
	if exit := c.end(t); exit != 0 {
		t.Fatalf("put while a member was killed: exit %d: %s", exit, c.errs.String())
	}
	if err := json.Unmarshal(c.out.Bytes(), &put); err != nil {
		t.Fatal(err)
	}
	if err := p.get(1, stored{link: put.Link, size: size / 2, sum: sum}, rnd); err != nil {
		t.Error(err)
	}
}

// TestBelowQuorum: of three members one is left. A put is refused and names
// those who are silent and what can be done; --w 1 does it, and says how many
// copies there are; what is revoked no longer counts.
func TestBelowQuorum(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3)
	rnd := rand.New(rand.NewPCG(21, 22))
	f, err := p.put(0, 100_000, rnd)
	if err != nil {
		t.Fatal(err)
	}
	p.allFull(0, 20*time.Second)
	var st api.Status
	p.ok(0, &st, "status")
	p.kill(1)
	p.kill(2)
	path := filepath.Join(p.dir, "alone.txt")
	if err := os.WriteFile(path, []byte("nobody else is here"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.refused(t, 0, refusal{"below the quorum", []string{"put", path}, 4, "no_quorum", []string{"n1", "n2"}})

	c := exec.Command(program, "--dir", p.procs[0].dir, "put", path, "--w", "1")
	var errs bytes.Buffer
	c.Stderr = &errs
	link, err := c.Output()
	if err != nil || !strings.Contains(errs.String(), "1 of 3 copies") {
		t.Errorf("put --w 1: %v: %s", err, errs.String())
	}
	if err := p.get(0, f, rnd); err != nil {
		t.Errorf("what was put before: %v", err)
	}
	out, _, exit := p.command(0, "get", strings.TrimSpace(string(link)), "-o", "-")
	if exit != 0 || string(out) != "nobody else is here" {
		t.Errorf("what was put with --w 1: exit %d, %q", exit, out)
	}
	out, _, exit = p.command(0, "status")
	if err := json.Unmarshal(out, &st); err != nil || exit != 4 || st.Safety.BelowW == 0 {
		t.Errorf("status below the quorum: exit %d, %s", exit, out)
	}

	p.ok(0, nil, "revoke", "n1", "--yes")
	p.ok(0, nil, "revoke", "n2", "--yes")
	p.until(20*time.Second, "writes without those who were revoked", func() bool {
		return p.try(0, nil, "put", path) == nil
	})
	var peers api.Peers
	p.ok(0, &peers, "peers")
	for _, m := range peers.Peers {
		if want := map[string]string{"n0": "self", "n1": "revoked", "n2": "revoked"}[m.Name]; m.State != want {
			t.Errorf("%s is %s, want %s", m.Name, m.State, want)
		}
	}
}

// TestFull: a pool that is full says so and names the fullest; what is there
// is read and removed as before, and there is room again.
func TestFull(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3, "--limit", "256MiB")
	rnd := rand.New(rand.NewPCG(23, 24))
	var files []stored
	for len(files) < 20 {
		f, err := p.put(0, 48<<20, rnd)
		if err != nil {
			t.Logf("full after %d files: %v", len(files), err)
			break
		}
		files = append(files, f)
	}
	path := filepath.Join(p.dir, "too-much")
	writeFile(t, path, 48<<20, rnd)
	p.refused(t, 1, refusal{"full", []string{"put", path}, 5, "full", []string{"n0", "n1", "n2", "remove files"}})
	p.readAll(files)
	p.ok(0, nil, "rm", files[0].link)
	p.until(20*time.Second, "room again", func() bool {
		f, err := p.put(2, 1<<20, rnd)
		if err == nil {
			files[0] = f
		}
		return err == nil
	})
	p.readAll(files)
}
