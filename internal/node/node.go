// Package node hosts a member of a pool in real time: it performs the effects of
// the pure machine in package stack with sockets (transport/p2p) and disks
// (store/diskstore), keeps the member's keys and certificates, and answers those
// who want to join.
//
//	transport ──frames──▶ link ──messages──▶ loop ◀──completions── disk
//	    ▲                                     │ ▲                   ▲
//	    └────────────── sends ────────────────┘ └─ commands ─ callers (blocks.go)
//
// One goroutine, the loop, owns the machine. Nothing else touches its state but
// through loop.do.
package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/diskstore"
	"atoll.example/atoll/internal/trace"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/p2p"
	"atoll.example/atoll/internal/wire"
)

// Node is a running member.
type Node struct {
	cfg   Config
	home  *home
	who   *identity
	self  *id.Handle
	link  *link
	tr    *p2p.Transport
	st    *diskstore.Store
	stack *stack.Node
	loop  *loop
	disk  *disk

	issuerMu sync.Mutex
	issuer   *ident.Issuer // nil unless an admin
	unkept   bool          // its state differs from that on disk

	saver   *saver
	tasks   sync.WaitGroup // goroutines that end with the loop
	seeds   []*id.Handle   // of a fresh join
	creator bool           // this start founded the pool
	begun   []string       // files a member should have, and this start has begun anew
	search  *ident.Invite  // whose addresses a member asks again; nil: none

	doubts    chan *id.Handle // members that refused a link: see standing.go
	observers observers
	decay     decay
	ready     chan struct{} // closed when the overlay has joined
	readyOnce sync.Once
	left      chan struct{} // closed when the overlay has been left
	leftOnce  sync.Once
	failed    chan struct{} // closed when the node must stop by itself
	failOnce  sync.Once
	failure   atomic.Pointer[error]
	closeOnce sync.Once
	sendDrops atomic.Int64
}

// Create makes a pool with this node as its first member and admin, and starts
// it. The folder must not hold a member yet.
func Create(ctx context.Context, cfg Config, p PoolParams) (*Node, error) {
	vacant := func(h *home) error {
		switch {
		case h.has(memberFile):
			return fmt.Errorf("%s: %w; start it with atoll up, or choose another folder with --dir", h.dir, ErrMember)
		case h.has(pendingFile):
			return h.pending()
		}
		return nil
	}
	return begin(ctx, cfg, vacant, func(n *Node) error {
		n.creator = true
		return n.home.found(n.who, p, n.cfg.Name, n.cfg.Domain, n.cfg.Wall())
	})
}

// Open starts the member that the folder holds. Errors are ErrNotMade if it holds
// none, ErrPending if a join has begun there and not succeeded, ErrLeft if the
// member has left.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	return begin(ctx, cfg, (*home).current, func(n *Node) error { return n.home.membership(n.who) })
}

// Join joins a pool by an invite and starts. In the folder of a member of that pool
// it is Open, and looks for the others at the invite's addresses too; of one who has
// left it, it joins anew. A join that fails leaves keys and a note of it: the answer
// may have been lost and the invite burnt, which then admits these keys alone.
// Joining again, by this invite or another, goes on with them.
func Join(ctx context.Context, cfg Config, invite string) (*Node, error) {
	v, err := ident.ParseInvite(invite)
	if err != nil {
		return nil, err
	}
	note := func(h *home) error {
		if h.has(memberFile) {
			return nil
		}
		return h.write(pendingFile, fmt.Appendf(nil, "%x\n", v.Pool))
	}
	return begin(ctx, cfg, note, func(n *Node) error {
		if n.home.has(memberFile) {
			if err := n.home.membership(n.who); err != nil {
				return err
			}
			if n.who.pool.ID() != v.Pool {
				return fmt.Errorf("%s: %w, and of another one than the invite is for; choose another folder with --dir", n.home.dir, ErrMember)
			}
			if n.home.has(leftFile) {
				return n.join(ctx, v)
			}
			n.search = v
			return nil
		}
		return n.join(ctx, v)
	})
}

