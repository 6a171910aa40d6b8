package pastry

import (
	"fmt"
	"testing"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

// leaseFault is what happens to the n-th message about leases or admission
// after an event.
type leaseFault struct {
	n    int
	kind int // 0 lost, 1 three seconds late, 2 twice, the second time late
}

var leaseFaults = [...]string{"lost", "late", "twice"}

func aboutLeases(m machine.Message) bool {
	switch m.(type) {
	case *Beat, *BeatAck, *AdmitReq, *AdmitRep, *Joined, *JoinedAck, *Leave:
		return true
	}
	return false
}

// tryFaults runs event in a settled ring of four with these faults, and returns a
// complaint if two nodes own a key at any instant, or the ring is not whole
// again a minute later.
func tryFaults(t *testing.T, bugs Bugs, event func(*pool), faults ...leaseFault) string {
	cfg := LAN()
	cfg.LeafSet, cfg.Bugs = 2, bugs
	p := newPool(t, cfg)
	p.grow(0, 4)
	p.net.Run(20 * machine.Second)
	seen := 0
	var late []machinetest.Flight
	p.net.Drop = func(f machinetest.Flight) bool {
		if !aboutLeases(f.Msg) {
			return false
		}
		seen++
		for _, x := range faults {
			if x.n == seen-1 {
				if x.kind != 0 {
					late = append(late, f)
				}
				return x.kind != 2
			}
		}
		return false
	}
	fault := ""
	check := func() bool {
		late = p.feedLate(late)
		fault = p.twoOwners()
		return fault != ""
	}
	event(p)
	if p.net.Until(25*machine.Second, check) {
		return "two owners: " + fault
	}
	if p.net.Until(35*machine.Second, func() bool { return check() || p.diverged() == "" && p.unowned() == "" }) && fault == "" {
		return ""
	}
	return fmt.Sprintf("not whole: %s %s %s", fault, p.diverged(), p.unowned())
}

// leaseEvents is what happens to the ring of four before messages go wrong.
var leaseEvents = []struct {
	name string
	do   func(*pool)
}{
	{"two joins", func(p *pool) {
		p.start(handle(guidN(4), 1), handle(guidN(0), 1))
		p.start(handle(guidN(5), 1), handle(guidN(1), 1))
	}},
	{"leave", func(p *pool) {
		g := guidN(2)
		p.net.Perform(g, p.nodes[g].Leave(p.net.Now, nil))
	}},
	{"crash", func(p *pool) { p.net.Kill(guidN(2)) }},
	{"restart", func(p *pool) { p.start(handle(guidN(2), 2), handle(guidN(0), 1)) }},
	{"false eviction", func(p *pool) {
		n := p.nodes[guidN(2)]
		p.net.Add(n.self, &sleeper{Node: n, until: p.net.Now.Add(14 * machine.Second)})
	}},
}

// upToTwo calls try with every choice of up to two faults among the first
// messages, until it returns false.
func upToTwo(first int, try func(...leaseFault) bool) bool {
	if !try() {
		return false
	}
	for i := range first {
		for k := range leaseFaults {
			if !try(leaseFault{i, k}) {
				return false
			}
			for j := i + 1; j < first; j++ {
				for l := range leaseFaults {
					if !try(leaseFault{i, k}, leaseFault{j, l}) {
						return false
					}
				}
			}
		}
	}
	return true
}

// TestTwoLeaseFaults tries every way in which up to two of the first messages
// about leases can go wrong after two joins, a leave, a crash, a restart and a
// false eviction in a ring of four: never are there two owners, and the ring
// becomes whole.
func TestTwoLeaseFaults(t *testing.T) {
	first := 12
	if testing.Short() {
		first = 4
	}
	for _, e := range leaseEvents {
		t.Run(e.name, func(t *testing.T) {
			runs := 0
			upToTwo(first, func(faults ...leaseFault) bool {
				runs++
				if why := tryFaults(t, Bugs{}, e.do, faults...); why != "" {
					t.Errorf("%v (kinds %v): %s", faults, leaseFaults, why)
				}
				return !t.Failed()
			})
			t.Logf("%d runs", runs)
		})
	}
}

// The search above is not blind: it finds planted bugs of the leases.
func TestTwoLeaseFaultsFindBugs(t *testing.T) {
	for name, bugs := range map[string]Bugs{
		"JoinWithoutLock":     {JoinWithoutLock: true},
		"DeliverWithoutLease": {DeliverWithoutLease: true},
	} {
		found := ""
		for _, e := range leaseEvents {
			upToTwo(4, func(faults ...leaseFault) bool {
				if why := tryFaults(t, bugs, e.do, faults...); why != "" {
					found = fmt.Sprintf("%s %v: %s", e.name, faults, why)
				}
				return found == ""
			})
		}
		if found == "" {
			t.Errorf("%s: not found", name)
		}
		t.Logf("%s: %s", name, found)
	}
}
