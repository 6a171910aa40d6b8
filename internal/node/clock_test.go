package node

import (
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/ident"
)

// TestClockAnHourOff: a computer whose clock is an hour off does not get in, and
// is told both times; set right, it does, by the same invite.
func TestClockAnHourOff(t *testing.T) {
	ctx := minute(t)
	p := startPool(t, 1)
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		invite, _, err := p.nodes[0].Invite(InviteTerms{})
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t.TempDir(), "late")
		wrong := time.Now().Add(off)
		cfg.Wall = func() int64 { return wrong.UnixMilli() }
		n, err := Join(ctx, cfg, invite)
		if err == nil {
			n.Close()
			t.Fatalf("a clock %s off joined", off)
		}
		if ident.Code(err) != "clock" {
			t.Errorf("a clock %s off: code %s: %v", off, ident.Code(err), err)
		}
		for _, moment := range []time.Time{wrong, time.Now()} {
			if hour := moment.UTC().Format("2006-01-02 15:"); !strings.Contains(err.Error(), hour) {
				t.Errorf("the message does not name %s…: %v", hour, err)
			}
		}
		cfg.Wall = nil
		if n, err = Join(ctx, cfg, invite); err != nil {
			t.Fatalf("with the clock set right: %v", err)
		}
		n.Close()
	}
}
