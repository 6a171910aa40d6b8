package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/diskstore"
)

// Finding is one thing Examine looked at. Fix says what to do when it is not OK.
type Finding struct {
	Check, Detail, Fix string
	OK                 bool
}

// BackupFolder saves keys, secret, membership and catalogue of a folder on
// which no node runs; see Node.Backup.
func BackupFolder(dir, path string) error {
	h, err := openHome(dir)
	if err != nil {
		return err
	}
	defer h.close()
	return h.backupMember(path)
}

// Examine looks at a folder on which no node runs. With acceptDisk it reads
// back the whole store of a node that stopped after a disk error, drops what
// does not pass its checksum (the others have it), and lets the node start
// again once all that has ended well. A store whose index is damaged it sets aside under another name.
func Examine(ctx context.Context, dir string, acceptDisk bool) ([]Finding, error) {
	h, err := openHome(dir)
	if err != nil {
		return nil, err
	}
	defer h.close()
	if err := h.whole(); err != nil {
		return []Finding{{Check: "folder", Detail: err.Error(), Fix: "see the message"}}, nil
	}
	switch err := h.member(); {
	case errors.Is(err, ErrPending):
		return []Finding{{Check: "folder", Detail: h.dir + ": " + ErrPending.Text, Fix: "run it again: atoll join INVITE"}}, nil
	case err != nil:
		return []Finding{{Check: "folder", Detail: h.dir + " holds no node", Fix: "make one with: atoll up, or: atoll join INVITE"}}, nil
	}
	who, err := h.intact()
	if err != nil {
		return []Finding{{Check: "identity", Detail: err.Error(), Fix: fixMixed}}, nil
	}
	if f, bad := h.membershipEnded(who); bad {
		return []Finding{f}, nil
	}
	leaf := who.chain.Leaf()
	var found []Finding
	if lost := h.lost(); len(lost) > 0 {
		found = append(found, Finding{
			Check: "folder", OK: true, Detail: missing("is", lost, h.dir) + ": the next start begins anew, so that " + worth(lost),
			Fix: fixMissing,
		})
	}
	if gone := h.rootless(); gone != "" {
		found = append(found, Finding{Check: "folder", Detail: gone, Fix: fixMissing})
	}
	found = append(found, Finding{Check: "identity", OK: true, Detail: fmt.Sprintf("%s %q of pool %q", leaf.Role, leaf.Name, who.pool.Name)})
	pool := who.pool.ID()
	st, err := diskstore.Open(h.path(storeDir), diskstore.Options{Pool: pool[:8], AcceptFailed: acceptDisk})
	if err != nil {
		return h.badStore(found, err, acceptDisk)
	}
	good, bad, err := readBack(ctx, st, acceptDisk)
	if err == nil && acceptDisk {
		err = st.Accept()
	}
	_ = st.Close() // what was written is synced
	if errors.Is(err, store.ErrCorrupt) {
		return h.badStore(found, fmt.Errorf("%w: %w", diskstore.ErrDamaged, err), acceptDisk)
	}
	if err != nil {
		return found, err
	}
	f := Finding{Check: "store", OK: bad == 0, Detail: fmt.Sprintf("%d records read back and found good, %d bad", good, bad)}
	switch {
	case bad > 0 && acceptDisk:
		f.OK = true
		f.Detail += " and dropped: copies are made again from the other members when the node runs"
	case bad > 0:
		f.Fix = "atoll doctor --accept-disk drops them; copies are made again when the node runs"
	}
	return append(found, f), nil
}

// membershipEnded says so if the member has left or, as far as this folder knows,
// was revoked.
func (h *home) membershipEnded(who *identity) (f Finding, ended bool) {
	r := roster.New(roster.Config{Self: who.node.GUID()}, who.pool)
	b, err := h.read(rosterFile)
	if err == nil && b != nil {
		_ = r.Restore(b) // what is not usable is asked for again when the node runs
	}
	if h.has(leftFile) {
		f = Finding{Check: "identity", Detail: ErrLeft.Text, Fix: "ask an admin for a new invite, then: atoll join INVITE"}
		if m, ok := r.Info(who.node.GUID()); ok && m.Status != roster.Left {
			f.Detail += "; it ended before it was sure that the others heard of it"
			f.Fix = "if the others still show it, an admin there revokes it: atoll revoke " + who.node.GUID().Short() +
				" (to come back, then, join with another folder); otherwise, to come back, " + f.Fix
		}
		return f, true
	}
	if err := r.CheckChain(who.chain); err != nil {
		return Finding{Check: "identity", Detail: "this node's " + err.Error(), Fix: "ask an admin for an invite, then in another folder: atoll join INVITE --dir"}, true
	}
	return f, false
}

// badStore words why a store does not open. One whose index is damaged is set
// aside with acceptDisk: the next start makes a new one.
func (h *home) badStore(found []Finding, err error, acceptDisk bool) ([]Finding, error) {
	f := Finding{Check: "store", Detail: err.Error(), Fix: "see the message"}
	switch {
	case errors.Is(err, diskstore.ErrNotAccepted):
		f.Fix = "check the disk (smartctl, dmesg); then: atoll doctor --accept-disk"
	case errors.Is(err, diskstore.ErrDamaged) && acceptDisk:
		aside := h.path(storeDir) + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
		err := os.Rename(h.path(storeDir), aside)
		if err == nil {
			err = syncDir(h.dir)
		}
		if err != nil {
			return found, err
		}
		f = Finding{
			Check: "store", OK: true,
			Detail: "its index was damaged: set aside as " + aside + "; the next start makes an empty one and fetches the copies from the other members",
			Fix:    "atoll up (with --limit, if it had one); delete the old folder once atoll status says that all is safe",
		}
	case errors.Is(err, diskstore.ErrDamaged):
		f.Fix = "check the disk (smartctl, dmesg); then: atoll doctor --accept-disk, which sets the store aside; the next start fetches the copies anew from the others"
	}
	return append(found, f), nil
}

// readBack reads every record of a store and counts those that pass; with drop
// it deletes those that do not.
func readBack(ctx context.Context, st store.Store, drop bool) (good, bad int, err error) {
	var last id.GUID
	for i := range last {
		last[i] = 0xff
	}
	for _, fam := range []store.Family{store.Head, store.Block, store.Claim, store.Tombstone, store.Signed, store.Holder, store.Meta} {
		var keys []store.Key
		err := st.Range(ctx, fam, id.GUID{}, last, func(k store.Key, _ []byte) bool {
			keys = append(keys, k)
			return ctx.Err() == nil
		})
		if err != nil {
			return good, bad, err
		}
		for _, k := range keys {
			switch _, err := st.Get(ctx, k); {
			case err == nil:
				good++
			case errors.Is(err, store.ErrCorrupt):
				bad++
				if !drop {
					continue
				}
				ops := []store.Op{{Key: k, Delete: true}}
				if fam == store.Block { // a block is held by its head: without it the copy is missed, and made again
					ops = append(ops, store.Op{Key: store.Key{Family: store.Head, GUID: k.GUID}, Delete: true})
				}
				if err := st.Apply(ctx, store.Batch{Urgent: true, Ops: ops}); err != nil {
					return good, bad, err
				}
			default:
				return good, bad, err
			}
		}
	}
	return good, bad, ctx.Err()
}
