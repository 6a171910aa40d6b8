package daemon

import (
	"context"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/cli"
	"atoll.example/atoll/internal/node"
)

// doctor checks and mends a folder on which no node runs.
func doctor(ctx context.Context, o cli.DoctorOptions) ([]api.Check, error) {
	if o.Restore != "" {
		if err := node.Restore(o.Dir, o.Restore); err != nil {
			return nil, startError(err)
		}
		return []api.Check{{Check: "restore", OK: true, Detail: "keys, membership and catalogue are in " + o.Dir + "; start the node: atoll up"}}, nil
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
