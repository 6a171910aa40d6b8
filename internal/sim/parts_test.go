package sim

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

func TestExponentialSessions(t *testing.T) {
	r := machine.NewRand(1, id.GUID{}, "exp")
	const n = 200_000
	mean := 30 * machine.Minute
	var sum, over float64
	for range n {
		d := expDuration(r, mean)
		if d < 0 {
			t.Fatal("negative session")
		}
		sum += float64(d)
		if d > mean {
			over++
		}
	}
	if got := sum / n / float64(mean); math.Abs(got-1) > 0.01 {
		t.Errorf("mean %.4f of the wanted", got)
	}
	if got := over / n; math.Abs(got-math.Exp(-1)) > 0.005 {
		t.Errorf("share over the mean %.4f, want %.4f", got, math.Exp(-1))
	}
}

func TestBounds(t *testing.T) {
	if r := rate(0, 1000); math.Abs(r.Bound95-0.003) > 1e-5 {
		t.Errorf("rule of three: %v", r.Bound95)
	}
	// Tables of Poisson confidence limits, one-sided 95 %.
	for k, want := range map[int64]float64{1: 4.744, 5: 10.513, 20: 29.062} {
		if got := poissonUpper(k); math.Abs(got-want) > 0.01 {
			t.Errorf("upper limit for %d events: %.3f, want %.3f", k, got, want)
		}
	}
}

func guidGen() *rapid.Generator[id.GUID] {
	return rapid.Custom(func(t *rapid.T) (g id.GUID) {
		binary.BigEndian.PutUint16(g[:], rapid.Uint16().Draw(t, "g"))
		return g
	})
}

// TestRingRoot: the oracle's root is what comparing all nodes gives.
func TestRingRoot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var r ring
		gs := rapid.SliceOfNDistinct(guidGen(), 1, 20, func(g id.GUID) id.GUID { return g }).Draw(rt, "nodes")
		for i, g := range gs {
			r.add(g, Ref(i+1))
		}
		if rapid.Bool().Draw(rt, "remove") && len(gs) > 1 {
			r.remove(gs[0])
			if r.has(gs[0]) {
				rt.Fatal("not removed")
			}
		} else {
			r.remove(id.GUID{0xff, 0xff, 0xff})
		}
		key := guidGen().Draw(rt, "key")
		even := func(n Ref) bool { return n%2 == 0 }
		for _, ok := range []func(Ref) bool{nil, even} {
			want := World
			for i, g := range gs {
				n := Ref(i + 1)
				if !r.has(g) || ok != nil && !ok(n) {
					continue
				}
				if want == World || id.CmpDist(key, g, gs[want-1]) < 0 {
					want = n
				}
			}
			if got := r.root(key, ok); got != want {
				rt.Fatalf("root %d, want %d", got, want)
			}
		}
	})
}

func TestRingSides(t *testing.T) {
	var r ring
	for i := range 5 {
		r.add(id.GUID{byte(10 * (i + 1))}, Ref(i+1))
	}
	tens := func(b ...byte) (s []id.GUID) {
		for _, x := range b {
			s = append(s, id.GUID{x})
		}
		return s
	}
	for _, c := range []struct {
		g           byte
		h           int
		left, right []id.GUID
	}{
		{30, 2, tens(20, 10), tens(40, 50)},
		{10, 3, tens(50, 40, 30), tens(20, 30, 40)},
		{10, 9, tens(50, 40, 30, 20), tens(20, 30, 40, 50)},
		{25, 1, tens(20), tens(30)},
	} {
		l, rr := r.sides(id.GUID{c.g}, c.h, nil)
		if !slices.Equal(l, c.left) || !slices.Equal(rr, c.right) {
			t.Errorf("sides of %d, h=%d: %v %v", c.g, c.h, l, rr)
		}
	}
}

func testRand() *rand.Rand { return machine.NewRand(1, id.GUID{}, "test") }
