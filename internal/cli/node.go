package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"atoll.example/atoll/internal/api"

	"github.com/spf13/cobra"
)

func (a *app) upCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "up",
		Short: "Run this machine's node; make node and pool on first use",
		Args:  cobra.NoArgs,
		Long: `
Up runs the node in DIR and serves until it is stopped (SIGTERM or Ctrl-C): then
it ends what is under way, for a few seconds at most, and tells the others, who
do without it at once. A second signal ends it on the spot.

On first use it makes a new pool with this node as its first member and admin,
and prints an invite with which others join: eight of them, within a day. More
invites come from "atoll invite". Later it starts the node again that is there;
--k, --overlay and --pool then change nothing.

Settings may stand in DIR/atoll.toml; docs/config.md lists them.`,
		Example: `
			atoll up
			atoll up --dir /srv/atoll --limit 200GiB --listen 0.0.0.0:4001
			atoll up --preset wan --k 5`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		if a.hooks.Up == nil {
			return notBuilt("up")
		}
		node, err := a.nodeOptions(cmd)
		if err != nil {
			return err
		}
		o := UpOptions{NodeOptions: node, Pool: str(cmd, "pool"), K: int(number(cmd, "k")), Overlay: str(cmd, "overlay")}
		switch {
		case o.Overlay == "tapestry":
			return notBuilt("--overlay tapestry")
		case o.Overlay != "pastry":
			return usage(cmd, "--overlay must be pastry")
		}
		var out error
		err = a.hooks.Up(ctx, o, func(s Started) { out = a.started(s) })
		if err != nil {
			return err
		}
		return out
	})
}

func (a *app) joinCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "join INVITE",
		Short: "Become a member of a pool by an invite, then run the node",
		Args:  cobra.ExactArgs(1),
		Long: `
Join makes DIR a member of the pool that the invite is for, and then serves as
"atoll up" does; later starts are with "atoll up". The member who made the
invite must be reachable. An invite that this folder has used already is
accepted again.

An invite is a secret: whoever has it can join. With - it is read from standard
input, where no list of processes shows it.`,
		Example: `
			atoll join atoll-invite1:aebagbaf…
			ssh alpha atoll invite | atoll join - --limit 100GiB`,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		invite, err := a.secret(ctx, cmd, args[0], "an invite")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(invite, "atoll-invite") {
			return api.Errorf(api.BadInvite, "", "", "not an invite: invites begin with atoll-invite1:")
		}
		if a.hooks.Join == nil {
			return notBuilt("join")
		}
		node, err := a.nodeOptions(cmd)
		if err != nil {
			return err
		}
		var out error
		err = a.hooks.Join(ctx, JoinOptions{NodeOptions: node, Invite: invite}, func(s Started) { out = a.started(s) })
		if err != nil {
			return err
		}
		return out
	})
}

// nodeOptions reads the settings that up and join share.
func (a *app) nodeOptions(cmd *cobra.Command) (NodeOptions, error) {
	o := NodeOptions{
		Dir: a.dir, Nodes: int(number(cmd, "nodes")), Name: str(cmd, "name"), Domain: str(cmd, "domain"),
		Listen: list(cmd, "listen"), Announce: list(cmd, "announce"), Loopback: truth(cmd, "loopback"),
		QUIC: truth(cmd, "quic"), Relay: truth(cmd, "relay"), HolePunch: truth(cmd, "hole-punch"), MDNS: truth(cmd, "mdns"),
		Limit: bytesOf(cmd, "limit"), Memory: bytesOf(cmd, "memory"), Preset: str(cmd, "preset"), Grace: duration(cmd, "grace"),
	}
	switch {
	case o.Preset != "lan" && o.Preset != "wan":
		return o, usage(cmd, "--preset must be lan or wan")
	case o.Limit != 0 && o.Limit < 256<<20:
		return o, usage(cmd, "--limit must be at least 256MiB")
	case o.Memory != 0 && o.Memory < 64<<20:
		return o, usage(cmd, "--memory must be at least 64MiB")
	}
	for _, addr := range o.Announce {
		if strings.HasSuffix(addr, ":0") || strings.Contains(addr+"/", "/tcp/0/") || strings.Contains(addr+"/", "/udp/0/") {
			return o, usage(cmd, "--announce: %q has no port that others can reach: name the one that leads here", addr)
		}
	}
	var err error
	if o.ClockOffset, err = clockOffset(); err != nil {
		return o, usage(cmd, "%v", err)
	}
	level := slog.LevelInfo
	switch str(cmd, "log") {
	case "info":
	case "debug":
		level = slog.LevelDebug
	case "off":
		o.Log = slog.New(slog.DiscardHandler)
		return o, nil
	default:
		return o, usage(cmd, "--log must be off, info or debug")
	}
	if a.quiet {
		level = slog.LevelError
	}
	opts := &slog.HandlerOptions{Level: level}
	if a.json {
		o.Log = slog.New(slog.NewJSONHandler(a.err, opts))
	} else {
		o.Log = slog.New(slog.NewTextHandler(a.err, opts))
	}
	return o, nil
}

// started prints what a node that serves has to say.
func (a *app) started(s Started) error {
	for _, w := range s.Warnings {
		a.remark("Warning: %s", escape(w))
	}
	return a.show(s, func(w io.Writer) {
		name := ""
		if s.Name != "" {
			name = " of pool " + escape(s.Name)
		}
		fmt.Fprintf(w, "node %s%s\n", s.Node, name)
		for _, g := range s.Nodes {
			if g != s.Node {
				fmt.Fprintf(w, "node %s\n", g)
			}
		}
		if s.Invite != "" {
			fmt.Fprintf(w, "\nOthers join with \"atoll join\" and this invite (8 nodes, within 24 h):\n%s\n", s.Invite)
		}
	})
}
