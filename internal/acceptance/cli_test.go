package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
)

// words runs a command without --json, as people do, with text on its standard
// input.
func (p *pool) words(i int, input string, args ...string) (stdout, stderr string, exit int) {
	p.t.Helper()
	cmd := exec.Command(program, append([]string{"--dir", p.procs[i].dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	_ = cmd.Run() // its exit code tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// says runs a command that must succeed and say something.
func (p *pool) says(i int, text string, args ...string) string {
	p.t.Helper()
	out, errs, exit := p.words(i, "", args...)
	if exit != 0 || !strings.Contains(out, text) {
		p.t.Errorf("atoll %s: exit %d, want %q in: %s%s", strings.Join(args, " "), exit, text, out, errs)
	}
	return out
}

// TestCommands runs the commands that the other tests do not, once each, on a
// pool of three processes.
func TestCommands(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3)
	rnd := rand.New(rand.NewPCG(25, 26))
	f, err := p.put(0, 3<<20, rnd)
	if err != nil {
		t.Fatal(err)
	}
	p.allFull(0, 20*time.Second)

	t.Run("look", func(t *testing.T) { lookAround(t, p) })
	t.Run("check", func(t *testing.T) { checkFiles(t, p, f) })
	t.Run("dht", func(t *testing.T) { useBlocks(t, p) })
	t.Run("signed", func(t *testing.T) { useSigned(t, p) })
	t.Run("doctor", func(t *testing.T) { seeDoctor(t, p, f) })
	t.Run("leave", func(t *testing.T) { leaveAndRevoke(t, p, f) })
}

func lookAround(t *testing.T, p *pool) {
	out, _, exit := p.command(0, "status")
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(out, &fields); err != nil || exit != 0 {
		t.Fatalf("status --json: exit %d, %v: %s", exit, err, out)
	}
	for _, name := range []string{"pool", "node", "members", "safety", "repair", "disk", "warnings"} {
		if fields[name] == nil {
			t.Errorf("status --json has no %s: %s", name, out)
		}
	}
	for _, question := range []string{"Is my data safe?        Yes: all", "Which disk fills next?", "What is being repaired? Nothing.", "How long still?"} {
		p.says(0, question, "status")
	}
	p.says(1, "n2", "peers")
	p.says(0, "Usage:", "help")
	p.says(0, "complete -o default -F __start_atoll atoll", "completion", "bash")
	p.says(0, "atoll", "version")
	key := strings.Repeat("7", 64)
	var found api.LookupResult
	p.ok(0, &found, "lookup", key)
	var way api.RouteResult
	p.ok(0, &way, "route", key)
	if len(found.Replicas) != 3 || len(way.Hops) == 0 || way.Hops[len(way.Hops)-1].GUID != found.Root {
		t.Errorf("lookup and route disagree: %+v, %+v", found, way)
	}
	p.says(0, "n0", "lookup", key)
	p.says(0, "7", "route", key)
	p.says(0, " ", "table")
}

func checkFiles(t *testing.T, p *pool, f stored) {
	var v api.VerifyResult
	p.ok(0, &v, "verify", "--all", "--deep")
	if v.Blocks == 0 || v.OK != v.Blocks || v.Corrupt+v.Missing != 0 || len(v.Unrepairable) != 0 {
		t.Errorf("verify --all --deep: %+v", v)
	}
	p.says(0, "with all copies; 0 copies corrupt, 0 missing", "verify", "--all", "--deep")
	p.says(2, "0 repaired", "repair", f.link)

	// A file with fewer copies than it is to have is repaired at once.
	path := filepath.Join(p.dir, "thin.txt")
	writeFile(t, path, 300_000, rand.New(rand.NewPCG(27, 28)))
	p.kill(2)
	var thin api.PutResult
	p.ok(0, &thin, "put", path)
	p.start(2, "up")
	p.until(20*time.Second, "the member to be back", func() bool {
		var st api.Status
		return p.try(0, &st, "status") == nil && st.Members.Live == 3
	})
	p.ok(1, &v, "repair", thin.VerifyLink)
	p.until(20*time.Second, "every copy to be there", func() bool {
		return p.try(1, &v, "verify", thin.VerifyLink) == nil && v.OK == v.Blocks
	})
	p.refused(t, 1, refusal{"reading by a verify link", []string{"get", thin.VerifyLink, "-o", path + "2"}, 5, "forbidden", []string{"read link"}})
	p.says(0, "thin.txt", "ls")
	p.says(0, "Removed", "rm", "thin.txt")
	if out := p.says(0, "", "ls"); strings.Contains(out, "thin.txt") {
		t.Errorf("a removed file is listed: %s", out)
	}
}

func useBlocks(t *testing.T, p *pool) {
	out, errs, exit := p.words(0, "hello\n", "dht", "put", "-")
	guid := strings.TrimSpace(out)
	if exit != 0 || len(guid) != 64 || !strings.Contains(errs, "synced it") {
		t.Fatalf("dht put: exit %d, %q, %q", exit, out, errs)
	}
	if out, errs, exit = p.words(2, "", "dht", "get", guid); exit != 0 || out != "hello\n" {
		t.Errorf("dht get: exit %d, %q, %q", exit, out, errs)
	}
	var removed api.DHTRemoveResult
	p.ok(0, &removed, "dht", "remove", guid)
	if len(removed.Receipts) < 2 || removed.Receipts[0].Node.IsZero() {
		t.Errorf("dht remove: %+v", removed)
	}
	p.refused(t, 1, refusal{"a removed block", []string{"dht", "get", guid}, 3, "removed", []string{"removed"}})
	big := filepath.Join(p.dir, "big")
	writeFile(t, big, 1<<20+1, rand.New(rand.NewPCG(29, 30)))
	p.refused(t, 0, refusal{"a block that is too large", []string{"dht", "put", big}, 2, "bad_request", []string{"atoll put"}})
}

func useSigned(t *testing.T, p *pool) {
	key := filepath.Join(p.procs[0].dir, "owner.key")
	value := func(text string) string {
		path := filepath.Join(p.dir, "value")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := func(verb, what string, more ...string) []string {
		return append([]string{"dht", verb, what, "--sign", key, "--salt", "greeting"}, more...)
	}
	var put api.DHTPutResult
	p.ok(0, &put, args("put", value("one"), "--cas", "0")...)
	if put.Seq != 1 {
		t.Fatalf("the first value: %+v", put)
	}
	p.ok(0, &put, args("put", value("two"), "--cas", "1")...)
	p.refused(t, 0, refusal{"cas of a value that is gone", args("put", value("three"), "--cas", "1"), 5, "cas", []string{"number 2", "--cas 2"}})
	p.refused(t, 0, refusal{"an old number", args("put", value("three"), "--seq", "1"), 5, "stale_seq", []string{"number 2", "--seq"}})
	guid := put.GUID.String()
	for i, more := range [][]string{nil, nil, {"--any"}} {
		out, errs, exit := p.words(i, "", append([]string{"dht", "get", guid}, more...)...)
		if exit != 0 || out != "two" || !strings.Contains(errs, "Value 2") {
			t.Errorf("dht get %v at node %d: exit %d, %q, %q", more, i, exit, out, errs)
		}
	}
	p.ok(0, nil, args("remove", guid)...)
	p.until(10*time.Second, "the value to be gone", func() bool {
		_, _, exit := p.command(1, "dht", "get", guid)
		return exit == 3
	})
	p.ok(0, &put, args("put", value("again"))...)
	if put.Seq <= 3 {
		t.Errorf("a value after a removal has number %d, not one above it", put.Seq)
	}
}

func seeDoctor(t *testing.T, p *pool, f stored) {
	backup := filepath.Join(p.dir, "backup")
	out, _, exit := p.words(0, "", "doctor")
	if exit > 1 || !strings.Contains(out, "folder") || strings.Contains(out, "FAIL") != (exit == 1) {
		t.Errorf("doctor: exit %d: %s", exit, out)
	}
	out, _, _ = p.words(0, "", "doctor", "--backup", backup)
	if !strings.Contains(out, "keep it where only you can read it") {
		t.Errorf("doctor --backup: %s", out)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v, %v", info, err)
	}
	_, _, _ = p.command(1, "doctor", "--backup", backup)
	p.refused(t, 0, refusal{"mending under a running node", []string{"doctor", "--restore", backup}, 1, "dir_in_use", []string{"stop it first"}})

	// The machine is lost; another takes its member over.
	p.kill(0)
	old := p.procs[0].dir
	p.procs[0].dir = filepath.Join(p.dir, "restored")
	p.says(0, "start the node: atoll up", "doctor", "--restore", backup)
	p.refused(t, 0, refusal{"restoring over a member", []string{"doctor", "--restore", backup}, 1, "bad_dir", []string{"member of a pool", "empty"}})
	out, _, exit = p.words(0, "", "doctor")
	if exit != 4 || !strings.Contains(out, "identity") {
		t.Errorf("doctor of a folder where no node runs: exit %d: %s", exit, out)
	}
	p.start(0, "up")
	p.until(30*time.Second, "the restored member to be in", func() bool {
		var st api.Status
		return p.try(1, &st, "status") == nil && st.Members.Live == 3 && p.try(0, &st, "status") == nil && st.Node.State == "ready"
	})
	if out, _, _ := p.words(0, "", "ls"); out == "" {
		t.Error("the catalogue did not come back")
	}
	if err := p.get(0, f, rand.New(rand.NewPCG(31, 32))); err != nil {
		t.Errorf("reading through the restored member: %v", err)
	}
	if err := os.RemoveAll(old); err != nil {
		t.Error(err)
	}
}

func leaveAndRevoke(t *testing.T, p *pool, f stored) {
	if _, errs, exit := p.words(2, "", "leave"); exit != 2 || !strings.Contains(errs, "--yes") {
		t.Errorf("leave without an answer: exit %d: %s", exit, errs)
	}
	p.allFull(1, 60*time.Second)
	p.says(2, "handed over", "leave", "--yes", "--reason", "machine retired")
	left := p.procs[2].cmd
	p.gone(2)
	if code := left.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the node that left ended with %d: %s", code, p.procs[2].stderr)
	}
	if err := p.get(1, f, rand.New(rand.NewPCG(33, 34))); err != nil {
		t.Errorf("after a member left: %v", err)
	}

	p.refused(t, 1, refusal{"revoking as a member", []string{"revoke", "n0", "--yes"}, 5, "forbidden", []string{"only an admin"}})
	p.refused(t, 0, refusal{"revoking oneself", []string{"revoke", "n0", "--yes"}, 2, "bad_request", []string{"atoll leave"}})
	p.refused(t, 0, refusal{"revoking nobody", []string{"revoke", "n7", "--yes"}, 2, "bad_request", []string{"name"}})
	out, errs, exit := p.words(0, "", "revoke", "n1", "--yes", "--reason", "stolen laptop")
	if exit != 0 || !strings.Contains(out, "Revoked n1") || !strings.Contains(errs, "would have fewer copies") {
		t.Errorf("revoke: exit %d: %s%s", exit, out, errs)
	}
	p.until(20*time.Second, "the revoked member to be out", func() bool {
		var st api.Status
		return p.try(0, &st, "status") == nil && st.Members.Total == 1 && st.Members.Live == 1
	})
	var peers api.Peers
	p.ok(0, &peers, "peers")
	states := make(map[string]string)
	for _, m := range peers.Peers {
		states[m.Name] = m.State
	}
	if got := fmt.Sprint(states["n0"], " ", states["n1"], " ", states["n2"]); got != "self revoked left" {
		t.Errorf("n0, n1 and n2 are %s", got)
	}
	if err := p.get(0, f, rand.New(rand.NewPCG(35, 36))); err != nil {
		t.Errorf("after a member was revoked: %v", err)
	}
}
