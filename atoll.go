// Package atoll embeds a member of a pool in another Go program: what "atoll
// up" and "atoll join" run, without a command line and without a control
// socket. A pool is a group of machines that store each other's files and
// blocks, several copies of each, and find them from any member.
//
//	first, err := atoll.Create(ctx, atoll.Options{Dir: "/srv/a"}, atoll.Pool{Name: "team"})
//	invite, err := first.Invite(ctx, atoll.InviteOptions{})
//	// on another machine
//	second, err := atoll.Join(ctx, atoll.Options{Dir: "/srv/b"}, invite)
//	link, err := second.PutFile(ctx, "report.pdf", atoll.PutOptions{})
//	// and anywhere
//	_, err = first.Get(ctx, link, os.Stdout)
//
// Files are sealed where they are put: the link is all that reads them. Blocks
// are the distributed hash table below (put, get and remove of Figure 10.4 of
// Coulouris et al., Distributed Systems, 5th edition), and stored as they are.
//
// A Node may be used by several goroutines. Every method ends when its context
// does. Code gives the stable code of an error.
package atoll

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/files"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/seal"
	"atoll.example/atoll/internal/service"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/transport/p2p"
)

// Options are what a node is started with. All but Dir may be left out.
type Options struct {
	// Dir is the node's folder, which belongs to one process at a time: keys,
	// store, list of files. It is made if it does not exist.
	Dir string
	// Name is shown to people; default: the host's. Domain is the failure
	// domain: copies of a block avoid sharing one; default: the host. Both
	// are fixed when the folder becomes that of a member.
	Name, Domain string
	// Listen are addresses such as "0.0.0.0:4001"; default: all interfaces, on
	// a free port that is kept. Announce are addresses to tell others first,
	// such as that of a forwarded port.
	Listen, Announce []string
	// Loopback keeps the node on this machine.
	Loopback bool
	// Limit is the disk space to give to the pool, in bytes, at least 256 MiB;
	// default: 80 % of what is free at the first start.
	Limit int64
	// Log gets what an operator may want to see; default: nothing.
	Log *slog.Logger
}

// Pool describes a new pool.
type Pool struct {
	Name string
	K    int // copies of each block, 1 to 8; 0: 3
}

// Node is a running member of a pool.
type Node struct {
	n *node.Node
	s *service.Service
}

// Create makes a pool with this node as its first member and admin, and starts
// it. The folder must not be a member's already.
func Create(ctx context.Context, o Options, p Pool) (*Node, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if p.K == 0 {
		p.K = 3
	}
	if p.K < 1 || p.K > ident.MaxK {
		return nil, api.Errorf(api.BadRequest, "", "", "K is %d: from 1 to %d copies are possible", p.K, ident.MaxK)
	}
	n, err := node.Create(ctx, o.config(), node.PoolParams{Name: p.Name, K: p.K, Overlay: ident.Pastry})
	return run(ctx, n, err)
}

// Join becomes a member by an invite and starts. An invite that this folder has
// used already is accepted again.
func Join(ctx context.Context, o Options, invite string) (*Node, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n, err := node.Join(ctx, o.config(), invite)
	return run(ctx, n, err)
}

// Open starts the member that the folder holds. It returns when the node has
// found the others, or has found that there are none at present; so do Create
// and Join.
func Open(ctx context.Context, o Options) (*Node, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n, err := node.Open(ctx, o.config())
	return run(ctx, n, err)
}

func (o Options) config() node.Config {
	return node.Config{
		Dir: o.Dir, Name: o.Name, Domain: o.Domain, Listen: o.Listen, Announce: o.Announce,
		Loopback: o.Loopback, Limit: o.Limit, Log: o.Log,
		Version: service.Release,
	}
}

// check returns the first fault, before anything is made.
func (o Options) check() error {
	c := o.config()
	if err := c.Validate(); err != nil {
		return api.Errorf(api.BadRequest, "", "", "%w", err)
	}
	if o.Limit != 0 && o.Limit < store.MinLimit {
		return api.Errorf(api.BadRequest, "", "", "Limit is %d bytes: at least %d MiB are needed", o.Limit, store.MinLimit>>20)
	}
	return nil
}

func run(ctx context.Context, n *node.Node, err error) (*Node, error) {
	if err != nil {
		return nil, err
	}
	if err := n.Ready(ctx); err != nil {
		n.Close()
		return nil, err
	}
	s, err := service.Open(n, nil)
	if err != nil {
		n.Close()
		return nil, err
	}
	return &Node{n, s}, nil
}