// begin opens the folder and the network, has membership settled, and starts
// the machine. Before keys are made enter may refuse the folder. On error
// everything is closed again.
func begin(ctx context.Context, cfg Config, enter func(*home) error, settle func(*Node) error) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg.fill(), doubts: make(chan *id.Handle, 1),
		ready: make(chan struct{}), left: make(chan struct{}), failed: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.home, err = openHome(cfg.Dir); err != nil {
		return nil, err
	}
	if err = n.home.sound(); err != nil {
		return nil, err
	}
	if err = enter(n.home); err != nil {
		return nil, err
	}
	if n.begun = n.home.lost(); len(n.begun) > 0 {
		n.cfg.Log.Warn(n.BegunAnew())
		if err = n.home.beginAnew(n.begun); err != nil {
			return nil, err
		}
	}
	if gone := n.home.rootless(); gone != "" {
		n.cfg.Log.Warn(gone)
	}
	if n.who, err = n.home.keys(); err != nil {
		return nil, err
	}
	if err = n.noTwin(ctx); err != nil {
		return nil, err
	}
	n.saver = newSaver(n.home, n.cfg.Log)
	n.link = &link{wall: n.cfg.Wall, deliver: n.deliver, answer: n.answer, met: n.met, barred: n.barred}
	if err = n.listen(); err != nil {
		return nil, err
	}
	if err = settle(n); err != nil {
		return nil, err
	}
	if err = n.openStore(); err != nil {
		return nil, err
	}
	if err = n.openMachine(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) transportConfig() (p2p.Config, error) {
	seed := n.who.node.Seed()
	known, err := n.home.read(knownFile)
	if err != nil {
		return p2p.Config{}, err
	}
	return p2p.Config{
		Key:    ed25519.NewKeyFromSeed(seed[:]),
		Listen: n.cfg.Listen, Announce: n.cfg.Announce, Loopback: n.cfg.Loopback,
		NoQUIC: n.cfg.NoQUIC, NoRelay: n.cfg.NoRelay, NoHolePunch: n.cfg.NoHolePunch,
		Known: parseKnown(known), Log: n.cfg.Log, OnAddrs: n.moved,
		UserAgent: agent(n.cfg.Version),
	}, nil
}

// agentName begins what a node tells of its program; the version follows.
const agentName = "atoll"

func agent(version string) string {
	if version == "" {
		return agentName
	}
	return agentName + "/" + version
}

func (n *Node) openStore() error {
	pool := n.who.pool.ID()
	var err error
	n.st, err = diskstore.Open(n.home.path(storeDir), diskstore.Options{Limit: n.cfg.Limit, Pool: pool[:8]})
	if errors.Is(err, diskstore.ErrNotAccepted) {
		return fmt.Errorf("%w: %w; check the disk, then run: atoll doctor --accept-disk", ErrFailed, err)
	}
	if errors.Is(err, diskstore.ErrDamaged) {
		return fmt.Errorf("%w: %w; check the disk, then run: atoll doctor --accept-disk, which sets the store aside; the next start fetches the copies anew from the others", ErrDamaged, err)
	}
	return err
}

// openMachine makes the stack from what the folder and the store remember, and
// sets it going.
func (n *Node) openMachine() error {
	epoch, err := n.home.nextEpoch(0)
	if err != nil {
		return err
	}
	n.self = &id.Handle{GUID: n.who.node.GUID(), Key: n.who.node.Public(), Epoch: epoch, Addrs: n.tr.Addrs()}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	members, err := n.openRoster(binary.BigEndian.Uint64(seed[:]))
	if err != nil {
		return err
	}
	ring, dhtConfig := n.cfg.machines()
	ring.Pool, ring.GUIDOf = n.who.pool.ID(), ident.GUIDOf
	dhtConfig.Pool, dhtConfig.K = n.who.pool.ID(), n.who.pool.K
	dhtConfig.Sign, dhtConfig.Verify, dhtConfig.Usage = n.who.node.Sign, ident.Verify, n.st.Usage
	n.stack, err = stack.New(stack.Config{
		Self: n.self, Seed: binary.BigEndian.Uint64(seed[:]), Roster: members, Overlay: ring, DHT: dhtConfig,
		ReadyEntry: func(seq uint32) []byte {
			return roster.ReadyEntry(n.who.pool.ID(), n.who.node, n.stack.Ring().Self(), seq)
		},
	})
	if err != nil {
		return err
	}
	if err := n.restore(); err != nil {
		return err
	}
	if err := n.openIssuer(); err != nil {
		return err
	}
	table, err := n.home.read(tableFile)
	if err != nil {
		return err
	}
	n.loop = newLoop(n.stack, n.self.GUID, n, n.cfg.Wall)
	n.disk = newDisk(n.st, n.loop.complete)
	n.loop.start()
	n.link.open(n.who, n.self)
	n.moved() // while all this was made
	if n.cfg.MDNS {
		n.tr.Discover(n.who.pool.ID(), n.isMember)
	}
	n.tasks.Go(n.watchStore)
	n.tasks.Go(n.renewing)
	n.tasks.Go(n.asking)
	seeds, only := n.seeds, n.creator
	if seeds == nil && !only {
		seeds, only = others(members, n.GUID())
	}
	lost := only && !n.home.has(rosterFile) && n.home.has(knownFile)
	if lost || n.search != nil {
		n.tasks.Go(n.seek)
	}
	only = only && !lost // who has joined by an invite is not the pool, whatever it has forgotten
	return n.loop.do(func(now machine.Time, wall int64, out []machine.Effect) []machine.Effect {
		return n.stack.Start(now, wall, seeds, table, only, out)
	})
}

