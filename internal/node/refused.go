package node

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// Refused is a refusal of the DHT in the form in which errors cross the API:
// with a code, and words by which a user can do something about it.
type Refused struct {
	*dht.Refusal
	who []string // Refusal.Nodes as people call them
	at  int64    // this node's clock when it was refused, Unix ms
}

func (r *Refused) Unwrap() error    { return r.Refusal }
func (r *Refused) Code() string     { return r.Refusal.Code }
func (r *Refused) AfterMS() int64   { return r.Refusal.AfterMS }
func (r *Refused) Nodes() []id.GUID { return r.Refusal.Nodes }

// Removed reports whether those within reach know that the block was removed: of a
// block with one claim, such as a file's root, that is certain.
func (r *Refused) Removed() bool { return r.Refusal.Removed }

// Detail is what the DHT noted, as far as Error does not tell it.
func (r *Refused) Detail() string {
	if strings.Contains(r.Error(), r.Refusal.Detail) {
		return ""
	}
	return r.Refusal.Detail
}

func (r *Refused) Error() string {
	who := strings.Join(r.who, ", ")
	switch r.Refusal.Code {
	case dht.CodeNoQuorum:
		if who == "" {
			return "too few members have synced it"
		}
		return "too few members have synced it; no word from " + who
	case dht.CodeUnavailable:
		what := "no copy can be had now"
		if r.Removed() {
			what = "those within reach know that it was removed"
		}
		if who != "" {
			return what + "; no word from " + who
		}
	case dht.CodeFull:
		if who == "" {
			return "no member has room for it"
		}
		return "no room on " + who
	case dht.CodeClaims:
		return fmt.Sprintf("%d files of this member share it, the most there can be", dht.MaxPerOwner)
	case dht.CodeBusy:
		return "the members are busy"
	case dht.CodeDeadline:
		return "not done in time"
	case dht.CodeNotFound:
		if r.Refusal.Detail == "" {
			return "no member has it: it was never put in this pool, or its name is mistyped"
		}
	case dht.CodeRemoved:
		return "it was removed by its owner"
	case dht.CodeCAS:
		if r.Stamp == 0 {
			return "there is no value yet: use --cas 0"
		}
		return fmt.Sprintf("the value that is there has number %d: look at it, then use --cas %d", r.Stamp, r.Stamp)
	case dht.CodeStaleSeq:
		return fmt.Sprintf("the value that is there has number %d, not a lower one: take a higher --seq, or leave it out", r.Stamp)
	case dht.CodeClock:
		return fmt.Sprintf("clocks disagree: this computer's says %s UTC, that of the member who refused it %s UTC; set the wrong one and try again",
			time.UnixMilli(r.at).UTC().Format(time.DateTime), time.UnixMilli(int64(r.Stamp)).UTC().Format(time.DateTime))
	case dht.CodeEquivocation:
		return "its owner has signed two values with the same number: put a value with a higher one"
	case dht.CodeNotMember:
		return "a member does not take this node for one of the pool: see atoll doctor"
	}
	s := strings.ReplaceAll(r.Refusal.Code, "_", " ")
	if r.Refusal.Detail != "" {
		s += ": " + r.Refusal.Detail
	}
	if who != "" {
		s += ": " + who
	}
	return s
}

// coded makes a refusal of the machine one that users can read.
func (n *Node) coded(err error) error {
	var r *dht.Refusal
	if !errors.As(err, &r) {
		return err
	}
	return &Refused{Refusal: r, who: n.called(r.Nodes), at: n.cfg.Wall()}
}

// called are the names of members, each with the first digits of its GUID.
func (n *Node) called(gs []id.GUID) []string {
	names := make([]string, len(gs))
	for i, g := range gs {
		names[i] = g.Short()
	}
	if len(gs) == 0 {
		return names
	}
	_ = n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		for i, g := range gs {
			if m, ok := n.stack.Roster().Info(g); ok && m.Cert != nil && m.Cert.Name != "" {
				names[i] = m.Cert.Name + " (" + g.Short() + ")"
			}
		}
		return out
	})
	return names
}
