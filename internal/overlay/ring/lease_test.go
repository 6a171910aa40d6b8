package ring

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

const second = machine.Time(machine.Second)

var (
	nodeA = id.FromPrefix("a0")
	nodeB = id.FromPrefix("b0")
	nodeX = id.FromPrefix("a8")
)

// The holder's lease ends before the granter's promise, whatever the clocks do
// within the drift allowed.
func TestLeaseEndsBeforePromise(t *testing.T) {
	const sent, hold, grant = machine.Time(1000), 75 * machine.Second, 90 * machine.Second
	// A holder whose clock runs 2% fast against the granter's.
	end := LeaseEnd(sent, hold, grant)
	if limit := sent.Add((hold + grant).Scale(98, 100)); end > limit {
		t.Fatalf("ends at %d, promise may end at %d", end, limit)
	}
	if slack := end.Sub(sent.Add(hold)); slack < 86*machine.Second {
		t.Fatalf("%d s left after a renewal, want 86", slack/machine.Second)
	}
}

func TestGrantWaitsForTheOldOne(t *testing.T) {
	var l Ledger
	l.Grant(Right, nodeA, 1, 1, 15*second)
	if at := l.BlockedUntil(5*second, Right, nodeB); at != 15*second {
		t.Fatalf("blocked until %d", at)
	}
	if at := l.BlockedUntil(5*second, Right, nodeA); at > 5*second {
		t.Fatal("a renewal is blocked")
	}
	if at := l.BlockedUntil(5*second, Left, nodeB); at > 5*second {
		t.Fatal("the other side is blocked")
	}
	if at := l.BlockedUntil(15*second, Right, nodeB); at > 15*second {
		t.Fatal("blocked after the end")
	}
}

func TestGrantEndsEarly(t *testing.T) {
	for name, end := range map[string]func(*Ledger){
		"returned": func(l *Ledger) { l.Returned(Right, nodeA, 1) },
		"gone":     func(l *Ledger) { l.Gone(nodeA) },
		"rebooted": func(l *Ledger) { l.Rebooted(nodeA, 2) },
		"admitted": func(l *Ledger) { l.Admit(Right, nodeB, nodeA) },
	} {
		var l Ledger
		l.Grant(Right, nodeA, 1, 1, 15*second)
		end(&l)
		if at := l.BlockedUntil(5*second, Right, nodeB); at > 5*second {
			t.Errorf("%s: still blocked until %d", name, at)
		}
	}
	var l Ledger
	l.Grant(Right, nodeA, 1, 1, 15*second)
	l.Rebooted(nodeA, 1)
	l.Admit(Right, nodeX, nodeB) // nodeA was not asked
	if at := l.BlockedUntil(5*second, Right, nodeX); at != 15*second {
		t.Error("a node evicted by error loses its lease to a joiner")
	}
}

// A return ends the grants that its sender had got by then, and no newer one.
func TestReturnEndsNoNewerGrant(t *testing.T) {
	var l Ledger
	l.Grant(Right, nodeA, 1, 1, 15*second)
	l.Grant(Right, nodeA, 1, 2, 20*second)
	l.Returned(Right, nodeA, 1)
	if at := l.BlockedUntil(5*second, Right, nodeB); at != 20*second {
		t.Fatalf("blocked until %d", at)
	}
	l.Returned(Right, nodeA, 2)
	if at := l.BlockedUntil(5*second, Right, nodeB); at > 5*second {
		t.Fatal("still blocked")
	}
}

func TestCarriedLease(t *testing.T) {
	var l Ledger
	l.Take(Right, nodeB, 1, 15*second)
	if l.HeldUntil(Right, nodeX, 1) != 0 {
		t.Fatal("a lease counts for another neighbour")
	}
	l.Carry(Right)
	if l.HeldUntil(Right, nodeX, 1) != 15*second {
		t.Fatal("a carried lease does not count")
	}
	l.Take(Right, nodeX, 1, 9*second)
	if l.HeldUntil(Right, nodeX, 1) != 9*second || l.HeldUntil(Right, nodeB, 1) != 0 {
		t.Fatal("the joiner's lease does not replace the carried one")
	}
	l.Rebooted(nodeX, 2)
	if l.HeldUntil(Right, nodeX, 1) != 0 {
		t.Fatal("a lease outlives the process that gave it")
	}
}

func TestGrantsAreBounded(t *testing.T) {
	var l Ledger
	for i := range maxGrants {
		l.Grant(Left, id.GUID{byte(i)}, 1, 1, second*machine.Time(10+i))
	}
	for i := range maxGrants {
		l.Admit(Left, nodeX, id.GUID{byte(i)})
	}
	if at := l.BlockedUntil(second, Left, nodeX); at <= second {
		t.Fatal("a ninth grant is given")
	}
}

func TestRTO(t *testing.T) {
	var r RTT
	const floor, limit, first = 20 * machine.Millisecond, 10 * machine.Second, 500 * machine.Millisecond
	if r.RTO(floor, limit, first) != first {
		t.Fatal("first guess")
	}
	r.Sample(100 * machine.Millisecond)
	if got := r.RTO(floor, limit, first); got != 300*machine.Millisecond {
		t.Fatalf("after one sample %d ms, want srtt + 4·srtt/2", got.Milliseconds())
	}
	for range 100 {
		r.Sample(machine.Millisecond)
	}
	if got := r.RTO(floor, limit, first); got != floor {
		t.Fatalf("floor: %d", got)
	}
	for range 100 {
		r.Sample(20 * machine.Second)
	}
	if got := r.RTO(floor, limit, first); got != limit {
		t.Fatalf("cap: %d", got)
	}
}

func TestBucket(t *testing.T) {
	b := Bucket{Every: 500 * machine.Millisecond, Burst: 10}
	took := 0
	for now := machine.Time(0); now < 10*second; now += 1000 {
		if b.Take(now) {
			took++
		}
	}
	if took < 28 || took > 30 {
		t.Fatalf("%d tokens in 10 s, want a burst of 10 and 2/s", took)
	}
	if b.Take(b.Next() - 1) {
		t.Fatal("a token before Next")
	}
	if !b.Take(b.Next()) {
		t.Fatal("no token at Next")
	}
}