// openRoster loads the roster; the own certificate is always in it.
func (n *Node) openRoster(seed uint64) (*roster.Roster, error) {
	r := roster.New(roster.Config{
		Self: n.self.GUID, Seed: seed,
		Peers: func() []*id.Handle { return n.stack.Ring().NeighborSet(32) },
	}, n.who.pool)
	b, err := n.home.read(rosterFile)
	if err != nil {
		return nil, err
	}
	if b != nil {
		if err := r.Restore(b); err != nil {
			n.cfg.Log.Warn("some entries of the roster were not usable", "err", err)
		}
	}
	if _, err := r.Load([][]byte{roster.CertEntry(n.who.chain)}); err != nil {
		return nil, err
	}
	if err := r.CheckChain(n.who.chain); err != nil {
		return nil, n.revoked(err)
	}
	return r, nil
}

// others are the members a restarted node may find the ring through, should its
// table be lost, and whether there is none: then nobody was ever admitted, and
// the node is the ring, as its founder was (10-overlay §3.3).
func others(r *roster.Roster, self id.GUID) (seeds []*id.Handle, none bool) {
	none = true
	for _, m := range r.List() {
		if m.GUID == self || m.Status != roster.Ready && m.Status != roster.Certified {
			continue
		}
		none = false
		if m.Handle != nil {
			seeds = append(seeds, m.Handle)
		}
	}
	return seeds, none
}

// restore hands the store's records to the DHT, which keeps an index of them.
func (n *Node) restore() error {
	last := id.GUID{}
	for i := range last {
		last[i] = 0xff
	}
	for _, fam := range []store.Family{store.Meta, store.Tombstone, store.Head, store.Claim, store.Signed, store.Holder} {
		var failed error
		err := n.st.Range(context.Background(), fam, id.GUID{}, last, func(k store.Key, v []byte) bool {
			failed = n.stack.DHT().Restore(k, v)
			return failed == nil
		})
		if errors.Is(err, store.ErrCorrupt) { // left out; the others have copies
			n.cfg.Log.Warn("records of the store are damaged and left out", "err", err)
			err = nil
		}
		if err = errors.Join(err, failed); err != nil {
			return fmt.Errorf("%s: %w", n.home.path(storeDir), err)
		}
	}
	return nil
}

func (n *Node) openIssuer() error {
	if n.who.chain.Leaf().Role != ident.Admin {
		return nil
	}
	i, err := ident.NewIssuer(n.who.pool, n.who.node, n.who.chain, n.who.root)
	if err != nil {
		return err
	}
	b, err := n.home.read(inviteFile)
	if err != nil {
		return err
	}
	if b != nil {
		if err := i.Restore(b); err != nil { // no reason not to start
			n.cfg.Log.Warn("the invites given out cannot be read and admit nobody any more: make new ones", "file", n.home.path(inviteFile), "err", err)
		}
	}
	n.issuer = i
	return nil
}

// deliver hands a decoded message to the loop.
func (n *Node) deliver(from *id.Handle, msg machine.Message, size int, bulk bool) {
	n.loop.deliver(from, msg, size, bulk)
}

// met tells the machine of a link that was opened.
func (n *Node) met(h *id.Handle) {
	_ = n.loop.do(func(now machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		return n.stack.Met(now, h, out)
	})
}

// moved tells the machine, and with it the others, that this node's addresses
// have changed: it has found a relay, say. It is called by the transport, which
// then greets those it is linked with anew.
func (n *Node) moved() {
	if n.link.handle() == nil {
		return // the transport is not made yet, perhaps; openMachine looks again
	}
	h := n.link.move(n.tr.Addrs())
	if h == nil {
		return
	}
	_ = n.loop.do(func(now machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		return n.stack.Moved(now, h, out)
	})
}

// watchStore stops the node when its disk has failed: an acknowledgement after
// that would be worth nothing (60-reliability §4).
func (n *Node) watchStore() {
	select {
	case <-n.st.Failed():
		n.halt(fmt.Errorf("%s: %w", n.home.path(storeDir), store.ErrFailed))
	case <-n.loop.stop:
	}
}

