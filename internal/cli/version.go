package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"atoll.example/atoll/internal/api"

	"github.com/spf13/cobra"
)

func (a *app) versionCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "version",
		Short: "Print what this program is",
		Args:  cobra.NoArgs,
		Long: `
Version prints version, commit and Go version of this program, and the range of
wire versions it speaks. It needs no node; "atoll peers" tells the versions of
the members.`,
		Example: `
			atoll version
			atoll version --json`,
	}, func(context.Context, *cobra.Command, []string) error {
		v := a.version()
		return a.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "atoll %s", v.Version)
			if v.Commit != "" {
				fmt.Fprintf(w, " (%s)", v.Commit)
			}
			fmt.Fprintf(w, ", %s", v.Go)
			if v.Wire.Max > 0 {
				fmt.Fprintf(w, ", wire %d–%d", v.Wire.Min, v.Wire.Max)
			}
			fmt.Fprintln(w)
		})
	})
}

// version fills what the hooks left out from the build.
func (a *app) version() api.Version {
	v := a.hooks.Version
	if bi, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = bi.Main.Version
		}
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" && v.Commit == "" {
				v.Commit = s.Value
			}
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	if v.Go == "" {
		v.Go = runtime.Version()
	}
	return v
}

func (a *app) completionCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a completion script for bash, zsh, fish or powershell",
		Args:  cobra.ExactArgs(1),
		Long: `
Completion prints a script that makes a shell complete commands, flags, names of
files and members. Completion asks the running node for the latter. In bash it
needs the package bash-completion.`,
		Example: `
			source <(atoll completion bash)
			atoll completion zsh > "${fpath[1]}/_atoll"
			atoll completion fish > ~/.config/fish/completions/atoll.fish`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
	}, func(_ context.Context, cmd *cobra.Command, args []string) error {
		switch root := cmd.Root(); args[0] {
		case "bash":
			return root.GenBashCompletionV2(a.out, true)
		case "zsh":
			return root.GenZshCompletion(a.out)
		case "fish":
			return root.GenFishCompletion(a.out, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(a.out)
		}
		return usage(cmd, "no completion for %q: bash, zsh, fish or powershell", args[0])
	})
}
