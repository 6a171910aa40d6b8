package cli

import (
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
)

// TestWhichDiskFills: the disk with the least room, whoever has filled it, and no
// time that means nothing.
func TestWhichDiskFills(t *testing.T) {
	self, other := id.FromPrefix("65a1fc"), id.FromPrefix("d13da3")
	within := func(s int64) *int64 { return &s }
	const day = 24 * 3600
	for _, c := range []struct {
		free, otherFree int64
		in              *int64
		want            string
	}{
		{800, 700, nil, "That of b (d13da300): 100 B of 1000 B used (10 %)."},
		{800, 0, nil, "That of b (d13da300): 100 B of 1000 B used (10 %), room for 0 B."},
		{0, 700, within(0), "This node's: 200 B of 1000 B used, full."},
		{600, 700, within(40 * day), "This node's: 200 B of 1000 B used, full in 40 days at the present rate."},
		{600, 700, within(170_036 * day), "This node's: 200 B of 1000 B used, not full within a year at the present rate."},
	} {
		st := api.Status{Node: api.NodeStatus{GUID: self}, Disk: api.DiskStatus{Limit: 1000, Used: 200, FullInS: c.in}}
		got := fillWords(st, []api.Peer{
			{GUID: self, Name: "a", Used: 200, Limit: 1000, Free: c.free},
			{GUID: other, Name: "b", Used: 100, Limit: 1000, Free: c.otherFree},
		})
		if got != c.want {
			t.Errorf("free %d and %d: %s\nwant: %s", c.free, c.otherFree, got, c.want)
		}
	}
}

// TestRoomIsForLargeFiles: what a member has free is not all room: a block of 1 MiB
// is taken only while it is at most a tenth of it.
func TestRoomIsForLargeFiles(t *testing.T) {
	for free, want := range map[int64]string{65 << 20: "55.0 MiB", 9 << 20: "0 B"} {
		got := fillWords(api.Status{}, []api.Peer{{GUID: id.FromPrefix("d13da3"), Name: "b", Used: 156 << 20, Limit: 312 << 20, Free: free}})
		if want := "That of b (d13da300): 156.0 MiB of 312.0 MiB used (50 %), room for " + want + "."; got != want {
			t.Errorf("%s\nwant: %s", got, want)
		}
	}
}
