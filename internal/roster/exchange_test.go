package roster

import (
	"fmt"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/trace"
)

// net joins rosters; each message crosses the codec.
func (l *lagoon) net(rosters map[int]*Roster, numbers ...int) *machinetest.Net {
	n := &machinetest.Net{Delay: 5 * machine.Millisecond, Decode: Decode}
	for _, k := range numbers {
		n.Add(handle(k, 1), rosters[k])
	}
	return n
}

func TestTwoRostersConverge(t *testing.T) {
	l := newLagoon(t)
	a := l.roster(2, l.joined(2, 3)...)
	for i := 20; i < 120; i++ {
		l.add(a, CertEntry(l.member(100, i)))
	}
	b := l.roster(3, l.joined(3, 4)...)
	n := l.net(map[int]*Roster{2: a, 3: b}, 2, 3)
	a.freshly, a.flood = nil, false // as after a restart: nothing to push
	n.Perform(guid(2), a.Met(n.Now, handle(3, 1), nil))
	if !n.Until(5*machine.Second, func() bool { return a.SetDigest() == b.SetDigest() }) {
		t.Fatalf("%d and %d entries", a.Len(), b.Len())
	}
	t.Logf("100 certificates one way, 2 entries the other: %d messages, %d ms", n.Sent, int64(n.Now)/1000)
	if a.Count() != 4 || b.Count() != 4 {
		t.Errorf("%d and %d members", a.Count(), b.Count())
	}
	n.Run(machine.Second) // what follows ends by itself
	sent := n.Sent
	n.Run(10 * machine.Second)
	if n.Sent != sent {
		t.Errorf("%d messages between equal rosters", n.Sent-sent)
	}
	n.Perform(guid(2), a.Met(n.Now, handle(3, 1), nil))
	n.Run(machine.Second)
	if n.Sent != sent+1 {
		t.Errorf("comparing equal rosters took %d messages", n.Sent-sent)
	}
}

// TestAllConverge: a news spreads over 64 rosters, of which each knows only its
// two neighbours and who is in its roster, within a second; and comparing once a
// minute mends what was lost.
func TestAllConverge(t *testing.T) {
	l := newLagoon(t)
	const size = 64
	var numbers []int
	for i := range size {
		numbers = append(numbers, 200+i)
	}
	entries := l.joined(numbers...)
	rosters := make(map[int]*Roster)
	for i, k := range numbers {
		r := New(Config{
			Self: guid(k), Seed: 5, Peers: func() []*id.Handle {
				return []*id.Handle{handle(200+(i+1)%size, 1), handle(200+(i+size-1)%size, 1)}
			},
		}, l.pool)
		_, err := r.Load(entries)
		check(t, err)
		rosters[k] = r
	}
	n := l.net(rosters, numbers...)
	equal := func() bool {
		for _, k := range numbers[:size-1] { // the last one will be revoked: nobody tells it more
			if rosters[k].SetDigest() != rosters[200].SetDigest() {
				return false
			}
		}
		return true
	}
	for _, k := range numbers {
		n.Perform(guid(k), rosters[k].Start(n.Now, nil))
	}
	n.Run(machine.Second)
	sent := n.Sent

	l.add(rosters[200], l.revoke(rosters[200], 100, 263))
	start := n.Now
	if !n.Until(machine.Second, func() bool { return rosters[232].Revoked(guid(263)) && equal() }) {
		t.Fatal("a revocation is not everywhere after a second")
	}
	t.Logf("64 nodes: a revocation is everywhere after %d ms and %d messages", int64(n.Now-start)/1000, n.Sent-sent)

	lost := 0
	n.Drop = func(f machinetest.Flight) bool { // nearly all news is lost
		if e, ok := f.Msg.(*Entries); ok && e.Push {
			lost++
			return lost%10 != 0
		}
		return false
	}
	for _, k := range numbers {
		if k != 263 {
			l.add(rosters[k], l.ready(k, 2, 0))
		}
	}
	if !n.Until(20*machine.Minute, equal) {
		t.Fatal("rosters differ after 20 minutes")
	}
}

// TestEverythingDiffers: more differences than one message can name.
func TestEverythingDiffers(t *testing.T) {
	l := newLagoon(t)
	a, b := l.roster(2, l.joined(2)...), l.roster(3)
	admin := l.admin(100)
	for i := range 2_100 {
		_, err := a.Load([][]byte{CertEntry(l.certify(testKey(100), admin, 1000+i, 1, t0)), l.ready(1000+i, 1, 0)})
		check(t, err)
	}
	n := l.net(map[int]*Roster{2: a, 3: b}, 2, 3)
	n.Perform(guid(3), b.Met(n.Now, handle(2, 1), nil))
	if !n.Until(machine.Minute, func() bool { return a.SetDigest() == b.SetDigest() }) {
		t.Fatalf("%d and %d entries", a.Len(), b.Len())
	}
	t.Logf("%d entries, %d bytes: %d messages, %d ms of virtual time", a.Len(), len(a.Encode()), n.Sent, int64(n.Now)/1000)
}

func TestLiars(t *testing.T) {
	l := newLagoon(t)
	r := l.roster(2, l.joined(2, 3)...)
	bad := l.ready(3, 9, 0)
	bad[len(bad)-1] ^= 1
	var kinds []string
	for _, e := range [][]byte{bad, l.ready(77, 1, 0)} {
		out := r.Step(1, machine.Event{Kind: machine.Receive, From: handle(3, 1), Msg: &Entries{Entries: [][]byte{e}}}, nil)
		for _, x := range out {
			if x.Kind == machine.Trace {
				kinds = append(kinds, x.Body.(trace.Event).Kind)
			}
		}
	}
	// A forged signature is a strike; an entry that came before the certificate
	// that it needs is not.
	if fmt.Sprint(kinds) != "[roster.refused roster.ignored]" || r.Refused() != 1 {
		t.Errorf("events %v, refused %d", kinds, r.Refused())
	}
}

// TestSameEventsSameEffects: the machine's one promise to the simulator.
func TestSameEventsSameEffects(t *testing.T) {
	run := func() string {
		l := newLagoon(t)
		rosters := map[int]*Roster{}
		for _, k := range []int{2, 3, 4, 5} {
			rosters[k] = l.roster(k, l.joined(2, 3, 4, 5)...)
		}
		n := l.net(rosters, 2, 3, 4, 5)
		var log string
		n.Drop = func(f machinetest.Flight) bool {
			log += fmt.Sprintf("%d %s>%s %T\n", n.Now, f.From.GUID.Short(), f.To.GUID.Short(), f.Msg)
			return false
		}
		for k := 2; k <= 5; k++ {
			n.Perform(guid(k), rosters[k].Start(n.Now, nil))
		}
		l.add(rosters[3], CertEntry(l.member(100, 9)))
		l.add(rosters[4], l.revoke(rosters[4], 100, 5))
		n.Run(5 * machine.Minute)
		return log
	}
	if a, b := run(), run(); a != b || a == "" {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
}

func BenchmarkAdd(b *testing.B) {
	l := newLagoon(b)
	entry := CertEntry(l.member(100, 2))
	for b.Loop() {
		r := New(Config{}, l.pool)
		if _, err := r.Add(entry); err != nil {
			b.Fatal(err)
		}
	}
}
