package pastry

import (
	"fmt"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
)

// All nodes of a pool of two to five are down, and some or all of them start
// again, together or one after the other, each knowing what survived: the roster
// (seeds), its table, both; or a table full of addresses that nobody has any more
// and, of those up before it, what the local network tells. They become one
// ring, which owns every key again.
func TestTinyPoolsRestart(t *testing.T) {
	for size := 2; size <= 5; size++ {
		for back := 1; back <= size; back++ {
			for _, knows := range []string{"seeds", "table", "both", "moved"} {
				for _, loss := range []int{0, 5} {
					t.Run(fmt.Sprintf("%d of %d, %s, loss %d", back, size, knows, loss), func(t *testing.T) {
						restartTiny(t, size, back, knows, loss)
					})
				}
			}
		}
	}
}

func restartTiny(t *testing.T, size, back int, knows string, loss int) {
	rnd := machine.NewRand(1, id.GUID{byte(size), byte(back), byte(loss)}, knows)
	p := newPool(t, LAN())
	p.net.Now = machine.Time(machine.Hour)
	p.net.Delay = machine.Duration(1+rnd.IntN(60)) * machine.Millisecond
	p.grow(0, size)
	p.net.Run(2 * machine.Minute)
	for _, g := range p.order {
		p.net.Kill(g)
	}
	up := map[id.GUID]*id.Handle{}
	p.net.Drop = func(f machinetest.Flight) bool {
		h := up[f.To.GUID]
		return rnd.IntN(100) < loss || h == nil || h.Addrs[0] != f.To.Addrs[0]
	}
	p.cfg.Member = true
	spread := []int{1, 500, 5000, 30_000}[rnd.IntN(4)]
	for _, i := range rnd.Perm(size)[:back] {
		p.net.Run(machine.Duration(rnd.IntN(spread)) * machine.Millisecond)
		g := p.order[i]
		h := handle(g, 2)
		var seeds []*id.Handle
		saved := p.saved[g]
		switch knows {
		case "moved":
			h.Addrs = []string{"new " + g.Short()}
			for _, o := range p.order {
				if up[o] != nil {
					seeds = append(seeds, up[o])
				}
			}
		case "seeds", "both":
			for _, o := range p.order {
				if o != g {
					seeds = append(seeds, handle(o, 1))
				}
			}
		}
		if knows == "seeds" {
			saved = nil
		}
		up[g] = h
		n := p.add(h)
		p.net.Perform(g, n.Start(p.net.Now, seeds, saved, false, nil))
	}
	for range 120 {
		if s := p.twoOwners(); s != "" {
			t.Fatalf("%s\n%s", s, p.tail())
		}
		if p.converged() && p.unowned() == "" {
			return
		}
		p.net.Run(machine.Second)
	}
	t.Fatalf("%s %s\n%s", p.diverged(), p.unowned(), p.tail())
}
