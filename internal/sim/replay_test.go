package sim

import (
	"bufio"
	"context"
	"flag"
	"os"
	"strings"
	"testing"
)

// Flags of TestReplay, for looking into a failing seed with a debugger or a
// log of every trace event:
//
//	go test ./internal/sim -run Replay -v -scenario dht-swarm -seed 8 -log /tmp/log
//	go test ./internal/sim -run Replay -v -only $PWD/dht-swarm-8.json -log /tmp/log
var (
	replayName  = flag.String("scenario", "", "scenario to replay")
	replayOnly  = flag.String("only", "", "file that --shrink wrote, instead")
	replaySeed  = flag.Uint64("seed", 1, "its seed")
	replaySeeds = flag.Int("seeds", 1, "for dht scenarios: so many seeds from there")
	replayHours = flag.Float64("hours", 0, "for dht scenarios: node-hours, 0: the default")
	replayBugs  = flag.String("bugs", "", "planted bugs, by comma")
	replayLog   = flag.String("log", "", "file for trace events, operations and faults")
)

// TestReplay runs what its flags name, and nothing without them.
func TestReplay(t *testing.T) {
	c := Case{Scenario: *replayName, Seed: *replaySeed, NodeHours: *replayHours}
	switch {
	case *replayOnly != "":
		b, err := os.ReadFile(*replayOnly)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = DecodeCase(b); err != nil {
			t.Fatal(err)
		}
	case *replayName == "":
		return
	case *replayBugs != "":
		c.Bugs = strings.Split(*replayBugs, ",")
	}
	if *replayLog != "" {
		f, err := os.Create(*replayLog)
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriter(f)
		c.Log = w
		defer func() {
			if err := w.Flush(); err != nil {
				t.Error(err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	r, err := c.Run(context.Background(), *replaySeeds, nil)
	if err != nil {
		t.Fatal(err)
	}
	logTable(t, r)
	if !r.OK() {
		t.Error("failed")
	}
}
