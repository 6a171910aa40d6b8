package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"

	"github.com/spf13/cobra"
)

// watchEvery is how often status --watch prints.
const watchEvery = 2 * time.Second

func (a *app) statusCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "status",
		Short: "Is my data safe, which disk fills next, what is being repaired",
		Args:  cobra.NoArgs,
		Long: `
Status answers four questions: is my data safe, which disk fills next, what is
being repaired, how long still. It asks every member that can be reached and
names those that did not answer. It exits 4 if any block has fewer copies than
the write quorum, or if that cannot be told since this node reaches no other
member.`,
		Example: `
			atoll status
			atoll status --watch
			atoll status --json | jq .safety`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		if !truth(cmd, "watch") {
			st, err := a.status(ctx, "")
			if err == nil && (st.Safety.BelowW+st.Safety.Lost > 0 || isolated(st) || alone(st)) {
				return exitError{api.ExitUnavailable}
			}
			return err
		}
		clearScreen := ""
		if a.outTTY {
			clearScreen = "\x1b[H\x1b[2J"
		}
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for first := true; ; first = false {
			if !first && !a.outTTY && !a.json {
				fmt.Fprintln(a.out)
			}
			if _, err := a.status(ctx, clearScreen); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				if errors.As(context.Cause(ctx), new(signalled)) {
					return nil // how one ends it
				}
				return ctx.Err()
			}
		}
	})
}

// status prints the status once.
func (a *app) status(ctx context.Context, before string) (api.Status, error) {
	st, err := a.node().Status(ctx)
	if err != nil {
		return st, err
	}
	if a.json {
		return st, printJSON(a.out, st)
	}
	peers, err := a.node().Peers(ctx)
	if err != nil {
		return st, err
	}
	words := a.statusWords(st, peers.Peers)
	if a.outTTY {
		words = fold(words, a.width())
	}
	_, err = io.WriteString(a.out, before+words)
	return st, err
}

func (a *app) statusWords(st api.Status, peers []api.Peer) string {
	var b strings.Builder
	ask := func(question, answer string) {
		fmt.Fprintf(&b, "%s %s\n", a.styled("1", fmt.Sprintf("%-23s", question)), answer)
	}
	safe, colour := safetyWords(st)
	ask("Is my data safe?", a.styled(colour, safe))
	ask("Which disk fills next?", fillWords(st, peers))
	what, long := repairWords(st, peers)
	ask("What is being repaired?", what)
	ask("How long still?", long)
	fmt.Fprintf(&b, "\nPool %s: %d of %d members here, %d copies of each block, writes wait for %d, %s.\n",
		escape(st.Pool.Name), st.Members.Live, st.Members.Total, st.Pool.K, st.Pool.W, escape(st.Pool.Overlay))
	fmt.Fprintf(&b, "Node %s (%s), %s", orDash(st.Node.Name), st.Node.GUID.Short(), escape(st.Node.Role))
	if st.Node.State != "" && st.Node.State != "ready" {
		fmt.Fprintf(&b, ", %s", escape(st.Node.State))
	}
	fmt.Fprintf(&b, ": %s of %s used", size(st.Disk.Used), size(st.Disk.Limit))
	if len(st.Node.Addrs) > 0 {
		var addrs []string
		for _, s := range st.Node.Addrs {
			if s = plainAddr(escape(s)); !slices.Contains(addrs, s) {
				addrs = append(addrs, s)
			}
		}
		fmt.Fprintf(&b, ", at %s", strings.Join(addrs, ", "))
	}
	b.WriteString(".\n")
	for _, w := range st.Warnings {
		fmt.Fprintf(&b, "%s %s\n", a.styled("33", "Warning:"), escape(w))
	}
	return b.String()
}

// plainAddr makes host:port of an address over QUIC: the same port as for TCP.
func plainAddr(s string) string {
	f := strings.Split(s, "/") // "", ip4, host, udp, port, quic-v1
	if len(f) == 6 && f[3] == "udp" && f[5] == "quic-v1" {
		return net.JoinHostPort(f[2], f[4])
	}
	return s
}

// isolated reports whether the node has found no other member since it started.
func isolated(st api.Status) bool {
	return st.Members.Total > 1 && api.Searching(st.Node.State)
}

// alone reports whether no other member has answered.
func alone(st api.Status) bool { return st.Members.Total > 1 && st.Members.Live < 2 }

