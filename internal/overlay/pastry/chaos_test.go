package pastry

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/overlay/ring"
)

var (
	chaosSeed  = flag.Int("seed", -1, "replay one seed of TestChaos")
	chaosSeeds = flag.Int("seeds", 60, "number of seeds of TestChaos")
)

// twoOwners returns a complaint if two live nodes own a common key now.
func (p *pool) twoOwners() string {
	type owner struct {
		g   id.GUID
		arc id.Arc
	}
	var list []owner
	for _, g := range p.order {
		if !p.net.Alive(g) {
			continue
		}
		if o := p.nodes[g].Ownership(p.net.Now); o.OK && o.Until > p.net.Now {
			list = append(list, owner{g, o.Arc})
		}
	}
	for i, a := range list {
		for _, b := range list[:i] {
			if a.arc.Contains(b.arc.Lo) || b.arc.Contains(a.arc.Lo) {
				return fmt.Sprintf("%s owns [%s, %s) and %s owns [%s, %s)",
					a.g.Short(), a.arc.Lo.Short(), a.arc.Hi.Short(), b.g.Short(), b.arc.Lo.Short(), b.arc.Hi.Short())
			}
		}
	}
	return ""
}

// chaos joins, kills, restarts and parts with nodes at random, under loss and
// delay. It returns what went wrong: two owners of a key at any instant, or a
// ring that does not converge once left in peace.
func chaos(t testing.TB, seed int, cfg Config, actions int) (p *pool, fault string) {
	rnd := rand.New(rand.NewPCG(uint64(seed), 17))
	p = newPool(t, cfg)
	p.net.Delay = machine.Duration(1+rnd.IntN(80)) * machine.Millisecond
	loss := []int{0, 2, 5, 15}[rnd.IntN(4)]
	type cut struct {
		a, b  id.GUID // b zero: everybody
		until machine.Time
	}
	var cuts []cut
	type delayed struct {
		f  machinetest.Flight
		at machine.Time
	}
	var late []delayed
	odd := []int{0, 0, 20, 60}[rnd.IntN(4)]
	p.net.Drop = func(f machinetest.Flight) bool {
		for _, c := range cuts {
			if p.net.Now < c.until && (f.From.GUID == c.a || f.To.GUID == c.a) &&
				(c.b == id.GUID{} || f.From.GUID == c.b || f.To.GUID == c.b) {
				return true
			}
		}
		switch x := rnd.IntN(1000); {
		case x < 10*loss:
			return true
		case x >= 1000-odd: // late, by up to seconds, and so out of order
			late = append(late, delayed{f, p.net.Now.Add(machine.Duration(rnd.IntN(3_000_000)))})
			return true
		case x >= 1000-odd-odd/4: // twice
			late = append(late, delayed{f, p.net.Now.Add(p.net.Delay + machine.Duration(rnd.IntN(100_000)))})
		}
		return false
	}
	epochs := map[int]uint32{}
	alive := []int{0}
	next := 1
	epochs[0] = 1
	p.start(handle(guidN(0), 1), nil)
	check := func() bool {
		for i := 0; i < len(late); i++ {
			if d := late[i]; d.at <= p.net.Now {
				late = append(late[:i], late[i+1:]...)
				i--
				p.net.Feed(d.f.To.GUID, machine.Event{Kind: machine.Receive, From: d.f.From, Msg: d.f.Msg})
			}
		}
		if fault == "" {
			if s := p.twoOwners(); s != "" {
				fault = "two owners: " + s
			}
		}
		return fault != ""
	}
	say := func(f string, a ...any) {
		p.log = append(p.log, fmt.Sprintf("%8.3f === ", float64(p.net.Now)/1e6)+fmt.Sprintf(f, a...))
	}
	boot := func(i int, saved []byte) {
		var seeds []*id.Handle
		for _, a := range alive {
			if a != i && len(seeds) < 2 {
				seeds = append(seeds, handle(guidN(a), epochs[a]))
			}
		}
		epochs[i]++
		h := handle(guidN(i), epochs[i])
		n := p.add(h)
		p.net.Perform(h.GUID, n.Start(p.net.Now, seeds, saved, false, nil))
	}
	// A pool whose last ready member dies cannot go on: not a fault.
	// Nor can one find again whom no ready node left alive has ever met.
	rested := true
	expendable := func(i int) bool {
		ready := 0
		for _, a := range alive {
			if a != i && p.nodes[guidN(a)].Ready() {
				ready++
			}
		}
		return ready >= 4 || rested && ready >= 1
	}
	for range actions {
		// One cut at a time, and a rest: a node cut off for longer than a lease
		// may take what it sees for all there is, and be right by its lights.
		rested = len(cuts) == 0 || p.net.Now > cuts[len(cuts)-1].until.Add(20*machine.Second)
		switch a := rnd.IntN(12); {
		case a == 10 && rested:
			// For less than a lease: nobody may take the whole ring for its own.
			g := guidN(alive[rnd.IntN(len(alive))])
			cuts = append(cuts, cut{a: g, until: p.net.Now.Add(machine.Duration(2+rnd.IntN(10)) * machine.Second)})
			say("cut off %s", g.Short())
		case a == 11 && len(alive) > 3 && rested:
			i := rnd.IntN(len(alive) - 1)
			c := cut{guidN(alive[i]), guidN(alive[i+1]), p.net.Now.Add(machine.Duration(2+rnd.IntN(12)) * machine.Second)}
			cuts = append(cuts, c)
			say("cut %s from %s", c.a.Short(), c.b.Short())
		case a < 5 && len(alive) < 10:
			for range 1 + rnd.IntN(3) {
				say("join %s", guidN(next).Short())
				boot(next, nil)
				alive = append(alive, next)
				next++
			}
		case a < 7 && len(alive) > 2:
			k := rnd.IntN(len(alive))
			if !expendable(alive[k]) {
				continue
			}
			say("crash %s", guidN(alive[k]).Short())
			p.net.Kill(guidN(alive[k]))
			alive = append(alive[:k], alive[k+1:]...)
		case a < 8 && len(alive) > 2:
			k := rnd.IntN(len(alive))
			i := alive[k]
			if !expendable(i) {
				continue
			}
			say("restart %s", guidN(i).Short())
			boot(i, p.saved[guidN(i)])
		case a < 9 && len(alive) > 2:
			k := rnd.IntN(len(alive))
			g := guidN(alive[k])
			if !expendable(alive[k]) {
				continue
			}
			say("leave %s", g.Short())
			p.net.Perform(g, p.nodes[g].Leave(p.net.Now, nil))
			alive = append(alive[:k], alive[k+1:]...)
		default:
			g := guidN(alive[rnd.IntN(len(alive))])
			p.net.Perform(g, p.nodes[g].Route(p.net.Now, kbr.Message{Key: guidN(rnd.Int()), App: kbr.AppDHT, Class: kbr.Owned}, nil, nil))
		}
		if p.net.Until(machine.Duration(rnd.IntN(12_000))*machine.Millisecond, check) {
			return p, fault
		}
	}
	say("peace")
	cuts = nil
	// A joiner whose contacts have all gone is told of others.
	var all []*id.Handle
	for _, a := range alive {
		all = append(all, handle(guidN(a), epochs[a]))
	}
	for _, a := range alive {
		p.nodes[guidN(a)].Remember(all)
	}
	if p.net.Until(30*machine.Second, check) {
		return p, fault
	}
	var why string
	ok := p.net.Until(120*machine.Second, func() bool {
		if check() {
			return true
		}
		why = p.diverged()
		if why == "" {
			why = p.unowned()
		}
		return why == ""
	})
	if fault == "" && !ok {
		fault = "not converged: " + why
	}
	return p, fault
}

