package node

import (
	"testing"
	"testing/synctest"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/transport"
)

// held is a machine that is busy with its first event until it is let go.
type held struct {
	silent
	entered, free chan struct{}
}

func (h held) Step(_ machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	if ev.Msg == word("first") {
		close(h.entered)
		<-h.free
	}
	return out
}

// TestFloodWaits: while the machine is slow, control frames of one member wait up
// to its share, and of all up to the bound; others are heard meanwhile, and what
// waited goes on afterwards.
func TestFloodWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := held{entered: make(chan struct{}), free: make(chan struct{})}
		l := newLoop(m, id.GUID{}, &echoDisk{}, systemClock)
		l.start()
		member := func(i int) *id.Handle { return &id.Handle{GUID: id.GUID{1, byte(i)}} }
		l.deliver(member(0), word("first"), 0, false)
		<-m.entered
		const each = 40 // of the longest: three times a share
		in := make([]int, 64)
		done := make(chan int, len(in))
		flood := func(i int) {
			for range each {
				l.deliver(member(i), word("more"), transport.MaxControl, false)
				in[i]++
			}
			done <- i
		}
		go flood(0)
		synctest.Wait()
		if in[0] == 0 || in[0]*transport.MaxControl > memberBytes {
			t.Errorf("%d frames of one member wait", in[0])
		}
		go flood(1)
		synctest.Wait()
		if in[1] != in[0] {
			t.Errorf("beside a flood a member has %d frames in, want %d", in[1], in[0])
		}
		for i := 2; i < len(in); i++ {
			go flood(i)
		}
		synctest.Wait()
		total := 0
		for _, n := range in {
			total += n * transport.MaxControl
		}
		if total < backlogBytes/2 || total > backlogBytes {
			t.Errorf("%d bytes wait, of %d", total, backlogBytes)
		}
		close(m.free)
		for range in {
			<-done
		}
		if err := l.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect { return out }); err != nil {
			t.Error(err)
		}
		l.close()
	})
}

// TestFloodEndsWithTheLoop: who waits for room is free when the node ends.
func TestFloodEndsWithTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(silent{}, id.GUID{}, &echoDisk{}, systemClock) // takes nothing: not started
		done := make(chan struct{})
		go func() {
			for range 20 {
				l.deliver(&id.Handle{}, word("more"), transport.MaxControl, false)
			}
			close(done)
		}()
		synctest.Wait()
		l.start()
		l.close()
		<-done
	})
}

// BenchmarkDeliver is the way of a control frame through the loop.
func BenchmarkDeliver(b *testing.B) {
	l := newLoop(silent{}, id.GUID{}, &echoDisk{}, systemClock)
	l.start()
	defer l.close()
	b.RunParallel(func(pb *testing.PB) {
		from := &id.Handle{GUID: id.FromPrefix("65a1fc")}
		for pb.Next() {
			l.deliver(from, word("x"), 300, false)
		}
	})
}
