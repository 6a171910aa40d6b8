package p2p

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

// punchRole names, in the environment, what a process of TestHolePunch is.
const punchRole = "ATOLL_TEST_PUNCH"

// TestHolePunch builds a small internet of network namespaces: a relay with a
// public address, and two nodes each behind a translator that lets nothing in
// that was not asked for.
//
//	a 192.168.11.2 ── translator 45.45.0.11 ──┐
//	                                          ├── relay 45.45.0.1
//	b 192.168.12.2 ── translator 45.45.0.12 ──┘
//
// b reaches a through the relay, both then open a direct way, and when the
// relay is killed they go on talking. It needs root, ip and nft.
func TestHolePunch(t *testing.T) {
	if role := os.Getenv(punchRole); role != "" {
		punchProcess(t, role)
		return
	}
	if why := noInternet(); why != "" {
		machinetest.Skip(t, why)
	}
	net := newInternet(t)
	relay := net.start(t, "relay", nil)
	at := relay.expect(t, "at ")
	a := net.start(t, "a", []string{"RELAY=" + at})
	addrs := a.expect(t, "at ")
	b := net.start(t, "b", []string{"RELAY=" + at, "OTHER=" + addrs})
	b.expect(t, "relayed")
	begin := time.Now()
	b.expect(t, "direct")
	t.Logf("direct %v after relayed", time.Since(begin))
	relay.kill()
	fmt.Fprintln(b.in, "go on")
	b.expect(t, "still talking")
}

func noInternet() string {
	if os.Getuid() != 0 {
		return "not root"
	}
	for _, p := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			return "no program " + p
		}
	}
	return ""
}

// internet is a set of network namespaces.
type internet struct{ prefix string }

