package stack

import (
	"encoding/binary"
	"slices"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/trace"
)

const (
	second    = machine.Time(machine.Second)
	kindProbe = 3  // of pastry: control
	kindGet   = 70 // of the dht: admitted by its cost
)

var (
	self   = id.FromPrefix("01")
	honest = id.FromPrefix("aa")
	greedy = id.FromPrefix("bb")
)

func traces(out []machine.Effect, kind string) (n int) {
	for _, e := range out {
		if ev, ok := e.Body.(trace.Event); ok && ev.Kind == kind {
			n++
		}
	}
	return n
}

// A peer that sends ten times the rate for a minute gets in what the rate and
// the burst allow; one that sends less than the rate beside it loses nothing.
func TestFlood(t *testing.T) {
	g := newGuard(self)
	var out []machine.Effect
	in, polite := 0, 0
	for now := machine.Time(0); now < 60*second; now += second / 2000 {
		var ok bool
		if out, ok = g.admit(now, greedy, kindProbe, out); ok {
			in++
		}
		if now%(second/150) < second/2000 {
			if out, ok = g.admit(now, honest, kindProbe, out); ok {
				polite++
			}
		}
	}
	if want := 60*200 + controlBurst; in < want-10 || in > want+10 {
		t.Errorf("%d of 120000 got in, want %d", in, want)
	}
	if polite != 9001 && polite != 9000 || g.Flood != int64(120000-in) {
		t.Errorf("%d messages of the polite one got in; %d dropped", polite, g.Flood)
	}
	if n := traces(out, "stack.flood"); n < 1 || n > 2 {
		t.Errorf("%d traces of one flood", n)
	}
	if _, ok := g.admit(60*second, greedy, kindGet, nil); !ok {
		t.Error("a question for a block counts as control")
	}
	if _, ok := g.admit(60*second, self, kindProbe, nil); !ok {
		t.Error("own messages are counted")
	}
}

func TestStrikes(t *testing.T) {
	g := newGuard(self)
	var out []machine.Effect
	for i := range machine.Time(30) { // one in seven seconds: never ten a minute
		out = g.strike(7*i*second, honest, "frame", out)
	}
	if _, ok := g.admit(210*second, honest, kindGet, nil); !ok || g.ShutOut != 0 {
		t.Fatal("shut out for nine strikes a minute")
	}
	for i := range machine.Time(10) {
		out = g.strike((300+i)*second, greedy, "frame", out)
	}
	if g.ShutOut != 1 || traces(out, "stack.shutout") != 1 || g.Strikes != 40 {
		t.Fatalf("%+v", g.Guard)
	}
	if _, ok := g.admit(310*second, greedy, kindGet, nil); ok || g.Shut != 1 {
		t.Error("let in at once")
	}
	if _, ok := g.admit(310*second, honest, kindGet, nil); !ok {
		t.Error("another one pays for it")
	}
	if _, ok := g.admit(609*second, greedy, kindGet, nil); !ok {
		t.Error("still out after five minutes")
	}
}

// Whose messages were refused is told of for an hour, with what and how often.
func TestOffenders(t *testing.T) {
	g := newGuard(self)
	for range controlBurst + 7 {
		g.admit(0, greedy, kindProbe, nil)
	}
	g.strike(0, honest, "frame", nil)
	for i := range machine.Time(maxStrikes + 1) { // the last when it is shut out
		g.strike((3000+i)*second, greedy, "block", nil)
	}
	want := []Offender{{Peer: greedy, Bad: maxStrikes + 1, What: "block", Flood: 7, Shut: true}, {Peer: honest, Bad: 1, What: "frame"}}
	if got := g.offenders(3020 * second); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	want = []Offender{{Peer: greedy, Bad: maxStrikes + 1, What: "block", Flood: 7}}
	if got := g.offenders(6600 * second); !slices.Equal(got, want) {
		t.Errorf("after an hour: %+v", got)
	}
	g.strike(6700*second, greedy, "frame", nil) // the hour has passed: counted anew
	if got := g.offenders(6700 * second); len(got) != 1 || got[0].Bad != 1 || got[0].Flood != 0 {
		t.Errorf("later: %+v", got)
	}
}

// Records of peers that went silent are forgotten; that of one shut out is not.
func TestGuardForgets(t *testing.T) {
	g := newGuard(self)
	for range maxStrikes {
		g.strike(0, greedy, "frame", nil)
	}
	for i := range 100_000 {
		var p id.GUID
		binary.BigEndian.PutUint32(p[:], uint32(i))
		g.admit(machine.Time(i)*second/100, p, kindProbe, nil)
		if i == 20_000 {
			if _, ok := g.admit(machine.Time(i)*second/100, greedy, kindProbe, nil); ok {
				t.Fatal("forgotten while shut out")
			}
		}
	}
	if len(g.peers) > 20_000 {
		t.Errorf("%d records, though at most 6000 spoke within a minute", len(g.peers))
	}
}

// The guard stands where messages enter the stack.
func TestStackIsGuarded(t *testing.T) {
	n := &Node{roster: new(roster.Roster), probe: newProbe(nil), guard: newGuard(self)}
	ev := machine.Event{Kind: machine.Receive, From: &id.Handle{GUID: greedy}, Msg: sampleAnswer()}
	for range controlBurst + 5 {
		n.receive(0, ev, nil)
	}
	if g := n.Guard(); g.Flood != 5 {
		t.Errorf("%+v", g)
	}
	bad := ev
	bad.Msg = nil
	for range maxStrikes {
		n.receive(0, bad, nil)
	}
	n.receive(second, ev, nil)
	if g := n.Guard(); g.Shut != 1 || g.ShutOut != 1 {
		t.Errorf("%+v", g)
	}
}
