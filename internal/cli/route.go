package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"

	"github.com/spf13/cobra"
)

// parseKey reads a point on the ring: 64 digits, or its first ones, as the
// chapter writes GUIDs, with zeros to follow.
func parseKey(cmd *cobra.Command, arg string) (id.GUID, error) {
	if arg == "" || len(arg) > 2*id.Size || strings.Trim(strings.ToLower(arg), "0123456789abcdef") != "" {
		return id.GUID{}, usage(cmd, "%q is not a key: up to 64 hexadecimal digits", arg)
	}
	return id.FromPrefix(strings.ToLower(arg)), nil
}

// parseGUID reads a whole GUID.
func parseGUID(cmd *cobra.Command, arg string) (id.GUID, error) {
	g, err := id.Parse(arg)
	if err != nil {
		return g, usage(cmd, "%q: %s", arg, err)
	}
	return g, nil
}

func (a *app) lookupCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "lookup KEY",
		Short: "Tell which nodes are responsible for a key",
		Args:  cobra.ExactArgs(1),
		Long: `
Lookup names the root of a key, the live node whose GUID is numerically closest
to it, and the replica set: the nodes that keep what is stored under it, nearest
first, no two in one failure domain where that can be had. The digits that a
node shares with the key are marked.

KEY is a GUID, or its first digits; zeros follow.`,
		Example: `
			atoll lookup d46a1c
			atoll lookup $(atoll dht put note.txt --quiet)`,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		key, err := parseKey(cmd, args[0])
		if err != nil {
			return err
		}
		v, err := a.node().Lookup(ctx, api.KeyRequest{Key: key})
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "key  %s\n", key)
			name, domain := 0, 0
			for _, r := range v.Replicas {
				name, domain = max(name, utf8.RuneCountInString(orDash(r.Name))), max(domain, utf8.RuneCountInString(orDash(r.Domain)))
			}
			for i, r := range v.Replicas {
				role := "     "
				if r.GUID == v.Root {
					role = "root "
				} else if i == 0 {
					fmt.Fprintf(w, "root %s\n", a.markPrefix(v.Root, id.CommonDigits(v.Root, key)))
				}
				fmt.Fprintf(w, "%s%s  %-*s  %-*s  %s\n", role, a.markPrefix(r.GUID, id.CommonDigits(r.GUID, key)),
					name, orDash(r.Name), domain, orDash(r.Domain), rtt(r.RTTMs))
			}
			if len(v.Replicas) == 0 {
				fmt.Fprintf(w, "root %s\n", a.markPrefix(v.Root, id.CommonDigits(v.Root, key)))
			}
		})
	})
}

func (a *app) routeCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "route KEY",
		Short: "Show the way of a message to a key, hop by hop",
		Args:  cobra.ExactArgs(1),
		Long: `
Route sends a probe towards a key and prints each node on its way: the digits it
shares with the key marked, the rule of the routing algorithm by which it chose
the next (leaf set, table, rare case, or root where it ended), and the time to
it from the node before.

KEY is a GUID, or its first digits; zeros follow.`,
		Example: `
			atoll route d46a1c
			atoll route d46a1c --json`,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		key, err := parseKey(cmd, args[0])
		if err != nil {
			return err
		}
		v, err := a.node().Route(ctx, api.KeyRequest{Key: key})
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "key  %s\n", key)
			for i, h := range v.Hops {
				fmt.Fprintf(w, "%3d  %s  %-9s  %s\n", i, a.markPrefix(h.GUID, h.Prefix), escape(h.Rule), rtt(h.RTTMs))
			}
		})
	})
}
