// Package apitest has a node for tests of what talks to nodes: it keeps files
// in memory, answers the rest from tables, and fails on cue.
package apitest

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/blake3"
)

// Epoch is the only time this node knows.
var Epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Self and the others are the nodes of the chapter's figures.
var (
	Self   = id.FromPrefix("65a1fc")
	Others = []id.GUID{id.FromPrefix("d13da3"), id.FromPrefix("d4213f"), id.FromPrefix("d462ba"), id.FromPrefix("d46a1c")}
)

// Node implements api.Node. Its fields are set before it is served, or by
// Change.
type Node struct {
	// Fail has the error each operation fails with ("put", "dht get" …).
	Fail map[string]error
	// FailAfter lets get, verify and put fail with Fail's error only after so
	// many bytes, when above 0.
	FailAfter int64
	// Hold, if not nil, makes put, get, verify, repair and leave wait, after
	// their first report, until it is closed or their context ends.
	Hold chan struct{}
	// Held receives a value whenever an operation begins to wait.
	Held chan string

	// Shared makes others keep what dht remove ends.
	Shared bool

	// Trace is where Events gets what it tells. One client may ask for it.
	Trace    chan api.TraceEvent
	Registry *prometheus.Registry
	// Now is what Status answers.
	Now api.Status
	// Members is what Peers answers.
	Members []api.Peer

	watched atomic.Int32 // clients of Events

	mu    sync.Mutex // guards all but Hold, Held, Trace, Registry and watched
	files map[string]*file
	raw   map[id.GUID][]byte
	seqs  map[id.GUID]uint64
	// calls lists the operations that reached the node, oldest first.
	calls []string
}

type file struct {
	api.File
	data  []byte
	guid  id.GUID
	clear bool
}

var _ api.Node = (*Node)(nil)

// New returns a healthy node in a pool of five.
func New() *Node {
	n := &Node{
		Fail: map[string]error{}, Held: make(chan string, 16), Trace: make(chan api.TraceEvent, 16), Registry: prometheus.NewRegistry(),
		files: map[string]*file{}, raw: map[id.GUID][]byte{}, seqs: map[id.GUID]uint64{},
	}
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "atoll_puts_total", Help: "Files put."})
	n.Registry.MustRegister(c)
	fill := int64(40 * 24 * 3600)
	n.Now = api.Status{
		Pool:    api.PoolStatus{ID: id.FromPrefix("feed"), Name: "lab", K: 3, W: 2, Overlay: "pastry"},
		Node:    api.NodeStatus{GUID: Self, Name: "alpha", Role: "admin", Addrs: []string{"127.0.0.1:4001"}, Domain: "rack-1", State: "ready"},
		Members: api.MemberCount{Total: 5, Live: 5},
		Safety:  api.Safety{Blocks: 1234, Full: 1234, Silent: []id.GUID{}, Learning: []id.GUID{}},
		Disk:    api.DiskStatus{Limit: 50 << 30, Used: 12 << 30, Reserve: 2 << 30, FullInS: &fill},
	}
	n.Members = []api.Peer{{GUID: Self, Name: "alpha", Domain: "rack-1", Role: "admin", State: "self", Addr: "127.0.0.1:4001", Used: 12 << 30, Limit: 50 << 30, Free: 36 << 30, Since: Epoch, Version: "1.0"}}
	for i, g := range Others {
		n.Members = append(n.Members, api.Peer{
			GUID: g, Name: string(rune('b'+i)) + "ravo", Domain: "rack-2", Role: "member", State: "live",
			RTTMs: new(0.5 + float64(i)), Addr: "127.0.0.1:400" + string(rune('2'+i)), Used: int64(i+1) << 33, Limit: 50 << 30, Free: 48<<30 - int64(i+1)<<33, Since: Epoch, Version: "1.0",
		})
	}
	return n
}

// Change lets f set fields while the node is served. It must not call methods.
func (n *Node) Change(f func(n *Node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

// failure is what op fails with, and after how many bytes.
func (n *Node) failure(op string) (after int64, failure error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.FailAfter, n.Fail[op]
}

// Calls lists the operations that reached the node.
func (n *Node) Calls() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.calls...)
}

