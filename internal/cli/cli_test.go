package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/id"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files; then read the diff")

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){
		"atoll": func() { os.Exit(Main(testHooks())) },
		"bare":  func() { os.Exit(Main(Hooks{})) },
	})
}

// leakless fails a run that leaves a goroutine behind.
type leakless struct{ m *testing.M }

func (l leakless) Run() int {
	code := l.m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testHooks say on standard error what they were asked for.
func testHooks() Hooks {
	tell := func(what string, o any) {
		b, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, "%s %s\n", what, b)
	}
	serve := func(ctx context.Context, o NodeOptions, s Started, started func(Started)) error {
		if o.Limit == 1<<30 {
			return api.Errorf(api.PortInUse, "", "0.0.0.0:4001", "the port is taken")
		}
		started(s)
		if os.Getenv("TEST_SERVE") != "" {
			<-ctx.Done()
		}
		return nil
	}
	return Hooks{
		Up: func(ctx context.Context, o UpOptions, started func(Started)) error {
			o.Log = nil
			tell("up", o)
			return serve(ctx, o.NodeOptions, Started{Node: apitest.Self, Pool: id.FromPrefix("feed"), Name: "lab", Invite: "atoll-invite1:abc", Nodes: []id.GUID{apitest.Self}}, started)
		},
		Join: func(ctx context.Context, o JoinOptions, started func(Started)) error {
			o.Log = nil
			tell("join", o)
			return serve(ctx, o.NodeOptions, Started{Node: apitest.Self, Pool: id.FromPrefix("feed"), Name: "lab", Nodes: []id.GUID{apitest.Self, apitest.Others[0]}}, started)
		},
		Demo: func(_ context.Context, o DemoOptions, w io.Writer) error {
			tell("demo", o)
			_, err := io.WriteString(w, "all bytes equal\n")
			if strings.HasSuffix(o.File, "differs") {
				err = api.Errorf(api.Corrupt, "", "", "byte 7 differs")
			}
			return err
		},
		Doctor: func(_ context.Context, o DoctorOptions) ([]api.Check, error) {
			tell("doctor", o)
			if _, err := os.Stat(filepath.Join(o.Dir, "FAILED")); err == nil && !o.AcceptDisk {
				return []api.Check{{Check: "disk", Detail: "failed", Fix: "atoll doctor --accept-disk"}}, nil
			}
			return []api.Check{{Check: "disk", OK: true, Detail: "fine"}}, nil
		},
		Version: api.Version{Version: "1.0", Commit: "abc123", Go: "go1.26", Wire: api.WireRange{Min: 1, Max: 2}},
	}
}

type nodeKey struct{}

// running is the node of a script.
type running struct {
	node *apitest.Node
	stop func() error
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *rewrite,
		Setup: func(e *testscript.Env) error {
			dir := filepath.Join(e.WorkDir, "dir")
			e.Setenv("ATOLL_DIR", dir)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TZ", "UTC")
			e.Values[nodeKey{}] = &running{node: apitest.New()}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "big"), make([]byte, 1<<20+1), 0o600); err != nil {
				return err
			}
			return os.MkdirAll(dir, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"node": nodeCommand, "exits": exitsCommand,
			"var": func(ts *testscript.TestScript, _ bool, args []string) { // var NAME: what was printed last
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
		},
	})
}

