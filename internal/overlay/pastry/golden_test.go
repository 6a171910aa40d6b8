package pastry

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/trace"
	"atoll.example/atoll/internal/wire/wiretest"
)

// golden compares what nodes said to each other with testdata/name.txt.
func golden(t *testing.T, name string, lines []string) {
	t.Helper()
	wiretest.Text(t, filepath.Join("testdata", name+".txt"), strings.Join(lines, "\n")+"\n")
}

// TestGoldenBytes: nodes of two releases understand each other, and a node the
// table that an earlier release saved.
func TestGoldenBytes(t *testing.T) {
	saved := savedTable{
		pool: [32]byte{1}, n: 9, widths: []byte{4},
		nodes: []savedNode{{handle(guidN(1), 1), 5, 6, partTable}, {handle(guidN(2), 1), 7, 8, partLeaf}},
	}
	all := []wiretest.Sample{{Name: "saved table", Value: &saved, Bytes: saved.encode(), Decode: wiretest.Decoder(decodeSaved)}}
	seen := make(map[uint8]bool)
	for _, m := range samples() {
		name := fmt.Sprintf("message %d %s", m.Kind(), strings.TrimPrefix(fmt.Sprintf("%T", m), "*pastry."))
		if seen[m.Kind()] {
			name += ", empty"
		}
		seen[m.Kind()] = true
		all = append(all, wiretest.Sample{Name: name, Value: m, Bytes: encode(m), Decode: wiretest.Decoder(Decode)})
	}
	wiretest.Bytes(t, "pastry", all)
}

// converse records a pool's conversation: one line per message or event.
func converse(p *pool) *[]string {
	var lines []string
	say := func(f string, a ...any) {
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%7.3f ", float64(p.net.Now)/1e6)+fmt.Sprintf(f, a...), " "))
	}
	p.net.Drop = func(f machinetest.Flight) bool {
		say("%.4s → %.4s  %s", f.From.GUID.Short(), f.To.GUID.Short(), brief(f.Msg))
		return false
	}
	p.net.Other = func(at id.GUID, e machine.Effect) (machine.Event, bool) {
		if ev, ok := e.Body.(trace.Event); ok && e.Kind == machine.Trace {
			peer := ""
			if !ev.Peer.IsZero() {
				peer = fmt.Sprintf("%.4s", ev.Peer.Short())
			}
			say("%.4s        * %s %s", at.Short(), ev.Kind, peer)
		}
		return machine.Event{}, false
	}
	return &lines
}

// brief tells a message without its random numbers.
func brief(m machine.Message) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pastry.")
	beat := func(b *BeatBody) string {
		s := ""
		for _, f := range []struct {
			bit  uint8
			name string
		}{
			{beatWant, "want"},
			{beatGrantLeft, "grant-left"},
			{beatGrantRight, "grant-right"},
			{beatBackLeft, "back-left"},
			{beatBackRight, "back-right"},
		} {
			if b.Flags&f.bit != 0 {
				s += " " + f.name
			}
		}
		if b.Hold != noEcho {
			s += " echo"
		}
		return name + s
	}
	switch m := m.(type) {
	case *Beat:
		return beat(&m.BeatBody)
	case *BeatAck:
		return beat(&m.BeatBody)
	case *Joined:
		return beat(&m.BeatBody)
	case *JoinedAck:
		return fmt.Sprintf("%s ok=%v", beat(&m.BeatBody), m.OK)
	case *Join:
		return fmt.Sprintf("%s look=%v passes=%d rows=%d", name, m.Look, m.Passes, len(m.Rows))
	case *AdmitRep:
		return fmt.Sprintf("%s ok=%v", name, m.OK)
	case *JoinReply:
		return fmt.Sprintf("%s leaves=%d", name, len(m.L))
	case *LSProbe:
		return fmt.Sprintf("%s reply=%v ready=%v left=%d right=%d failed=%d", name, m.Reply, m.Ready, len(m.Left), len(m.Right), len(m.Failed))
	}
	return name
}

func TestGoldenJoins(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  int // nodes joined one by one before the recording
		joiners int // at once
		unlock  bool
	}{
		{"join-second", 1, 1, false},
		{"join-third", 2, 1, false},
		{"join-two-at-once", 1, 2, false},
		{"join-two-without-lock", 1, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := LAN()
			cfg.Bugs.JoinWithoutLock = c.unlock
			p := newPool(t, cfg)
			p.grow(0, c.before)
			p.net.Run(2 * machine.Second)
			lines := converse(p)
			for i := range c.joiners {
				p.start(handle(guidN(c.before+i), 1), p.nodes[p.order[0]].self)
			}
			ready := func() bool {
				for _, n := range p.nodes {
					if !n.Ready() {
						return false
					}
				}
				return true
			}
			if !p.net.Until(10*machine.Second, ready) {
				t.Fatal("not all are ready")
			}
			// Joiners that were admitted without lock do not know each other:
			// the split that the lock prevents.
			split := false
			for i := range c.joiners {
				for j := range c.joiners {
					a, b := p.nodes[guidN(c.before+i)], guidN(c.before+j)
					split = split || i != j && !a.leaf.Has(b)
				}
			}
			if split != c.unlock {
				t.Errorf("joiners know each other: %v", !split)
			}
			golden(t, c.name, *lines)
		})
	}
}

func TestGoldenCrashOfARootWithALease(t *testing.T) {
	p := newPool(t, LAN())
	p.grow(0, 3)
	p.net.Run(10 * machine.Second)
	lines := converse(p)
	victim := p.order[1]
	p.net.Kill(victim)
	heir := p.nodes[p.root(victim)]
	if !p.net.Until(40*machine.Second, func() bool { return heir.Owns(p.net.Now, victim).OK }) {
		t.Fatal("the victim's range is never owned again")
	}
	golden(t, "crash", *lines)
}
