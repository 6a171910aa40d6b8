package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"

	"github.com/spf13/cobra"
)

// secret is an argument, or what standard input holds if it is "-".
func (a *app) secret(ctx context.Context, cmd *cobra.Command, arg, what string) (string, error) {
	if arg != "-" {
		if s := strings.TrimSpace(arg); strings.HasPrefix(s, "atoll:") || strings.HasPrefix(s, "atoll-invite") {
			return s, nil // copied with the white space around it
		}
		return arg, nil
	}
	b, err := readAll(ctx, a.in, api.MaxLink)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", api.Errorf(api.Internal, "", "", "reading standard input: %w", err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" || len(s) > api.MaxLink || strings.ContainsAny(s, " \t\r\n") {
		return "", usage(cmd, "standard input must hold %s and nothing else", what)
	}
	return s, nil
}

// link is an argument that must be a link, or - for one on standard input.
func (a *app) link(ctx context.Context, cmd *cobra.Command, arg string) (string, error) {
	s, err := a.secret(ctx, cmd, arg, "a link")
	if err == nil && !strings.HasPrefix(s, "atoll:") && !strings.HasPrefix(s, "atoll-invite") { // an invite is told what it is
		err = api.Errorf(api.BadLink, "", "", "not a link: links begin with atoll:r1:, atoll:v1: or atoll:c1:; \"atoll ls --long\" shows those of the files put here")
	}
	return s, err
}

// maxInviteDays is how long an invite may be good: as long as a certificate.
const maxInviteDays = 400

func (a *app) inviteCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "invite",
		Short: "Make an invite with which another node joins the pool",
		Args:  cobra.NoArgs,
		Long: `
Invite prints an invite, alone on its line. Only admins can make one, and this
node must be reachable when it is used. An invite is a secret: give it to those
you want in.`,
		Example: `
			atoll invite
			atoll invite --uses 20 --ttl 7d`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		r := api.InviteRequest{
			Role: str(cmd, "role"), Uses: int(number(cmd, "uses")), TTLS: int64(duration(cmd, "ttl").Seconds()), Quota: bytesOf(cmd, "quota"),
		}
		switch {
		case r.Role != "member" && r.Role != "admin":
			return usage(cmd, "--role must be member or admin")
		case r.TTLS < 1:
			return usage(cmd, "--ttl must be at least 1s")
		case r.TTLS > maxInviteDays*24*3600:
			return usage(cmd, "--ttl must be at most %dd", maxInviteDays)
		}
		v, err := a.node().Invite(ctx, r)
		if err != nil {
			return err
		}
		a.remark("Good for %s until %s.", plural(int64(r.Uses), "node"), date(v.Expires))
		return a.show(v, func(w io.Writer) { fmt.Fprintln(w, v.Invite) })
	})
}

func (a *app) peersCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "peers",
		Short: "List the members of the pool",
		Args:  cobra.NoArgs,
		Long: `
Peers lists the members of the roster: who they are, whether this node can reach
them and how fast, where they stand, and how full their disks are.`,
		Example: `
			atoll peers
			atoll peers --json | jq -r '.peers[] | select(.state == "silent").guid'`,
	}, func(ctx context.Context, _ *cobra.Command, _ []string) error {
		v, err := a.node().Peers(ctx)
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			t := newTable("NODE", "NAME", "STATE", "ROLE", "DOMAIN", "RTT", "USED", "OF", "SINCE", "ADDRESS", "VERSION")
			for _, p := range v.Peers {
				used, limit := "–", "–"
				if p.Limit > 0 {
					used, limit = fmt.Sprintf("%s (%d %%)", size(p.Used), p.Used*100/p.Limit), size(p.Limit)
				}
				t.AppendRow([]any{
					p.GUID.String()[:12], orDash(p.Name), escape(p.State), escape(p.Role), orDash(p.Domain), rtt(p.RTTMs),
					used, limit, date(p.Since), orDash(p.Addr), orDash(p.Version),
				})
			}
			fmt.Fprintln(w, a.narrowed(t, []int{6, 7, 8}, []int{11, 10, 9, 5, 4, 8, 6}))
		})
	})
}

