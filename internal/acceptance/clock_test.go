package acceptance

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
)

// TestClockAnHourOff: a machine whose clock is an hour off does not get in, and
// is told both times. A member whose clock goes wrong later reads as ever; if it
// runs ahead, what it puts is refused with both times. Set right, all is well.
func TestClockAnHourOff(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3)
	rnd := rand.New(rand.NewPCG(71, 72))
	f, err := p.put(0, 300_000, rnd)
	if err != nil {
		t.Fatal(err)
	}
	old, err := p.put(1, 300_000, rnd)
	if err != nil {
		t.Fatal(err)
	}
	var inv api.InviteResult
	p.ok(0, &inv, "invite")
	join := append([]string{"join", inv.Invite}, p.flags...)
	late := p.at(filepath.Join(p.dir, "late"))
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		p.procs[late].env = clockOff(off)
		p.refused(t, late, refusal{"joining " + off.String() + " off", join, 5, "clock", bothTimes(off)})
	}
	p.procs[late].env = nil
	p.start(late, "join", inv.Invite)
	p.grow(0)

	path := filepath.Join(p.dir, "ahead")
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		p.stop(1)
		p.procs[1].env = clockOff(off)
		p.start(1, "up")
		p.grow(0)
		if err := p.get(1, f, rnd); err != nil {
			t.Errorf("reading %s off: %v", off, err)
		}
		writeFile(t, path, 8<<20, rnd) // blocks with all members as coordinators
		if off > 0 {
			p.refused(t, 1, refusal{"putting " + off.String() + " off", []string{"put", path}, 5, "clock", bothTimes(off)})
		} else {
			p.ok(1, nil, "put", path)
			p.ok(1, nil, "rm", old.link) // put by a later clock
		}
		if _, err := p.put(0, 8<<20, rnd); err != nil {
			t.Errorf("putting through another while one is %s off: %v", off, err)
		}
	}
	p.stop(1)
	p.procs[1].env = nil
	p.start(1, "up")
	p.grow(0)
	// Who could not take in what others dated, or has just started, said neither
	// absent nor removed until now.
	p.until(time.Minute, "the file to be known as removed", func() bool {
		_, errs, exit := p.command(0, "get", old.link, "-o", path+".out", "--force")
		return exit == 3 && bytes.Contains(errs, []byte(`"code":"removed"`))
	})
	var put api.PutResult
	p.ok(1, &put, "put", path)
	p.ok(0, nil, "stat", put.Link)
	p.allFull(0, 30*time.Second)
}

func clockOff(off time.Duration) []string { return []string{"ATOLL_CLOCK_OFFSET=" + off.String()} }

// bothTimes are the hours that a message about clocks must have. Where one is
// about to begin the test could see the one before.
func bothTimes(off time.Duration) (hours []string) {
	now := time.Now().UTC()
	for _, moment := range []time.Time{now, now.Add(off)} {
		hours = append(hours, moment.Format("2006-01-02 15:"))
	}
	return hours
}
