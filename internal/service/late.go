package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/roster"
)

// late says of a change that ran out of time what is known: whether enough
// members are within reach, who has just gone, and that nothing has to be done twice. need is how
// many copies have to be synced, 0: the write quorum of k. Other errors stay.
func (s *Service) late(op string, k, need int, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	v, failed := s.n.View()
	if failed != nil {
		return api.Errorf(api.Deadline, op, "", "not done in time; %s", kept(op))
	}
	if need == 0 {
		need = quorum(min(k, max(v.Members, 1)))
	}
	_, linked := s.n.Heard()
	return lateOf(op, v, linked, need)
}

func kept(op string) string {
	return fmt.Sprintf("nothing that was acknowledged is lost, and the same %s again goes on from there", op)
}

// lateOf is late's error by what is known of the pool and of the connections.
func lateOf(op string, v node.View, linked map[id.GUID]time.Duration, need int) *api.Error {
	within := 1
	var away, cut []id.GUID
	for _, m := range v.Roster {
		_, open := linked[m.GUID]
		switch {
		case m.GUID == v.Handle.GUID || m.Status != roster.Ready:
		case !v.Near[m.GUID]:
			away = append(away, m.GUID)
		case !open: // gone a moment ago, as like as not: the overlay takes seconds to be sure
			cut = append(cut, m.GUID)
			within++
		default:
			within++
		}
	}
	if within < need {
		e := api.Errorf(api.NoQuorum, op, "", "not done in time: it takes %d members within reach, this node included, and finds %d of %d; no word from %s; %s",
			need, within, v.Members, called(v, away), kept(op))
		e.Detail = &api.Detail{Nodes: away}
		return e
	}
	e := api.Errorf(api.Deadline, op, "", "not done in time: %d of %d members seem within reach, and it takes %d; %s", within, v.Members, need, kept(op))
	if len(cut) > 0 {
		e.Message = fmt.Sprintf("not done in time: it takes %d of %s, and this node has no connection with %s just now; %s", need, members(v.Members), called(v, cut), kept(op))
		e.Detail = &api.Detail{Nodes: cut}
	}
	return e
}

// called names some members, at most maxNamed.
func called(v node.View, gs []id.GUID) string {
	var names []string
	for _, g := range gs[:min(len(gs), maxNamed)] {
		names = append(names, v.Called(g))
	}
	if more := len(gs) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