// Close stops the node, within seconds: operations under way end, and the other
// members are told. What was acknowledged is on disk, here and at others; the node
// stays a member, and Open starts it again.
func (n *Node) Close() error {
	err := n.s.Close()
	n.n.Stop()
	return err
}

// Failed is closed when the node cannot go on, as after a disk error; Err says
// why. The node is still to be closed.
func (n *Node) Failed() <-chan struct{} { return n.n.Failed() }

// Err is why the node cannot go on, nil if it can.
func (n *Node) Err() error { return n.n.Failure() }

// GUID is the name of a node or a block, a place on the pool's ring.
type GUID [32]byte

// ParseGUID reads 64 hexadecimal digits.
func ParseGUID(s string) (GUID, error) {
	g, err := id.Parse(s)
	if err != nil {
		return GUID{}, api.Errorf(api.BadRequest, "", "", "%w", err)
	}
	return GUID(g), nil
}

func (g GUID) String() string { return id.GUID(g).String() }

// Link leads to a file. A link is a secret: who has it can read the file. It
// prints as what it is for; Text is the link itself.
type Link struct{ l seal.Link }

// ParseLink reads the text of a link.
func ParseLink(text string) (Link, error) {
	l, err := seal.ParseLink(text)
	return Link{l}, err
}

// Text is the link as it is given to others: "atoll:r1:…".
func (l Link) Text() string { return l.l.Text() }

// ForVerify is the link that can check and repair the file, and not read it.
func (l Link) ForVerify() Link { return Link{l.l.ForVerify()} }

func (l Link) String() string { return l.l.String() }

// PutOptions say how a file is put. All may be left out.
type PutOptions struct {
	Name   string // kept in the file; default: the last element of its path
	Unique bool   // share no block with other files
	Clear  bool   // not sealed: every member can read it
	K, W   int    // copies, and synced copies to wait for; 0: the pool's
}

func (o PutOptions) params() api.PutParams {
	return api.PutParams{Name: o.Name, Size: -1, Unique: o.Unique, Clear: o.Clear, K: o.K, W: o.W}
}

func silent(api.Progress) {}

// Put stores what r yields, to its end. It returns when a write quorum of
// members has synced every block; the other copies follow.
func (n *Node) Put(ctx context.Context, r io.Reader, o PutOptions) (Link, error) {
	return n.put(ctx, o.params(), r)
}

// PutFile stores a file as Put does. Cut short, it goes on from there when it is
// called again.
func (n *Node) PutFile(ctx context.Context, path string, o PutOptions) (Link, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Link{}, err
	}
	p := o.params()
	p.Path = path
	return n.put(ctx, p, nil)
}

func (n *Node) put(ctx context.Context, p api.PutParams, r io.Reader) (Link, error) {
	done, err := n.s.Put(ctx, p, r, silent)
	if err != nil {
		return Link{}, err
	}
	return ParseLink(done.Link)
}

// File is what Get fetched.
type File struct {
	Name string
	Size int64
}

// Get writes a file to w, in order, each block once it is verified: after an
// error w has a true beginning of the file.
func (n *Node) Get(ctx context.Context, l Link, w io.Writer) (File, error) {
	got, err := n.s.Get(ctx, api.GetRequest{Link: l.Text()}, func(api.GetHead) (io.Writer, error) { return w, nil }, silent)
	return File{got.Name, got.Size}, err
}

// Remove removes a file that this member has put. Blocks that other files or
// owners keep stay.
func (n *Node) Remove(ctx context.Context, l Link) error {
	_, err := n.s.Rm(ctx, api.LinkRequest{Link: l.Text()})
	return err
}

// PutBlock stores up to 1 MiB as a content block, which nobody can change, and
// returns its GUID, the hash of what is stored.
func (n *Node) PutBlock(ctx context.Context, value []byte) (GUID, error) {
	done, err := n.s.DHTPut(ctx, api.DHTPutRequest{Raw: value})
	return GUID(done.GUID), err
}

// GetBlock fetches the value of a content block, or the newest of a signed one.
func (n *Node) GetBlock(ctx context.Context, g GUID) ([]byte, error) {
	got, err := n.s.DHTGet(ctx, api.DHTGetRequest{GUID: id.GUID(g)})
	return got.Value, err
}

// RemoveBlock takes back this member's own reason to keep a content block: it
// goes when nobody else has one.
func (n *Node) RemoveBlock(ctx context.Context, g GUID) error {
	_, err := n.s.DHTRemove(ctx, api.DHTRemoveRequest{GUID: id.GUID(g)})
	return err
}