// safetyWords answers the first question, and says in which colour.
func safetyWords(st api.Status) (answer, colour string) {
	if isolated(st) {
		return "It cannot be told: this node has found no other member yet.", "33"
	}
	s := st.Safety
	silent := ""
	if len(s.Silent) > 0 {
		silent = fmt.Sprintf(" Silent just now: %s; the blocks led there are not counted, the copies there still are.", shortGUIDs(s.Silent))
	}
	if len(s.Learning) > 0 {
		silent += fmt.Sprintf(" Just started, so the counts may rise: %s.", shortGUIDs(s.Learning))
	}
	copies := min(st.Pool.K, max(st.Members.Total, 1))
	target := plural(int64(copies), "copy")
	switch {
	case s.Lost > 0:
		return fmt.Sprintf("No: %s no copy on any member here%s. Bring back the members that are away.%s",
			have(s.Lost, s.Blocks), alsoBelow(s.BelowW), silent), "31"
	case s.BelowW > 0:
		return fmt.Sprintf("Not enough: %s fewer copies than the write quorum of %d.%s", have(s.BelowW, s.Blocks), st.Pool.W, silent), "31"
	case alone(st):
		return "It cannot be told: this node reaches no other member." + silent, "33"
	case s.Degraded > 0:
		return fmt.Sprintf("Yes, but %s fewer than %s.%s", have(s.Degraded, s.Blocks), target, silent), "33"
	case len(s.Silent) > 0:
		return fmt.Sprintf("As far as can be told: %s %s.%s", allHave(s.Blocks, " counted"), target, silent), "33"
	case s.Blocks == 0:
		return "Yes: there is none yet." + silent, "32"
	default:
		return fmt.Sprintf("Yes: %s %s.%s", allHave(s.Blocks, ""), target, silent), "32"
	}
}

// have is "3 of 1,234 blocks have".
func have(n, of int64) string {
	verb := "have"
	if n == 1 {
		verb = "has"
	}
	return fmt.Sprintf("%s of %s %s", count(n), plural(of, "block"), verb)
}

// allHave is "all 1,234 blocks counted have", or "the one block counted has".
func allHave(n int64, which string) string {
	if n == 1 {
		return "the one block" + which + " has"
	}
	return "all " + plural(n, "block") + which + " have"
}

func alsoBelow(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", and %s fewer than the write quorum", count(n))
}

// fillWords names the disk that is nearest to full: by time where it is this
// node's, whose rate is known, else by share.
func fillWords(st api.Status, peers []api.Peer) string {
	var fullest api.Peer
	for _, p := range peers {
		if p.Limit > 0 && (fullest.Limit == 0 || p.Free*1000/p.Limit < fullest.Free*1000/fullest.Limit) {
			fullest = p
		}
	}
	own := ""
	if in := st.Disk.FullInS; in != nil {
		switch {
		case *in == 0:
			own = "full"
		case *in > 365*24*3600:
			own = "not full within a year at the present rate"
		default:
			own = fmt.Sprintf("full in %s at the present rate", seconds(float64(*in)))
		}
	}
	switch {
	case fullest.Limit == 0 && own == "":
		return "None is filling, as far as is known."
	case fullest.Limit == 0 || fullest.GUID == st.Node.GUID:
		s := fmt.Sprintf("This node's: %s of %s used", size(st.Disk.Used), size(st.Disk.Limit))
		if own != "" {
			s += ", " + own
		}
		return s + "."
	}
	s := fmt.Sprintf("That of %s: %s of %s used (%d %%)", named(fullest), size(fullest.Used), size(fullest.Limit), fullest.Used*100/fullest.Limit)
	if fullest.Free < (fullest.Limit-fullest.Used)/2 {
		s += ", room for " + size(roomOf(fullest))
	}
	s += "."
	if own != "" {
		s += " This node's is " + own + "."
	}
	return s
}

// lastBlocks is the part of what is free, in bytes, that blocks of 1 MiB, those of
// large files, do not get: a member takes a block of at most a tenth of what it has
// free (20-dht §6).
const lastBlocks = 10 << 20

// roomOf is how many bytes of large files a member takes still.
func roomOf(p api.Peer) int64 { return max(0, p.Free-lastBlocks) }

// roomless names the members without room, if those that have some are too few for
// all copies of a block; else it is empty.
func roomless(st api.Status, peers []api.Peer) string {
	var full []string
	for _, p := range peers {
		if (p.State == "live" || p.State == "self") && p.Limit > 0 && roomOf(p) == 0 {
			full = append(full, named(p))
		}
	}
	if len(full) == 0 || st.Members.Live-len(full) >= min(st.Pool.K, st.Members.Total) {
		return ""
	}
	if more := len(full) - 3; more > 0 {
		full = append(full[:3], count(int64(more))+" more")
	}
	return strings.Join(full, ", ")
}

// repairWords answers the last two questions.
func repairWords(st api.Status, peers []api.Peer) (what, long string) {
	r := st.Repair
	if isolated(st) {
		return "Not known either.", "Until another member is found."
	}
	if r.Queued == 0 {
		switch full := roomless(st, peers); {
		case st.Safety.Degraded+st.Safety.BelowW == 0:
			return "Nothing.", "Nothing to wait for."
		case st.Members.Live < st.Members.Total:
			return "Nothing yet: members that are away may still come back.", "Until they do, or the grace period ends."
		case full != "":
			return "Nothing: there is no room for more copies on " + full + ". Raise --limit there, add a member, or remove files.", "Until there is room."
		}
		return "Nothing yet: members are still finding out which copies are missing.", "Not known yet."
	}
	what = fmt.Sprintf("%s (%s to copy).", plural(r.Queued, "block"), size(r.Bytes))
	if r.ETAS == nil {
		return what, "Not known yet."
	}
	if *r.ETAS < 1 {
		return what, "Less than a second."
	}
	return what, "About " + seconds(float64(*r.ETAS)) + "."
}