// exitsCommand runs a program that must exit with a code: exits CODE PROGRAM …
func exitsCommand(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// nodeCommand makes and changes the node that a script talks to:
//
//	node start            serves it in $ATOLL_DIR
//	node stop
//	node add VAR NAME TEXT  stores a file, its link in $VAR; TEXT may be @SIZE
//	node fail OP CODE TEXT
//	node after BYTES      failures come so late
//	node safety FULL DEGRADED BELOW LOST
//	node repair BLOCKS SECONDS
//	node silent           one member does not answer
//	node learning         one member has just started
//	node isolated         it has found no other member
//	node alone            they have all gone
//	node shared           others keep what dht remove ends
//	node called OP        OP has reached the node
func nodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value(nodeKey{}).(*running)
	num := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "start":
		stop, err := apitest.Serve(r.node, ts.Getenv("ATOLL_DIR"))
		ts.Check(err)
		r.stop = stop
		ts.Defer(func() {
			if r.stop != nil {
				ts.Check(r.stop())
			}
		})
	case "stop":
		ts.Check(r.stop())
		r.stop = nil
	case "add":
		text := args[3]
		if n, ok := strings.CutPrefix(text, "@"); ok {
			size, err := strconv.Atoi(n)
			ts.Check(err)
			text = strings.Repeat("x", size)
		}
		name, err := strconv.Unquote(`"` + args[2] + `"`)
		ts.Check(err)
		ts.Setenv(args[1], r.node.Add(name, []byte(text), false).Link)
	case "fail":
		e := api.Errorf(args[2], "", "", "%s", args[3])
		if args[2] == api.NoQuorum {
			e.Detail = &api.Detail{Nodes: apitest.Others[:2]}
		}
		if args[2] == api.Busy {
			e.AfterMS = 1500
		}
		r.node.Change(func(n *apitest.Node) { n.Fail[args[1]] = e })
	case "shared":
		r.node.Change(func(n *apitest.Node) { n.Shared = true })
	case "after":
		r.node.Change(func(n *apitest.Node) { n.FailAfter = num(1) })
	case "safety":
		r.node.Change(func(n *apitest.Node) {
			s := &n.Now.Safety
			s.Full, s.Degraded, s.BelowW, s.Lost = num(1), num(2), num(3), num(4)
			s.Blocks = s.Full + s.Degraded + s.BelowW + s.Lost
		})
	case "repair":
		eta := num(2)
		r.node.Change(func(n *apitest.Node) {
			n.Now.Repair = api.RepairStatus{Queued: num(1), Bytes: num(1) << 20, ETAS: &eta}
		})
	case "silent":
		r.node.Change(func(n *apitest.Node) {
			n.Now.Safety.Silent = apitest.Others[:1]
			n.Now.Warnings = []string{"one admin only\x1b[2J"}
		})
	case "learning":
		r.node.Change(func(n *apitest.Node) {
			n.Now.Safety.Silent, n.Now.Safety.Learning = []id.GUID{}, apitest.Others[:1]
		})
	case "isolated":
		r.node.Change(func(n *apitest.Node) { n.Now.Node.State = "joining" })
	case "alone":
		r.node.Change(func(n *apitest.Node) { n.Now.Node.State, n.Now.Members.Live = "ready", 1 })
	case "called":
		found := false
		for _, c := range r.node.Calls() {
			found = found || c == args[1]
		}
		if found == neg {
			ts.Fatalf("called: %v", r.node.Calls())
		}
	default:
		ts.Fatalf("node %s?", args[0])
	}
}

// Every command explains itself and shows an example that begins as one would
// type it; every flag has a meaning.
func TestHelp(t *testing.T) {
	a := &app{out: io.Discard, err: io.Discard}
	root := a.root()
	root.InitDefaultHelpCmd()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || !strings.Contains(c.Example, "atoll") {
			t.Errorf("%s: short %q, long %q, example %q", c.CommandPath(), c.Short, c.Long, c.Example)
		}
		for _, l := range strings.Split(c.Long, "\n") {
			if len([]rune(l)) > 80 && !strings.HasPrefix(l, "  ") {
				t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), len([]rune(l)), l)
			}
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(root)
	want := "up join invite status peers put get rm ls stat verify repair route lookup table dht revoke leave sim doctor demo completion version"
	for name := range strings.FieldsSeq(want) {
		if c, _, err := root.Find([]string{name}); err != nil || c == root {
			t.Errorf("no command %s", name)
		}
	}
}

// Each setting has its own key, variable and, within a command, flag.
func TestSettings(t *testing.T) {
	keys, envs := map[string]bool{}, map[string]bool{}
	for _, s := range settings {
		if keys[s.key] || envs[s.env()] || s.meaning == "" || s.flag == "" {
			t.Errorf("%+v: twice or without a meaning", s)
		}
		keys[s.key], envs[s.env()] = true, true
		if err := s.check(s.def); err != nil {
			t.Errorf("%s: default: %v", s.key, err)
		}
	}
}

func TestConfigDoc(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "config.md")
	if *rewrite {
		if err := os.WriteFile(path, []byte(ConfigDoc()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != ConfigDoc() {
		t.Errorf("docs/config.md differs from the table of settings (%v): go test ./internal/cli -run ConfigDoc -rewrite", err)
	}
}