func newInternet(t *testing.T) internet {
	t.Helper()
	n := internet{fmt.Sprintf("atoll%d-", os.Getpid())}
	run := func(stdin, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
	ip := func(line string) {
		t.Helper()
		args := strings.Fields(line)
		for i, a := range args {
			if name, ok := strings.CutPrefix(a, "@"); ok {
				args[i] = n.prefix + name
			}
		}
		run("", "ip", args...)
	}
	for _, name := range []string{"relay", "ta", "tb", "a", "b"} {
		ip("netns add @" + name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.prefix+name).Run() })
		ip("-n @" + name + " link set lo up")
	}
	ip("-n @relay link add name hub type bridge")
	ip("-n @relay addr add 45.45.0.1/24 dev hub")
	ip("-n @relay link set hub up")
	for i, name := range []string{"a", "b"} {
		sub := func(line string) { ip(strings.NewReplacer("NAME", name, "NUM", fmt.Sprint(11+i)).Replace(line)) }
		sub("-n @relay link add vNAME type veth peer name wan netns @tNAME")
		sub("-n @relay link set vNAME master hub up")
		sub("-n @tNAME addr add 45.45.0.NUM/24 dev wan")
		sub("-n @tNAME link set wan up")
		sub("-n @tNAME link add lan type veth peer name eth0 netns @NAME")
		sub("-n @tNAME addr add 192.168.NUM.1/24 dev lan")
		sub("-n @tNAME link set lan up")
		sub("-n @NAME addr add 192.168.NUM.2/24 dev eth0")
		sub("-n @NAME link set eth0 up")
		sub("-n @NAME route add default via 192.168.NUM.1")
		inside := []string{"netns", "exec", n.prefix + "t" + name}
		run("", "ip", append(inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")...)
		run(translator, "ip", append(inside, "nft", "-f", "-")...)
	}
	return n
}

const translator = `
table ip atoll {
	chain out { type nat hook postrouting priority 100; oifname "wan" masquerade; }
	chain through { type filter hook forward priority 0; iifname "wan" ct state new drop; }
	chain to { type filter hook input priority 0; iifname "wan" ct state new drop; }
}
`

// punchPeer is one process of the test.
type punchPeer struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func (n internet) start(t *testing.T, role string, env []string) *punchPeer {
	t.Helper()
	p := &punchPeer{name: role, lines: make(chan string, 100)}
	p.cmd = exec.Command("ip", "netns", "exec", n.prefix+role, os.Args[0], "-test.run=^TestHolePunch$", "-test.count=1", "-test.v")
	p.cmd.Env = append(append(os.Environ(), punchRole+"="+role), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process; a second time it does nothing.
func (p *punchPeer) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// expect waits for a line of the process that begins so, and returns the rest.
func (p *punchPeer) expect(t *testing.T, begin string) string {
	t.Helper()
	limit := time.After(2 * transporttest.Patience)
	var said []string
	for {
		select {
		case l, ok := <-p.lines:
			if !ok {
				t.Fatalf("%s ended before %q:\n%s", p.name, begin, strings.Join(said, "\n"))
			}
			if rest, ok := strings.CutPrefix(l, "> "+begin); ok {
				return rest
			}
			said = append(said, l)
		case <-limit:
			t.Fatalf("%s did not say %q:\n%s", p.name, begin, strings.Join(said, "\n"))
		}
	}
}

// punchProcess is what the processes do.
func punchProcess(t *testing.T, role string) {
	say := func(format string, args ...any) { fmt.Printf("> "+format+"\n", args...) }
	seed := map[string]byte{"relay": 1, "a": 2, "b": 3}[role]
	h := transporttest.NewHost("lagoon", seed)
	got := make(chan transporttest.Got, 100)
	h.OnReceive = func(from *id.Handle, _ bool, f []byte) {
		select {
		case got <- transporttest.Got{From: from, Frame: bytes.Clone(f)}:
		default:
		}
	}
	cfg := Config{}
	switch role {
	case "relay":
		cfg.Listen = []string{"45.45.0.1:4001"}
	default:
		cfg.Listen = []string{"0.0.0.0:4001"}
		cfg.Relays = []string{os.Getenv("RELAY")}
	}
	tr := start(t, h, cfg)
	defer func() {
		h.Stop()
		_ = tr.Close()
	}()
	h.SetHandle(1, tr.Addrs())
	in := bufio.NewReader(os.Stdin)
	if role == "relay" {
		say("at %s", asRelay(t, tr))
		_, _ = in.ReadString('\n')
		return
	}
	var relayed []string
	transporttest.Until(t, "a reservation", func() bool {
		relayed = slices.DeleteFunc(tr.Addrs(), func(a string) bool {
			m, err := decodeAddr(a)
			return err != nil || kindOf(m) != kindRelay
		})
		return len(relayed) > 0
	})
	h.SetHandle(2, relayed)
	if role == "a" {
		say("at %s", base64.StdEncoding.EncodeToString([]byte(relayed[0])))
		for g := range got {
			_ = tr.Send(g.From, false, append([]byte("echo "), g.Frame...))
		}
	}
	other, err := base64.StdEncoding.DecodeString(os.Getenv("OTHER"))
	if err != nil {
		t.Fatal(err)
	}
	to := transporttest.NewHost("lagoon", 2).SetHandle(2, []string{string(other)})
	// A frame may be lost with the connection that it is on.
	talk := func(s string) {
		t.Helper()
		again := time.NewTicker(time.Second)
		defer again.Stop()
		limit := time.After(transporttest.Patience)
		for {
			if err := tr.Send(to, false, []byte(s)); err != nil {
				t.Fatal(err)
			}
			select {
			case g := <-got:
				if string(g.Frame) == "echo "+s {
					return
				}
			case <-again.C:
			case <-limit:
				t.Fatalf("no echo of %q within %v", s, transporttest.Patience)
			}
		}
	}
	path := func(proto string) bool {
		return slices.ContainsFunc(tr.Links(), func(l transport.Link) bool { return l.Peer == to.GUID && l.Proto == proto })
	}
	talk("hello")
	if !path("relay") {
		t.Fatalf("%+v", tr.Links())
	}
	say("relayed")
	transporttest.Until(t, "a direct link", func() bool { return path("quic") })
	talk("directly")
	say("direct")
	_, _ = in.ReadString('\n')
	talk("without it")
	say("still talking")
}