func (n *Node) call(op string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, op)
	if n.FailAfter > 0 {
		return nil
	}
	return n.Fail[op]
}

// hold reports once and waits if asked to.
func (n *Node) hold(ctx context.Context, op string, report api.Report) error {
	report(api.Progress{Phase: op, Bytes: 1, Total: 2, Blocks: 1, Rate: 1, ETAS: 1})
	if n.Hold == nil {
		return nil
	}
	n.Held <- op
	select {
	case <-n.Hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Version implements api.Service.
func (n *Node) Version(context.Context) (api.Version, error) {
	return api.Version{Version: "1.0", Commit: "abc123", Go: "go1.26", Wire: api.WireRange{Min: 1, Max: 1}}, n.call("version")
}

// Status implements api.Service.
func (n *Node) Status(context.Context) (api.Status, error) {
	err := n.call("status")
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Now, err
}

// Peers implements api.Service.
func (n *Node) Peers(context.Context) (api.Peers, error) {
	return api.Peers{Peers: n.Members}, n.call("peers")
}

// Invite implements api.Service.
func (n *Node) Invite(_ context.Context, r api.InviteRequest) (api.InviteResult, error) {
	return api.InviteResult{Invite: "atoll-invite1:abcdefgh", Expires: Epoch.Add(time.Duration(r.TTLS) * time.Second)}, n.call("invite")
}

// Revoke implements api.Service.
func (n *Node) Revoke(_ context.Context, r api.RevokeRequest) (api.RevokeResult, error) {
	if r.DryRun {
		return api.RevokeResult{BelowW: 7}, n.call("revoke dry")
	}
	return api.RevokeResult{Entries: 1, BelowW: 7}, n.call("revoke")
}

// Leave implements api.Service.
func (n *Node) Leave(ctx context.Context, _ api.LeaveRequest, report api.Report) (api.LeaveResult, error) {
	if err := n.call("leave"); err != nil {
		return api.LeaveResult{}, err
	}
	return api.LeaveResult{Entries: 1, HandedOver: 99}, n.hold(ctx, "handing over", report)
}

// Put implements api.Service.
func (n *Node) Put(ctx context.Context, p api.PutParams, body io.Reader, report api.Report) (api.PutResult, error) {
	if err := n.call("put"); err != nil {
		return api.PutResult{}, err
	}
	if err := n.hold(ctx, "sending", report); err != nil {
		return api.PutResult{}, err
	}
	if p.Path != "" {
		f, err := os.Open(p.Path)
		if err != nil {
			return api.PutResult{}, api.Errorf(api.BadRequest, "put", p.Path, "%w", err)
		}
		defer func() { _ = f.Close() }() // opened for reading
		body = f
		if p.Name == "" {
			p.Name = filepath.Base(p.Path)
		}
	}
	if after, failure := n.failure("put"); after > 0 {
		if _, err := io.CopyN(io.Discard, body, after); err != nil {
			return api.PutResult{}, err
		}
		return api.PutResult{}, failure
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return api.PutResult{}, err
	}
	f := n.Add(p.Name, data, p.Clear)
	var older []id.GUID
	n.mu.Lock()
	for _, o := range n.files {
		if o.Name == f.Name && o != f {
			older = append(older, o.guid)
		}
	}
	n.mu.Unlock()
	return api.PutResult{
		Older: older,
		Link:  f.Link, VerifyLink: strings.Replace(f.Link, ":r1:", ":v1:", 1), GUID: f.guid, Size: f.Size,
		Blocks: 2, NewBlocks: 2, Copies: api.Copies{Min: 2, Target: 3}, MS: 12,
	}, nil
}

// Add stores a file.
func (n *Node) Add(name string, data []byte, clear bool) *file {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := blake3.Sum256(append([]byte(name+"\x00"), data...))
	kind := "r1"
	if clear {
		kind = "c1"
	}
	link := "atoll:" + kind + ":" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
	f := &file{File: api.File{Name: name, GUID: sum, Link: link, Size: int64(len(data)), PutAt: Epoch}, data: data, guid: sum, clear: clear}
	n.files[link] = f
	return f
}

// find returns the file of a link, or of a name if byName.
func (n *Node) find(op, link string, byName bool) (*file, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if byName {
		for _, f := range n.files {
			if f.Name == link {
				return f, nil
			}
		}
	}
	if !strings.HasPrefix(link, "atoll:") {
		if byName {
			return nil, api.Errorf(api.NotFound, op, "", "no file of that name in the catalogue")
		}
		return nil, api.Errorf(api.BadLink, op, "", "not a link: links begin with atoll:r1:, atoll:v1: or atoll:c1:")
	}
	f := n.files[link]
	if f == nil {
		return nil, api.Errorf(api.NotFound, op, "", "no such file")
	}
	return f, nil
}

// Get implements api.Service.
func (n *Node) Get(ctx context.Context, r api.GetRequest, begin func(api.GetHead) (io.Writer, error), report api.Report) (api.GetResult, error) {
	if err := n.call("get"); err != nil {
		return api.GetResult{}, err
	}
	f, err := n.find("get", r.Link, false)
	if err != nil {
		return api.GetResult{}, err
	}
	if err := n.hold(ctx, "fetching", report); err != nil {
		return api.GetResult{}, err
	}
	data := f.data[min(r.Offset, f.Size):]
	if r.Length > 0 {
		data = data[:min(r.Length, int64(len(data)))]
	}
	res := api.GetResult{Path: r.Out, Name: f.Name, Size: int64(len(data)), GUID: f.guid, Verified: true, MS: 3}
	if r.Out != "" {
		if _, err := os.Lstat(r.Out); err == nil && !r.Force {
			return api.GetResult{}, api.Errorf(api.Exists, "get", r.Out, "the file exists; replace it with --force")
		}
		return res, os.WriteFile(r.Out, data, 0o600)
	}
	w, err := begin(api.GetHead{Name: f.Name, Size: f.Size, GUID: f.guid})
	if err != nil {
		return api.GetResult{}, err
	}
	if after, failure := n.failure("get"); after > 0 {
		if _, err := w.Write(data[:after]); err != nil {
			return api.GetResult{}, err
		}
		return api.GetResult{}, failure
	}
	_, err = io.Copy(w, bytes.NewReader(data))
	return res, err
}

// Stat implements api.Service.
func (n *Node) Stat(_ context.Context, r api.LinkRequest) (api.StatResult, error) {
	if err := n.call("stat"); err != nil {
		return api.StatResult{}, err
	}
	tail, verify := strings.CutPrefix(r.Link, "atoll:v1:")
	if verify {
		r.Link = "atoll:r1:" + tail
	}
	f, err := n.find("stat", r.Link, false)
	if err != nil {
		return api.StatResult{}, err
	}
	if verify {
		return api.StatResult{GUID: f.guid, Blocks: 2, Depth: 1, Capability: "verify", Copies: api.Copies{Min: 3, Max: 3, Target: 3}}, nil
	}
	changed := Epoch
	capability := "read"
	if f.clear {
		capability = "clear"
	}
	return api.StatResult{
		Name: f.Name, GUID: f.guid, Size: &f.Size, Mtime: &changed, Blocks: 2, Depth: 1, Chunk: "fixed", Capability: capability,
		Copies: api.Copies{Min: 2, Max: 3, Target: 3},
	}, nil
}

// Rm implements api.Service.
func (n *Node) Rm(_ context.Context, r api.LinkRequest) (api.RmResult, error) {
	if err := n.call("rm"); err != nil {
		return api.RmResult{}, err
	}
	f, err := n.find("rm", r.Link, true)
	if err != nil {
		return api.RmResult{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.files, f.Link)
	return api.RmResult{Removed: 2, KeptByOthers: 1}, nil
}

// Ls implements api.Service.
func (n *Node) Ls(_ context.Context, prefix string) (api.LsResult, error) {
	if err := n.call("ls"); err != nil {
		return api.LsResult{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var res api.LsResult
	for _, f := range n.files {
		if strings.HasPrefix(f.Name, prefix) {
			res.Files = append(res.Files, f.File)
		}
	}
	sort.Slice(res.Files, func(i, j int) bool { return res.Files[i].Name < res.Files[j].Name })
	return res, nil
}

// Verify implements api.Service: a file whose name has "corrupt" in it is.
func (n *Node) Verify(ctx context.Context, r api.VerifyRequest, report api.Report) (api.VerifyResult, error) {
	return n.check(ctx, "verify", r, report)
}

// Repair implements api.Service: nothing corrupt can be repaired.
func (n *Node) Repair(ctx context.Context, r api.VerifyRequest, report api.Report) (api.VerifyResult, error) {
	return n.check(ctx, "repair", r, report)
}

func (n *Node) check(ctx context.Context, op string, r api.VerifyRequest, report api.Report) (api.VerifyResult, error) {
	if err := n.call(op); err != nil {
		return api.VerifyResult{}, err
	}
	res := api.VerifyResult{Blocks: 4, OK: 4, Unrepairable: []id.GUID{}, Bad: []api.BadCopies{}}
	if !r.All {
		f, err := n.find(op, r.Link, false)
		if err != nil {
			return api.VerifyResult{}, err
		}
		if strings.Contains(f.Name, "corrupt") {
			res.OK, res.Corrupt = 3, 1
			res.Bad = []api.BadCopies{{GUID: id.FromPrefix("11a5"), Name: "attic", Copies: 1}}
			if op == "repair" {
				res.Unrepairable = []id.GUID{f.guid}
			}
		}
		if strings.Contains(f.Name, "missing") {
			res.OK, res.Missing = 3, 1
			if op == "repair" {
				res.OK, res.Missing, res.Repaired = 4, 0, 1
			}
		}
	} else if ls, err := n.Ls(ctx, ""); n.Hold == nil && (err != nil || len(ls.Files) == 0) {
		return api.VerifyResult{Unrepairable: []id.GUID{}, Bad: []api.BadCopies{}}, err
	}
	return res, n.hold(ctx, "checking", report)
}

// DHTPut implements api.Service.
func (n *Node) DHTPut(_ context.Context, r api.DHTPutRequest) (api.DHTPutResult, error) {
	if err := n.call("dht put"); err != nil {
		return api.DHTPutResult{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	res := api.DHTPutResult{Receipts: receipts}
	if r.Signed == nil {
		res.GUID = blake3.Sum256(r.Raw)
		n.raw[res.GUID] = r.Raw
		return res, nil
	}
	if r.Signed.Key != "" {
		if _, err := os.Stat(r.Signed.Key); err != nil {
			return api.DHTPutResult{}, api.Errorf(api.BadRequest, "dht put", r.Signed.Key, "%w", err)
		}
	}
	res.GUID = blake3.Sum256(append([]byte("signed"), r.Signed.Salt...))
	stored := n.seqs[res.GUID]
	if r.Signed.CAS != nil && *r.Signed.CAS != stored {
		return api.DHTPutResult{}, api.Errorf(api.CAS, "dht put", res.GUID.String(), "the stored value has number %d", stored)
	}
	seq := r.Signed.Seq
	if seq == 0 {
		seq = stored + 1
	}
	if seq <= stored {
		return api.DHTPutResult{}, api.Errorf(api.StaleSeq, "dht put", res.GUID.String(), "the stored value has number %d", stored)
	}
	n.seqs[res.GUID], n.raw[res.GUID], res.Seq = seq, r.Signed.Value, seq
	return res, nil
}

var receipts = []api.Receipt{{Node: Self, Role: "replica"}, {Node: Others[0], Role: "stand-in"}}

// DHTGet implements api.Service.
func (n *Node) DHTGet(_ context.Context, r api.DHTGetRequest) (api.DHTGetResult, error) {
	if err := n.call("dht get"); err != nil {
		return api.DHTGetResult{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.raw[r.GUID]
	if !ok {
		return api.DHTGetResult{}, api.Errorf(api.NotFound, "dht get", r.GUID.String(), "no such block")
	}
	if seq, ok := n.seqs[r.GUID]; ok {
		return api.DHTGetResult{Value: v, Seq: &seq}, nil
	}
	return api.DHTGetResult{Value: v}, nil
}

// DHTRemove implements api.Service.
func (n *Node) DHTRemove(_ context.Context, r api.DHTRemoveRequest) (api.DHTRemoveResult, error) {
	if err := n.call("dht remove"); err != nil {
		return api.DHTRemoveResult{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.raw[r.GUID]; !ok {
		return api.DHTRemoveResult{}, api.Errorf(api.NotFound, "dht remove", r.GUID.String(), "no such block")
	}
	delete(n.raw, r.GUID)
	return api.DHTRemoveResult{Receipts: receipts, KeptByOthers: n.Shared}, nil
}

// Lookup implements api.Service.
func (n *Node) Lookup(_ context.Context, r api.KeyRequest) (api.LookupResult, error) {
	res := api.LookupResult{Key: r.Key, Root: Others[3]}
	for i := range 3 {
		p := n.Members[4-i]
		res.Replicas = append(res.Replicas, api.Replica{GUID: p.GUID, Name: p.Name, Domain: p.Domain, Addr: p.Addr, RTTMs: p.RTTMs})
	}
	return res, n.call("lookup")
}

// Route implements api.Service: the way of Figure 10.8.
func (n *Node) Route(_ context.Context, r api.KeyRequest) (api.RouteResult, error) {
	res := api.RouteResult{Key: r.Key}
	rules := []string{"table", "table", "table", "leaf set", "root"}
	for i, g := range append([]id.GUID{Self}, Others...) {
		res.Hops = append(res.Hops, api.Hop{
			GUID: g, Addr: n.Members[i].Addr, Rule: rules[i], Prefix: id.CommonDigits(g, r.Key), RTTMs: n.Members[i].RTTMs,
		})
	}
	return res, n.call("route")
}

// Table implements api.Service: the node of Figure 10.7, with every cell of
// row 0 filled and every second one of the others.
func (n *Node) Table(context.Context) (api.Table, error) {
	t := api.Table{GUID: Self, Leaf: api.LeafSet{Left: []api.Cell{{GUID: Others[3], RTTMs: new(3.5)}}, Right: []api.Cell{{GUID: Others[0], RTTMs: new(0.5)}}}}
	for row := range 6 {
		cells := make([]*api.Cell, 16)
		for d := range 16 {
			switch {
			case Self.Digit(row) == d:
				cells[d] = &api.Cell{GUID: Self, Self: true}
			case row == 0 || d%2 == 0:
				cells[d] = &api.Cell{GUID: Self.WithDigit(row, d), RTTMs: new(1.0)}
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	return t, n.call("table")
}

// Doctor implements api.Service.
func (n *Node) Doctor(_ context.Context, r api.DoctorRequest) (api.DoctorResult, error) {
	if err := n.call("doctor"); err != nil {
		return api.DoctorResult{}, err
	}
	res := api.DoctorResult{Results: []api.Check{{Check: "disk", OK: true, Detail: "38.0 GiB free"}, {Check: "clock", OK: true, Detail: "agrees with 4 members"}}}
	if _, err := n.failure("admins"); err != nil {
		res.Results[1] = api.Check{Check: "admins", OK: true, Detail: err.Error(), Fix: "invite another"}
	}
	if _, err := n.failure("check"); err != nil {
		res.Results[1] = api.Check{Check: "clock", Detail: err.Error(), Fix: "set the clock"}
	}
	if r.Backup != "" {
		if err := os.WriteFile(r.Backup, []byte("backup"), 0o600); err != nil {
			return api.DoctorResult{}, err
		}
		res.Results = append(res.Results, api.Check{Check: "backup", OK: true, Detail: "saved"})
	}
	return res.Graded(), nil
}

// Events implements api.Service.
func (n *Node) Events(ctx context.Context, emit func(api.TraceEvent) error) error {
	if err := n.call("events"); err != nil {
		return err
	}
	n.watched.Add(1)
	defer n.watched.Add(-1)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-n.Trace:
			if err := emit(ev); err != nil {
				return err
			}
		}
	}
}

// Watched reports whether Events is being answered.
func (n *Node) Watched() bool { return n.watched.Load() > 0 }

// Metrics implements api.Node.
func (n *Node) Metrics() prometheus.Gatherer { return n.Registry }

// Serve serves n on dir's socket and returns a function that ends it.
func Serve(n api.Node, dir string) (stop func() error, err error) {
	l, err := api.Listen(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(n).Serve(ctx, l) }()
	return func() error {
		cancel()
		return errors.Join(<-done, l.Close())
	}, nil
}
