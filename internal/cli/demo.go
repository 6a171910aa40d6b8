package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func (a *app) demoCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "demo [FILE]",
		Short: "Show all of it on this machine: eight nodes, two of which die",
		Args:  cobra.MaximumNArgs(1),
		Long: `
Demo runs eight real nodes in one process, in a temporary folder, each with its
identity, disk and socket. It puts FILE (or this program itself) through one,
gets it back through another and compares; then it stops two nodes that share a
block, gets the file again, waits for the repair, and prints what happened and
how long it took. Heartbeats and the wait for lost nodes are a second here, so
that you need not wait: real pools are more patient.

It goes on serving until Ctrl-C, so that you can look around with --dir; --exit
ends it. Exit code 6 means that a byte differed.`,
		Example: `
			atoll demo --exit
			atoll demo holiday.mp4`,
		ValidArgsFunction: completeFiles,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		if a.hooks.Demo == nil {
			return notBuilt("demo")
		}
		o := DemoOptions{Exit: truth(cmd, "exit"), JSON: a.json, Quiet: a.quiet}
		if len(args) == 1 {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return wrong("%w", err)
			}
			fi, err := os.Stat(path)
			if err != nil {
				return badPath(args[0], err)
			}
			if !fi.Mode().IsRegular() {
				return wrong("%s is not a regular file", escape(args[0]))
			}
			o.File = path
		}
		return a.hooks.Demo(ctx, o, a.out)
	})
}
