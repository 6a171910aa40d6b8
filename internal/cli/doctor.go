package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"atoll.example/atoll/internal/api"

	"github.com/spf13/cobra"
)

func (a *app) doctorCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "doctor",
		Short: "Check this node and say how to mend what is wrong",
		Args:  cobra.NoArgs,
		Long: `
Doctor checks folder, disk, clock, network and membership, one line each, with
what to do about it, and exits 1 if any check fails. Where no node runs it
checks the folder, and exits 4 if that is well.

--backup saves the catalogue of this member with its keys and secret: everything
one needs to read, and remove, one's files from elsewhere. Keep the file as safe
as the keys. The exit code then says whether that was done, whatever the checks
find. --restore puts it back into a folder on which no node runs.
--accept-disk lets a node start again on a disk that failed; every block is
checked before it serves. A store whose index is damaged is set aside: it stays
in the folder as store.damaged-TIME, and the node fetches its copies anew.`,
		Example: `
			atoll doctor
			atoll doctor --backup /media/usb/atoll.backup
			atoll doctor --accept-disk`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		backup, err := absolute(cmd, "backup")
		if err != nil {
			return err
		}
		restore, err := absolute(cmd, "restore")
		if err != nil {
			return err
		}
		o := DoctorOptions{Dir: a.dir, Backup: backup, Restore: restore, AcceptDisk: truth(cmd, "accept-disk")}
		if backup != "" && (restore != "" || o.AcceptDisk) {
			return usage(cmd, "--backup stands alone")
		}
		mends := o.Restore != "" || o.AcceptDisk
		var v api.DoctorResult
		if mends {
			_, err = a.node().Version(ctx) // is one running?
		} else {
			v, err = a.node().Doctor(ctx, api.DoctorRequest{Backup: backup})
		}
		switch {
		case err == nil && mends:
			return api.Errorf(api.DirInUse, "", a.dir, "a node is running: stop it first")
		case err == nil:
			return a.checked(v.Results, backup)
		case !errors.Is(err, &api.Error{Code: api.NotRunning}):
			return err
		case a.hooks.Doctor == nil && mends:
			return notBuilt("mending a folder")
		case a.hooks.Doctor == nil:
			return err
		}
		off, offErr := a.hooks.Doctor(ctx, o)
		if offErr != nil {
			return offErr
		}
		if shown := a.checked(off, backup); shown != nil || mends || backup != "" {
			return shown
		}
		return err // the folder is well, and yet no node runs
	})
}

// absolute is the path a flag names, empty if none.
func absolute(cmd *cobra.Command, flag string) (string, error) {
	s := str(cmd, flag)
	if s == "" {
		return "", nil
	}
	p, err := filepath.Abs(s)
	if err != nil {
		return "", usage(cmd, "--%s: %s", flag, err)
	}
	return p, nil
}

// checked prints findings. Where a backup was wanted it has been made, and that is
// what the exit code tells: it may be a nightly job's.
func (a *app) checked(cs []api.Check, backup string) error {
	err := a.checks(cs)
	if backup != "" && errors.As(err, new(exitError)) {
		return nil
	}
	return err
}

// checks prints findings, and ends with 1 if one is bad.
func (a *app) checks(cs []api.Check) error {
	bad := false
	for _, c := range cs {
		bad = bad || !c.OK
	}
	err := a.show(api.DoctorResult{Results: cs}.Graded(), func(w io.Writer) {
		width := 0
		for _, c := range cs {
			width = max(width, len(c.Check))
		}
		for _, c := range cs {
			mark := a.styled("32", "ok  ")
			switch c.Level {
			case "fail":
				mark = a.styled("31", "FAIL")
			case "warn":
				mark = a.styled("33", "warn")
			}
			fmt.Fprintf(w, "%s  %-*s  %s\n", mark, width, escape(c.Check), escape(c.Detail))
			if c.Fix != "" {
				fmt.Fprintf(w, "      %-*s  → %s\n", width, "", escape(c.Fix))
			}
		}
	})
	if err == nil && bad {
		return exitError{api.ExitFailure}
	}
	return err
}
