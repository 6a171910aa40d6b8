package service

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/roster"
)

// late says of a change that ran out of time what is known: whether enough
// members are within reach, and that nothing has to be done twice. need is how
// many copies have to be synced, 0: the write quorum of k. Other errors stay.
func (s *Service) late(op string, k, need int, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	kept := fmt.Sprintf("nothing that was acknowledged is lost, and the same %s again goes on from there", op)
	v, failed := s.n.View()
	if failed != nil {
		return api.Errorf(api.Deadline, op, "", "not done in time; %s", kept)
	}
	if need == 0 {
		need = quorum(min(k, max(v.Members, 1)))
	}
	within := 1
	var away []id.GUID
	var names []string
	for _, m := range v.Roster {
		switch {
		case m.GUID == s.n.GUID() || m.Status != roster.Ready:
		case v.Near[m.GUID]:
			within++
		default:
			away = append(away, m.GUID)
			if len(names) < maxNamed {
				names = append(names, v.Called(m.GUID))
			}
		}
	}
	if within >= need {
		return api.Errorf(api.Deadline, op, "", "not done in time; %s", kept)
	}
	if more := len(away) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	e := api.Errorf(api.NoQuorum, op, "", "not done in time: it takes %d members within reach, this node included, and finds %d of %d; no word from %s; %s",
		need, within, v.Members, strings.Join(names, ", "), kept)
	e.Detail = &api.Detail{Nodes: away}
	return e
}
