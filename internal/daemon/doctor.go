package daemon

import (
	"context"
	"fmt"
	"os"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/cli"
	"atoll.example/atoll/internal/node"
)

// doctor checks and mends a folder on which no node runs.
func doctor(ctx context.Context, o cli.DoctorOptions) ([]api.Check, error) {
	if o.Restore != "" {
		if _, err := os.Stat(o.Restore); err != nil {
			return nil, api.Errorf(api.BadRequest, "", "", "%w", err)
		}
		if err := node.Restore(o.Dir, o.Restore); err != nil {
			return nil, startError(err)
		}
		return []api.Check{{Check: "restore", OK: true, Detail: "keys, membership and catalogue are in " + o.Dir + "; start the node: atoll up"}}, nil
	}
	switch vacant, err := node.Vacant(o.Dir); {
	case err != nil:
		return nil, startError(err)
	case vacant && o.Backup != "":
		return nil, fmt.Errorf("%s: %w", o.Dir, node.ErrNotMade)
	case vacant: // a look leaves it so
		return []api.Check{{Check: "folder", Detail: o.Dir + " holds no node", Fix: "make one with: atoll up, or: atoll join INVITE; or name the node's folder with --dir"}}, nil
	}
	found, err := node.Examine(ctx, o.Dir, o.AcceptDisk)
	if err != nil {
		return nil, startError(err)
	}
	var checks []api.Check
	for _, f := range found {
		checks = append(checks, api.Check{Check: f.Check, OK: f.OK, Detail: f.Detail, Fix: f.Fix})
	}
	if o.Backup != "" {
		if err := node.BackupFolder(o.Dir, o.Backup); err != nil {
			return checks, startError(err)
		}
		checks = append(checks, api.Check{Check: "backup", OK: true, Detail: "keys, secret and catalogue saved in " + o.Backup + "; keep it where only you can read it"})
	}
	return checks, nil
}
