package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/roster"
)

// patience is how long an operation waits for a node that has just started to
// find the others: as long as a put for its quorum (20-dht §3). A start takes a
// second, that of a whole pool some more.
const patience = 30 * time.Second

// await returns when the node has found the ring, or says whom it looks for.
func (s *Service) await(ctx context.Context, op string) error {
	wait, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	if s.n.Ready(wait) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := s.n.Failure(); err != nil {
		return err
	}
	v, err := s.n.View()
	if err != nil {
		return err
	}
	return api.Errorf(api.Unavailable, op, "", "%s", seeking(v))
}

// unreached reports whether nothing can be told of the others' copies.
func unreached(v node.View) bool { return api.Searching(v.State) || alone(v) }

// alone reports whether the node reaches no other member, be it that it has found
// none or that they have all gone.
func alone(v node.View) bool {
	if v.Members < 2 {
		return false
	}
	for g, near := range v.Near {
		if near && g != v.Handle.GUID {
			return false
		}
	}
	return true
}

// Seeking says whom a node looks for that has not found the others.
func Seeking(n *node.Node) string {
	v, err := n.View()
	if err != nil {
		return err.Error()
	}
	return seeking(v)
}

// maxNamed bounds the members that a warning names.
const maxNamed = 8

// seeking says whom a node looks for that has found nobody, and what to do.
func seeking(v node.View) string {
	var tried []string
	more := 0
	for _, m := range v.Roster {
		addr := v.Addr(m.GUID)
		switch {
		case m.GUID == v.Handle.GUID || m.Status != roster.Ready && m.Status != roster.Certified || addr == "":
		case len(tried) == maxNamed:
			more++
		default:
			tried = append(tried, fmt.Sprintf("%s (%s) at %s", v.NameOf(m.GUID), m.GUID.Short(), addr))
		}
	}
	if more > 0 {
		tried = append(tried, fmt.Sprintf("%d more", more))
	}
	if len(tried) == 0 {
		tried = []string{"members whose addresses it does not know"}
	}
	reached := "this node reaches no other member"
	if api.Searching(v.State) {
		reached = "this node has found no other member since it started"
	}
	return reached + "; it keeps trying " + strings.Join(tried, ", ") +
		". Start one of them; if they have moved, run \"atoll join INVITE\" on this folder with a new invite from one of them"
}