// The performer of the loop.

func (n *Node) send(e machine.Effect) {
	w := wire.Writer{B: make([]byte, 0, 512), Apart: true}
	machine.AppendMessage(&w, e.Msg)
	frame := w.Parts()
	if n.cfg.Distort != nil {
		f := n.cfg.Distort(e.Bulk, bytes.Join(frame, nil))
		if f == nil {
			return
		}
		frame = [][]byte{f}
	}
	if err := n.tr.Send(e.To, e.Bulk, frame...); err != nil {
		n.sendDrops.Add(1)
		if errors.Is(err, transport.ErrRefused) {
			n.doubt(e.To)
		}
	}
}

func (n *Node) store(e machine.Effect) { n.disk.store(e) }
func (n *Node) load(e machine.Effect)  { n.disk.load(e) }

func (n *Node) save(e machine.Effect) {
	switch e.ID {
	case stack.SaveRoster:
		r := e.Body.(stack.RosterState)
		n.link.know(r)
		n.saver.save(rosterFile, r.Entries)
		for _, g := range r.Lost {
			n.tr.Drop(g) // the next handshake tells it why, see link.Admit
		}
	default:
		n.saver.save(tableFile, e.Body.([]byte))
	}
}

func (n *Node) trace(e machine.Effect) {
	ev := e.Body.(trace.Event)
	if ev.Kind == "pastry.ready" {
		n.readyOnce.Do(func() { close(n.ready) })
	}
	if ev.Kind == "dht.corrupt" {
		n.decay.found(n.cfg.Log)
	}
	if ev.Kind == "pastry.left" {
		n.leftOnce.Do(func() { close(n.left) })
	}
	n.observers.tell(ev)
}

func (n *Node) halt(err error) {
	n.failOnce.Do(func() {
		var e *stack.EpochError
		switch {
		case errors.Is(err, ident.ErrRevoked):
			err = n.revoked(n.stack.Roster().CheckChain(n.chain()))
		case errors.As(err, &e):
			if _, jump := n.home.nextEpoch(e.Seen + 1); jump != nil {
				err = errors.Join(err, jump)
			} else {
				err = fmt.Errorf("%w: %w", ErrJumped, err)
			}
		}
		n.failure.Store(&err)
		close(n.failed)
	})
}

// Failed is closed when the node can't go on; Failure says why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Failure is why the node had to stop, nil if it had not.
func (n *Node) Failure() error {
	if err := n.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Ready waits until the node has joined the overlay; it ends with the node, too.
func (n *Node) Ready(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	case <-n.failed:
		return n.Failure()
	case <-n.loop.stop:
		return cmp.Or(n.Failure(), errStopped)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// GUID is the node's GUID.
func (n *Node) GUID() id.GUID { return n.who.node.GUID() }

// Router lets f read the overlay between two Steps.
func (n *Node) Router(f func(now machine.Time, r kbr.Router)) error {
	return n.loop.do(func(now machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		f(now, n.stack.Ring())
		return out
	})
}

// How long a Stop waits, at most: for requests under way to be answered, and for
// the goodbye to be sent.
const (
	restWait    = 3 * time.Second
	goodbyeWait = 2 * time.Second
)

// Stop ends the node in good order, within seconds: it takes nothing new,
// finishes what it has begun for its callers and for others, and tells its
// neighbours, which then do without it at once. It stays a member: its copies
// are expected back within the grace, as after a crash. Closing follows.
func (n *Node) Stop() {
	if n.loop != nil {
		if n.Failure() == nil {
			rest, cancel := context.WithTimeout(context.Background(), restWait)
			n.loop.rest(rest, dht.StopCmd{})
			cancel()
		}
		_ = n.goodbye(goodbyeWait) // it has ended already, then
	}
	n.Close()
}

// Close stops the node without a word to the others, as a power cut would: what
// was acknowledged is on disk already. The folder can be opened again.
func (n *Node) Close() {
	n.closeOnce.Do(func() {
		if n.loop != nil {
			n.loop.close()
		}
		if n.tr != nil {
			_ = n.tr.Close() // ends the questions of tasks
		}
		n.tasks.Wait()
		if n.disk != nil {
			n.disk.close()
		}
		if n.st != nil {
			if err := n.st.Close(); err != nil {
				n.cfg.Log.Warn("closing the store", "err", err)
			}
		}
		if n.saver != nil {
			n.saver.close()
		}
		if n.home != nil {
			n.home.close()
		}
	})
}
