package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/roster"
)

// Clocks are compared with those of a few members; ours.
const (
	clockMembers  = 3               // asked, at most
	clockPatience = 5 * time.Second // for all of them
)

// Wall is this node's clock.
func (n *Node) Wall() time.Time { return time.UnixMilli(n.cfg.Wall()) }

// Clocks asks up to three members for the time, those in reach first, and returns
// how far this node's clock is ahead of each that answers, the least difference
// first. The error of a difference is half a round trip at most.
func (n *Node) Clocks(ctx context.Context) ([]time.Duration, error) {
	v, err := n.View()
	if err != nil {
		return nil, err
	}
	var members []*id.Handle
	for _, near := range []bool{true, false} {
		for _, m := range v.Roster {
			if m.Status == roster.Ready && m.Handle != nil && m.GUID != n.GUID() && v.Near[m.GUID] == near {
				members = append(members, m.Handle)
			}
		}
	}
	members = members[:min(len(members), clockMembers)]
	ctx, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	answers := make([]*time.Duration, len(members))
	var all sync.WaitGroup
	for i, h := range members {
		all.Go(func() { answers[i] = n.ahead(ctx, h) })
	}
	all.Wait()
	var gaps []time.Duration
	for _, d := range answers {
		if d != nil {
			gaps = append(gaps, *d)
		}
	}
	slices.SortFunc(gaps, func(a, b time.Duration) int { return cmp.Compare(a.Abs(), b.Abs()) })
	return gaps, nil
}

// ahead is how far this node's clock is ahead of a member's; nil: no answer.
func (n *Node) ahead(ctx context.Context, h *id.Handle) *time.Duration {
	asked := n.cfg.Wall()
	b, proved, err := n.tr.Ask(ctx, h, ident.EncodeQuestion(ident.Identify{}))
	if err != nil || proved != h.Key {
		return nil
	}
	a, err := ident.ParseIdentity(b)
	if err != nil {
		return nil
	}
	middle := asked + (n.cfg.Wall()-asked)/2
	d := time.Duration(middle-a.Wall) * time.Millisecond
	return &d
}
