package cli

import (
	"context"
	"fmt"
	"io"

	"atoll.example/atoll/internal/api"

	"github.com/spf13/cobra"
)

func (a *app) verifyCmd() *cobra.Command {
	return a.checkCmd("verify", &cobra.Command{
		Short: "Check that every block of a file has its copies",
		Long: `
Verify walks all blocks of a file and asks their holders: it counts valid,
corrupt and missing copies, and exits 6 if any is corrupt or missing. A verify
link suffices. With --deep every holder proves that it has the bytes, and one
copy of each block is fetched. With --all it checks the whole catalogue.`,
		Example: `
			atoll verify atoll:v1:aebagbaf…
			atoll verify "$(atoll put report.pdf)"
			atoll verify --all --deep`,
	})
}

func (a *app) repairCmd() *cobra.Command {
	return a.checkCmd("repair", &cobra.Command{
		Short: "Restore missing and corrupt copies of a file now",
		Long: `
Repair checks as verify does and restores what is missing or corrupt from any
valid copy, without waiting for the pool's own repair. It exits 6 if a block has
no valid copy left. A verify link suffices.`,
		Example: `
			atoll repair atoll:r1:aebagbaf…
			atoll repair --all`,
	})
}

// checkCmd is what verify and repair share.
func (a *app) checkCmd(name string, c *cobra.Command) *cobra.Command {
	c.Use = name + " LINK|--all"
	c.Args = cobra.MaximumNArgs(1)
	c.ValidArgsFunction = a.completeLinks
	return a.command(c, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		r := api.VerifyRequest{All: truth(cmd, "all"), Deep: truth(cmd, "deep")}
		switch {
		case r.All && len(args) > 0:
			return usage(cmd, "either LINK or --all")
		case !r.All && len(args) == 0:
			return usage(cmd, "LINK or --all is missing")
		case !r.All:
			link, err := a.link(ctx, cmd, args[0])
			if err != nil {
				return err
			}
			r.Link = link
		}
		call := a.node().Verify
		if name == "repair" {
			call = a.node().Repair
		}
		pr := a.progress("checking")
		v, err := call(ctx, r, pr.report())
		pr.done()
		if err != nil {
			return err
		}
		if r.All && v.Blocks == 0 {
			a.remark("This member has put no file: there is nothing to check. A link checks that of another.")
		}
		if err := a.show(v, func(w io.Writer) { checkWords(w, name, v) }); err != nil {
			return err
		}
		bad := int64(len(v.Unrepairable))
		if name == "verify" {
			bad += v.Corrupt + v.Missing
		}
		if bad > 0 {
			return exitError{api.ExitIntegrity}
		}
		return nil
	})
}

func checkWords(w io.Writer, name string, v api.VerifyResult) {
	fmt.Fprintf(w, "%s checked: %s with all copies; %s corrupt, %s missing", plural(v.Blocks, "block"), count(v.OK), plural(v.Corrupt, "copy"), count(v.Missing))
	if name == "repair" {
		fmt.Fprintf(w, "; %s repaired", count(v.Repaired))
	}
	fmt.Fprintln(w, ".")
	for _, g := range v.Unrepairable {
		fmt.Fprintf(w, "No valid copy of %s is left.\n", g)
	}
	for _, b := range v.Bad {
		fmt.Fprintf(w, "%s at %s (%s): its disk is failing, or it lies. If it goes on, put it out: atoll revoke %s\n",
			plural(b.Copies, "corrupt copy"), escape(b.Name), b.GUID.Short(), b.GUID.Short())
	}
	if name == "verify" && v.Corrupt+v.Missing > 0 && len(v.Unrepairable) == 0 {
		fmt.Fprintln(w, `The pool restores copies by itself; "atoll repair" does it now.`)
	}
}
