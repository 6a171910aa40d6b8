package cli

import (
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
)

// TestWhyNothingIsRepaired: copies are missing and none is queued: since members
// are away, since there is no room, or for no reason that shows.
func TestWhyNothingIsRepaired(t *testing.T) {
	const room = 1 << 30
	for _, c := range []struct {
		free       []int64 // bytes, of each member here
		away       int
		what, long string
	}{
		{[]int64{room, room, room}, 1, "Nothing yet: members that are away may still come back.", "Until they do, or the grace period ends."},
		{[]int64{room, 0}, 1, "Nothing yet: members that are away may still come back.", "Until they do, or the grace period ends."},
		{[]int64{room, room, 9 << 20}, 0, "Nothing: there is no room for more copies on c (c0000000). Raise --limit there, add a member, or remove files.", "Until there is room."},
		{[]int64{0, 0, 0, 0, 0}, 0, "Nothing: there is no room for more copies on a (a0000000), b (b0000000), c (c0000000), 2 more. Raise --limit there, add a member, or remove files.", "Until there is room."},
		{[]int64{room, room, room, 0}, 0, "Nothing yet: members are still finding out which copies are missing.", "Not known yet."},
	} {
		st := api.Status{
			Pool:    api.PoolStatus{K: 3},
			Members: api.MemberCount{Total: len(c.free) + c.away, Live: len(c.free)},
			Safety:  api.Safety{Blocks: 1, Degraded: 1},
		}
		var peers []api.Peer
		for i, free := range c.free {
			name := string(rune('a' + i))
			peers = append(peers, api.Peer{GUID: id.FromPrefix(name), Name: name, State: "live", Limit: 4 * room, Free: free})
		}
		if what, long := repairWords(st, peers); what != c.what || long != c.long {
			t.Errorf("%+v: %s %s\nwant: %s %s", c.free, what, long, c.what, c.long)
		}
	}
}
