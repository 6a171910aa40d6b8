package acceptance

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/node"
)

// What a hostile member does with the blocks it is to send.
const (
	honest = iota
	withhold
	lie
)

// turncoat runs the folder of member i, which has been stopped, in this process,
// where mode says what becomes of the blocks it sends.
func (p *pool) turncoat(i int, mode *atomic.Int32) *node.Node {
	p.t.Helper()
	n, err := node.Open(p.t.Context(), node.Config{
		Dir: p.procs[i].dir, Loopback: true, NoQUIC: true, Limit: 4 << 30,
		Distort: func(bulk bool, frame []byte) []byte {
			switch {
			case !bulk || len(frame) < 4096:
				return frame
			case mode.Load() == withhold:
				return nil
			case mode.Load() == lie:
				frame = bytes.Clone(frame)
				frame[len(frame)/2] ^= 1
			}
			return frame
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(n.Close)
	p.until(30*time.Second, "the hostile member to be in", func() bool {
		var st api.Status
		return p.try(0, &st, "status") == nil && st.Members.Live == len(p.procs)
	})
	return n
}

// TestHostileMember: a member with a good certificate withholds blocks, then
// sends wrong bytes for them. What is read is right and what is put is read, and
// the lies are counted.
func TestHostileMember(t *testing.T) {
	t.Parallel()
	p := newPool(t, 4)
	rnd := rand.New(rand.NewPCG(81, 82))
	files := p.putAll([]int64{20_000, 3 << 20, 12 << 20}, rnd)
	p.allFull(0, 30*time.Second)
	p.stop(3)
	var mode atomic.Int32
	p.turncoat(3, &mode)
	for _, m := range []struct {
		name string
		mode int32
	}{{"withholds", withhold}, {"lies", lie}} {
		mode.Store(m.mode)
		for i := range 3 {
			for _, f := range files {
				if err := p.get(i, f, rnd); err != nil {
					t.Fatalf("while a member %s: %v", m.name, err)
				}
			}
			if m.mode == withhold && i > 0 && !*full {
				continue // a put waits a quarter of a minute for what a coordinator withholds
			}
			begin := time.Now()
			more, err := p.put(i, 6<<20, rnd)
			if err != nil {
				t.Fatalf("while a member %s: %v", m.name, err)
			}
			t.Logf("a member %s: put of 6 MiB in %s", m.name, time.Since(begin))
			files = append(files, more)
		}
	}
	// One that was silent is asked last for a while, and then like the others.
	seen := int64(0)
	p.soon(func() bool {
		seen = 0
		for i := range 3 {
			for _, f := range files {
				if err := p.get(i, f, rnd); err != nil {
					t.Fatalf("while a member lies: %v", err)
				}
			}
			seen += p.traced(i, "stack.bad")
		}
		return seen > 0
	})
	t.Logf("wrong blocks were noticed %d times", seen)
	told := false
	for i := range 3 {
		var st api.Status
		if err := p.try(i, &st, "status"); err != nil {
			t.Fatal(err)
		}
		told = told || strings.Contains(strings.Join(st.Warnings, "\n"), "sent what no honest member sends")
	}
	if !told {
		t.Error("no member's status tells of the liar")
	}
}