// unowned returns a complaint if the arcs owned do not cover the ring.
func (p *pool) unowned() string {
	live := p.live()
	for i, g := range live {
		o := p.nodes[g].Ownership(p.net.Now)
		want := id.FullArc
		if len(live) > 1 {
			want = id.Arc{
				Lo: ring.Border(live[(i+len(live)-1)%len(live)], g),
				Hi: ring.Border(g, live[(i+1)%len(live)]),
			}
		}
		if !o.OK || o.Arc != want {
			return fmt.Sprintf("%s does not own its arc: %v", g.Short(), o)
		}
	}
	return ""
}

func TestChaos(t *testing.T) {
	seeds := *chaosSeeds
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		if *chaosSeed >= 0 {
			seed = *chaosSeed
		}
		cfg := LAN()
		cfg.LeafSet = []int{16, 4, 3, 2}[seed%4]
		p, fault := chaos(t, seed, cfg, 25)
		if fault != "" {
			t.Fatalf("seed %d (replay with -seed %d): %s\n%s", seed, seed, fault, p.tail())
		}
		if *chaosSeed >= 0 {
			break
		}
	}
}

// Each planted bug is found: the checks above are not blind. (A lease counted
// from receipt needs a beat that is late by seconds: TestLateBeat.)
func TestPlantedBugs(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  int // first seed tried: where it was found before
		plant func(*Bugs)
	}{
		{"TrustLeafSets", 0, func(b *Bugs) { b.TrustLeafSets = true }},
		{"JoinWithoutLock", 99, func(b *Bugs) { b.JoinWithoutLock = true }},
		{"GrantEarly", 46, func(b *Bugs) { b.GrantEarly = true }},
		{"DeliverWithoutLease", 0, func(b *Bugs) { b.DeliverWithoutLease = true }},
		{"AcceptUnready", 0, func(b *Bugs) { b.AcceptUnready = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := LAN()
			cfg.LeafSet = 3
			for i := range 300 {
				seed := c.from + i
				bad := cfg
				c.plant(&bad.Bugs)
				if _, fault := chaos(t, seed, bad, 25); fault == "" {
					continue
				} else if _, clean := chaos(t, seed, cfg, 25); clean != "" {
					t.Fatalf("seed %d without the bug: %s", seed, clean)
				} else {
					t.Logf("seed %d: %.150s", seed, fault)
					return
				}
			}
			t.Error("not found in 300 seeds")
		})
	}
}