// Signed is a value of a signed block: named by this member's key and Salt, it
// can be replaced by a value with a higher Seq.
type Signed struct {
	Salt  []byte // at most 64 bytes
	Seq   uint64 // from 1; 0 in PutSigned: the next
	Value []byte // at most 64 KiB
}

// PutSigned stores the next value of a signed block of this member, and returns
// the block's GUID and the value's number. With cas not nil it does so only if
// the value that is there has this number (0: there is none), so that two
// programs cannot overwrite each other unseen.
func (n *Node) PutSigned(ctx context.Context, v Signed, cas *uint64) (GUID, uint64, error) {
	sv := api.SignedValue{Salt: v.Salt, Seq: v.Seq, Value: v.Value, CAS: cas}
	if err := api.Wrong(sv); err != nil {
		return GUID{}, 0, err
	}
	done, err := n.s.DHTPut(ctx, api.DHTPutRequest{Signed: &sv})
	return GUID(done.GUID), done.Seq, err
}

// GetSigned fetches the newest value of a signed block that a read quorum knows
// of. Its Salt is not filled in.
func (n *Node) GetSigned(ctx context.Context, g GUID) (Signed, error) {
	got, err := n.s.DHTGet(ctx, api.DHTGetRequest{GUID: id.GUID(g)})
	if err != nil {
		return Signed{}, err
	}
	if got.Seq == nil {
		return Signed{}, api.Errorf(api.BadRequest, "get", g.String(), "a content block, not a signed one")
	}
	return Signed{Seq: *got.Seq, Value: got.Value}, nil
}

// RemoveSigned ends a signed block of this member.
func (n *Node) RemoveSigned(ctx context.Context, g GUID, salt []byte) error {
	r := api.DHTRemoveRequest{GUID: id.GUID(g), Sign: &api.SignedValue{Salt: salt}}
	if err := api.Wrong(r); err != nil {
		return err
	}
	_, err := n.s.DHTRemove(ctx, r)
	return err
}

// Status is how node and pool are.
type Status struct {
	Node        GUID
	State       string // joining, ready, leaving or left
	Pool        string // its name
	K, W        int    // copies of each block, and those a write waits for
	Members     int
	Live        int   // members that answered
	Blocks      int64 // counted by those
	Degraded    int64 // of them, with fewer than K copies
	BelowW      int64 // of them, with fewer than W
	Lost        int64 // of them, with none on a member that answered
	Used, Limit int64 // bytes of this node's store
	Warnings    []string
}

// Status asks all members that can be reached.
func (n *Node) Status(ctx context.Context) (Status, error) {
	st, err := n.s.Status(ctx)
	if err != nil {
		return Status{}, err
	}
	return Status{
		Node: GUID(st.Node.GUID), State: st.Node.State, Pool: st.Pool.Name, K: st.Pool.K, W: st.Pool.W,
		Members: st.Members.Total, Live: st.Members.Live,
		Blocks: st.Safety.Blocks, Degraded: st.Safety.Degraded, BelowW: st.Safety.BelowW, Lost: st.Safety.Lost,
		Used: st.Disk.Used, Limit: st.Disk.Limit, Warnings: st.Warnings,
	}, nil
}

// InviteOptions say what an invite grants.
type InviteOptions struct {
	Uses  int           // nodes that may join by it, at most 1000; 0: one
	TTL   time.Duration // how long it is good, in whole seconds, rounded up, at most 400 days; 0: a day
	Admin bool          // who joins may invite and revoke
}

// Invite makes an invite, with which another node joins. Only admins can. It is
// a secret, and this node must be reachable when it is used.
func (n *Node) Invite(ctx context.Context, o InviteOptions) (string, error) {
	r := api.InviteRequest{Uses: o.Uses, TTLS: int64(math.Ceil(o.TTL.Seconds()))}
	if o.Admin {
		r.Role = ident.Admin.String()
	}
	if err := api.Wrong(r); err != nil {
		return "", err
	}
	made, err := n.s.Invite(ctx, r)
	return made.Invite, err
}

// Code is the stable code of an error of this package, such as "not_found",
// "removed", "no_quorum", "full", "corrupt", "bad_link", "invite_used",
// "dir_in_use", "not_running" after Close; "internal" for others, "" for nil. docs/guide/trouble.md lists
// them.
func Code(err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, p2p.ErrInUse) {
		return api.PortInUse
	}
	if c := ident.Code(err); c != api.Internal {
		return c
	}
	if c := files.Code(err); c != "" {
		return c
	}
	return api.AsError("", err).Code
}
