package machinetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// ball is a message that is hit back N times.
type ball struct{ N uint32 }

func (*ball) Kind() uint8                 { return 200 }
func (b *ball) AppendBody(w *wire.Writer) { w.U32(b.N) }

func decode(frame []byte) (machine.Message, error) {
	r := wire.NewReader(frame)
	if r.U8() != 200 || r.U8() != machine.Version {
		r.Fail(wire.ErrVersion)
	}
	b := &ball{r.U32()}
	return b, r.Close()
}

// player hits balls back, serves every second, and keeps a score on disk.
type player struct {
	self, other *id.Handle
	serve       machine.Time
	log         *[]string
}

func (p *player) Wake() machine.Time { return p.serve }

func (p *player) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	*p.log = append(*p.log, fmt.Sprintf("%d %s %d", now, p.self.GUID.Short()[:2], ev.Kind))
	switch ev.Kind {
	case machine.Tick:
		p.serve = now.Add(machine.Second)
		return append(out, machine.Effect{Kind: machine.Send, To: p.other, Msg: &ball{2}})
	case machine.Receive:
		if n := ev.Msg.(*ball).N; n > 0 {
			return append(out, machine.Effect{Kind: machine.Send, To: ev.From, Msg: &ball{n - 1}})
		}
		return append(out, machine.Effect{Kind: machine.Store, ID: 7}, machine.Effect{Kind: machine.Send, To: p.self, Msg: &ball{0}})
	}
	return out
}

func game() (*Net, *player, *player, *[]string) {
	log := new([]string)
	a, b := &id.Handle{GUID: id.FromPrefix("aa")}, &id.Handle{GUID: id.FromPrefix("bb")}
	p, q := &player{a, b, machine.Time(machine.Second), log}, &player{b, a, machine.Never, log}
	n := &Net{Delay: 10 * machine.Millisecond, Decode: decode}
	n.Add(a, p)
	n.Add(b, q)
	return n, p, q, log
}

func TestStory(t *testing.T) {
	n, p, q, log := game()
	stores := 0
	n.Other = func(at id.GUID, e machine.Effect) (machine.Event, bool) {
		if e.Kind != machine.Store || at != q.self.GUID {
			t.Errorf("effect %d at %s", e.Kind, at.Short())
		}
		if stores++; stores > 1 { // the machine sends to itself without end: answer once
			n.Kill(at)
		}
		return machine.Event{Kind: machine.Done, ID: e.ID}, true
	}
	n.Run(1100 * machine.Millisecond)
	want := "1000000 aa 1|1010000 bb 2|1020000 aa 2|1030000 bb 2|1030000 bb 4|1030000 bb 2"
	if got := strings.Join(*log, "|"); got != want {
		t.Errorf("story:\n%s\nwant\n%s", got, want)
	}
	if n.Sent != 3 || n.Now != machine.Time(1100*machine.Millisecond) || n.Alive(q.self.GUID) || !n.Alive(p.self.GUID) {
		t.Errorf("%d messages, now %d", n.Sent, n.Now)
	}
	before := len(*log)
	n.Run(machine.Second) // the serve meets nobody
	if len(*log) != before+1 {
		t.Errorf("a dead machine was fed: %v", (*log)[before:])
	}
}

func TestDropAndUntil(t *testing.T) {
	n, _, _, log := game()
	n.Drop = func(f Flight) bool { return f.Msg.(*ball).N == 1 }
	if n.Until(5*machine.Second, func() bool { return len(*log) == 100 }) {
		t.Error("a condition that cannot hold held")
	}
	if n.Now != machine.Time(5*machine.Second) || n.Sent != 9 {
		t.Errorf("now %d, %d messages", n.Now, n.Sent)
	}
	n.Drop = nil
	count := len(*log)
	if !n.Until(5*machine.Second, func() bool { return len(*log) > count }) || n.Now >= machine.Time(6*machine.Second+1) {
		t.Errorf("did not stop when the condition held: now %d", n.Now)
	}
}

func TestCodecIsCrossed(t *testing.T) {
	n, _, _, _ := game()
	n.Decode = func([]byte) (machine.Message, error) { return nil, errors.New("no") }
	defer func() {
		if recover() == nil {
			t.Error("a message that its own codec refuses went through")
		}
	}()
	n.Run(2 * machine.Second)
}
