package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/ident"
)

// used reports whether a member's node has run in this folder, or was restored to
// it. A roster alone may be that of a join cut short.
func (h *home) used() bool {
	return h.has(memberFile) || h.has(storeDir) || !h.has(pendingFile) && (h.has(rosterFile) || h.has(listFile))
}

// whole refuses the folder of a member that lacks what makes it that member. New
// keys in their place would be another's, and a new pool is not the one its store
// is of.
func (h *home) whole() error {
	if !h.used() {
		return nil
	}
	gone := h.lacking(nodeKeyFile, ownerFile, memberFile)
	if len(gone) == 0 {
		return nil
	}
	return &Fault{FaultCode: "bad_dir", Text: missing("is", gone, h.dir) + ": " + fixMissing}
}

// sound refuses the folder of a member unless it is intact.
func (h *home) sound() error {
	if err := h.whole(); err != nil || !h.has(memberFile) {
		return err
	}
	if _, err := h.intact(); err != nil {
		return fmt.Errorf("%w: %w: %s", ErrMixed, err, fixMixed)
	}
	return nil
}

// fixMixed is for a key or certificate that is there and is not this member's, or no more.
const fixMixed = "put the right file back, or delete the wrong one and run \"atoll doctor --restore FILE\""

// intact is who the member of a folder is, if its keys and certificate are there and
// belong together.
func (h *home) intact() (*identity, error) {
	if err := h.whole(); err != nil {
		return nil, err
	}
	who, err := h.load()
	if err == nil {
		err = h.membership(who)
	}
	return who, err
}

// lost lists what a member's folder lacks and can go on without.
func (h *home) lost() []string {
	if !h.has(memberFile) {
		return nil
	}
	return h.lacking(secretFile, listFile)
}

// rootless says so of the folder of the member that founded its pool, if the root
// key is gone: all goes on without it, for a year. Who joined has the addresses of
// an invite.
func (h *home) rootless() string {
	if !h.has(memberFile) || h.has(rootKeyFile) || h.has(knownFile) {
		return ""
	}
	who, err := h.intact()
	if err != nil || who.chain.Leaf().Role != ident.Admin {
		return ""
	}
	return missing("is", []string{rootKeyFile}, h.dir) + ", the pool's root key: without it nobody can be made an admin, no admin can be revoked, " +
		"and no admin's certificate is renewed (this node's ends on " + time.UnixMilli(who.chain.NotAfter()).UTC().Format(time.DateOnly) + "): " +
		fixMissing + " (the node must not run)"
}

// Rootless says that the node founded its pool and the folder lacks the root key;
// empty: it does not.
func (n *Node) Rootless() string { return n.home.rootless() }

func (h *home) lacking(names ...string) (gone []string) {
	for _, name := range names {
		if !h.has(name) {
			gone = append(gone, name)
		}
	}
	return gone
}

// fixMissing is for a file that is not there.
const fixMissing = "put it back, or run \"atoll doctor --restore FILE\""

// beginAnew makes what lost lists, but the secret, which keys makes.
func (h *home) beginAnew(lost []string) error {
	if slices.Contains(lost, listFile) {
		return h.write(listFile, nil)
	}
	return nil
}

// BegunAnew says which of a member's files this start has not found and begun
// anew; empty: none.
func (n *Node) BegunAnew() string {
	if len(n.begun) == 0 {
		return ""
	}
	return missing("was", n.begun, n.home.dir) + " and begun anew, so that " + worth(n.begun) +
		": to have the old one back, stop the node, delete the new one, and run \"atoll doctor --restore FILE\""
}

// missing says so of files in dir; is is the verb.
func missing(is string, names []string, dir string) string {
	return strings.Join(names, " "+is+" missing, and ") + " " + is + " missing from " + dir
}

// worth says what is lost with files that a member can go on without.
func worth(names []string) string {
	var said []string
	if slices.Contains(names, secretFile) {
		said = append(said, "files put before take their space again if they are put again")
	}
	if slices.Contains(names, listFile) {
		said = append(said, "files put before are not listed (their links still read them)")
	}
	return strings.Join(said, ", and ")
}