func (a *app) revokeCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "revoke GUID",
		Short: "Exclude a member for good",
		Args:  cobra.ExactArgs(1),
		Long: `
Revoke ends a membership: everyone drops that node within seconds, and repair of
what it held starts at once. Only admins can, and it cannot be undone; the node
can be invited anew with a new key. Before anything happens you are told how
many blocks would have fewer copies than the write quorum, and asked.

GUID may be the first digits of one, or a member's name, if only one member has
it. A member who is there and willing says "atoll leave" instead: that hands its
blocks over first.`,
		Example: `
			atoll revoke 65a1fc --reason "stolen laptop"
			atoll revoke 65a1fc --yes`,
		ValidArgsFunction: a.completePeers,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		p, err := a.findPeer(ctx, cmd, args[0])
		if err != nil {
			return err
		}
		r := api.RevokeRequest{GUID: p.GUID, Reason: str(cmd, "reason"), DryRun: true}
		would, err := a.node().Revoke(ctx, r)
		if err != nil {
			return err
		}
		a.remark("Without %s, %s would have fewer copies than the write quorum until repaired.", named(p), plural(would.BelowW, "block"))
		if err := a.confirm(cmd, "Revoke its membership?"); err != nil {
			return err
		}
		r.DryRun = false
		v, err := a.node().Revoke(ctx, r)
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "Revoked %s. %s below the write quorum; repair has begun.\n", named(p), plural(v.BelowW, "block"))
		})
	})
}

func (a *app) leaveCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "leave",
		Short: "Hand this node's blocks over and end its membership",
		Args:  cobra.NoArgs,
		Long: `
Leave copies what only this node and too few others hold to members that stay,
waits until enough of them have it, signs off, and ends the node. Nothing is
lost and no write stops meanwhile. Interrupted by Ctrl-C, the node stays a
member. The last member of a pool can leave only when it holds no block, and the
last admin, as long as there are other members, only with --last-admin: nobody
can be invited or revoked after that.`,
		Example: `
			atoll leave
			atoll leave --yes --reason "machine retired"`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		if err := a.confirm(cmd, "Hand everything over and leave the pool for good?"); err != nil {
			return err
		}
		pr := a.progress("handing over")
		v, err := a.node().Leave(ctx, api.LeaveRequest{Reason: str(cmd, "reason"), LastAdmin: truth(cmd, "last-admin")}, pr.report())
		pr.done()
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "Left the pool: %s handed over.\n", plural(v.HandedOver, "block"))
		})
	})
}

// named is how a member is called in a sentence.
func named(p api.Peer) string {
	if p.Name == "" {
		return p.GUID.Short()
	}
	return escape(p.Name) + " (" + p.GUID.Short() + ")"
}

// confirm asks, unless --yes was given.
func (a *app) confirm(cmd *cobra.Command, question string) error {
	if truth(cmd, "yes") {
		return nil
	}
	if !a.inTTY || a.json {
		return usage(cmd, "nobody to ask: confirm with --yes")
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // ends with the line, or with the process if none comes
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answer <- line
	}()
	select {
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return api.Errorf(api.Cancelled, "", "", "nothing was done")
	case <-cmd.Context().Done():
		return cmd.Context().Err()
	}
}

// findPeer finds the member that arg means: a GUID, its first digits or a name.
func (a *app) findPeer(ctx context.Context, cmd *cobra.Command, arg string) (api.Peer, error) {
	ps, err := a.node().Peers(ctx)
	if err != nil {
		return api.Peer{}, err
	}
	var found []api.Peer
	for _, p := range ps.Peers {
		if p.Name == arg || len(arg) >= 4 && strings.HasPrefix(p.GUID.String(), strings.ToLower(arg)) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if _, err := id.Parse(arg); err != nil && !isHex(arg) {
			return api.Peer{}, usage(cmd, "%q is neither a GUID, nor its first four digits or more, nor a member's name", arg)
		}
		return api.Peer{}, api.Errorf(api.NotFound, "", escape(arg), "no such member")
	}
	var gs []id.GUID
	for _, p := range found {
		gs = append(gs, p.GUID)
	}
	e := usage(cmd, "%q means more than one member: give more digits", arg)
	e.Detail = &api.Detail{Nodes: gs}
	return api.Peer{}, e
}

func isHex(s string) bool {
	return len(s) >= 4 && len(s) <= 64 && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// completePeers offers the GUIDs of members, with their names.
func (a *app) completePeers(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || a.configure(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	ps, err := a.node().Peers(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range ps.Peers {
		if g := p.GUID.String(); strings.HasPrefix(g, strings.ToLower(prefix)) && p.State != "self" {
			out = append(out, cobra.CompletionWithDesc(g, escape(p.Name)))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
