// Package daemon runs members in this process: what "up", "join" and "demo" do
// beyond the command line, and what "doctor" does where no node runs. It wires
// package service (and so node) to package cli.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/cli"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/service"
)

// Hooks are the command line's way to nodes.
func Hooks() cli.Hooks {
	return cli.Hooks{Up: up, Join: join, Demo: demo, Doctor: doctor, Version: service.VersionOf()}
}

const (
	firstInviteUses = 8 // of the invite printed when a pool is made (20-dht §7)
	firstInviteTTL  = 24 * time.Hour
	sweepEvery      = time.Hour
	readyWait       = time.Minute // for the first node to join the overlay
	tellAfter       = 5 * time.Second
)

// process is the nodes of one "up" or "join".
type process struct {
	nodes []*node.Node
	tasks sync.WaitGroup // goroutines that end with the process's context
}

func (p *process) close() { p.each((*node.Node).Close) }

// stop is close after a goodbye to the other members.
func (p *process) stop() { p.each((*node.Node).Stop) }

func (p *process) each(f func(*node.Node)) {
	var all sync.WaitGroup
	for _, n := range p.nodes {
		all.Go(func() { f(n) })
	}
	all.Wait()
}

func config(o cli.NodeOptions, i int) node.Config {
	c := node.Config{
		Dir: o.Dir, Name: o.Name, Domain: o.Domain, Listen: o.Listen, Announce: o.Announce, Loopback: o.Loopback,
		NoQUIC: !o.QUIC, NoRelay: !o.Relay, NoHolePunch: !o.HolePunch, MDNS: o.MDNS,
		Limit: o.Limit, Preset: node.Preset(o.Preset), Grace: o.Grace, Log: o.Log,
		Version: service.Release,
	}
	if o.ClockOffset != 0 {
		c.Wall = func() int64 { return time.Now().Add(o.ClockOffset).UnixMilli() }
	}
	if o.Nodes > 1 {
		c.Dir = filepath.Join(o.Dir, fmt.Sprintf("node-%d", i+1))
		if c.Name != "" {
			c.Name = fmt.Sprintf("%s-%d", c.Name, i+1)
		}
	}
	return c
}

func up(ctx context.Context, o cli.UpOptions, started func(cli.Started)) error {
	overlay := ident.Pastry
	if o.Overlay != "" {
		var err error
		if overlay, err = ident.ParseOverlay(o.Overlay); err != nil {
			return api.Errorf(api.BadRequest, "up", o.Overlay, "%w", err)
		}
		if overlay != ident.Pastry {
			return api.Errorf(api.NotBuilt, "up", o.Overlay, "this overlay is not built yet; use pastry")
		}
	}
	k := o.K
	if k == 0 {
		k = 3
	}
	return run(ctx, o.NodeOptions, started, func(c node.Config) (*node.Node, bool, error) {
		n, err := node.Open(ctx, c)
		if !errors.Is(err, node.ErrNotMade) {
			return n, false, err
		}
		n, err = node.Create(ctx, c, node.PoolParams{Name: o.Pool, K: k, Overlay: overlay})
		return n, true, err
	})
}

func join(ctx context.Context, o cli.JoinOptions, started func(cli.Started)) error {
	return run(ctx, o.NodeOptions, started, func(c node.Config) (*node.Node, bool, error) {
		n, err := node.Join(ctx, c, o.Invite)
		return n, false, err
	})
}

// fits refuses a folder whose nodes were made with another way to share a process:
// a new node, and with up a new pool, would be made beside them.
func fits(o cli.NodeOptions) error {
	holds := func(dir string) bool {
		vacant, err := node.Vacant(dir)
		return err == nil && !vacant
	}
	single := holds(o.Dir)
	several := 0
	for holds(filepath.Join(o.Dir, fmt.Sprintf("node-%d", several+1))) {
		several++
	}
	switch {
	case o.Nodes > 1 && single && several == 0:
		return api.Errorf(api.BadDir, "", o.Dir, "the folder is that of one node: leave --nodes out, or choose another folder with --dir")
	case o.Nodes <= 1 && !single && several > 0:
		return api.Errorf(api.BadDir, "", o.Dir, "the folder has several nodes in it, node-1 to node-%d: start them with --nodes %d, or choose another folder with --dir", several, several)
	}
	return nil
}

// run runs nodes until ctx ends; a node that had to jump past a boot epoch it
// had used before its folder was restored is started again at once.
func run(ctx context.Context, o cli.NodeOptions, started func(cli.Started), first func(node.Config) (n *node.Node, made bool, err error)) error {
	if err := fits(o); err != nil {
		return err
	}
	for {
		if err := runOnce(ctx, o, started, first); !errors.Is(err, node.ErrJumped) {
			return err
		}
	}
}

// runOnce starts the nodes, serves the first one's API, and waits for the end.
func runOnce(ctx context.Context, o cli.NodeOptions, started func(cli.Started), first func(node.Config) (n *node.Node, made bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var p process
	defer p.stop()
	setMemory(o) // before the index is read
	n, made, err := first(config(o, 0))
	if err != nil {
		return startError(err)
	}
	p.nodes = append(p.nodes, n)
	s, err := service.Open(n, func() { cancel(errLeft) })
	if err != nil {
		return startError(err)
	}
	defer s.Close() //nolint:errcheck // nothing is lost: the catalogue is synced on each change
	l, err := api.Listen(o.Dir)
	if err != nil {
		return startError(err)
	}
	served := make(chan error, 1)
	go serve(ctx, s, l, served)
	err = p.more(ctx, o)
	if err == nil {
		err = p.announce(ctx, made, o.Log, started)
	}
	if err == nil {
		p.tasks.Go(func() { sweep(ctx, s) })
		p.tasks.Go(func() { keepMemory(ctx, o) })
		err = p.wait(ctx)
	}
	cancel(nil)
	p.tasks.Wait() // a sweep must not outlive what it sweeps
	if serr := <-served; err == nil {
		err = serr
	}
	if errors.Is(err, errLeft) {
		err = nil
	}
	return startError(err)
}

// errLeft ends the process of a node that has left its pool.
var errLeft = errors.New("left the pool")

func serve(ctx context.Context, s *service.Service, l listener, served chan<- error) {
	served <- api.NewServer(s).Serve(ctx, l)
}

// sweep gives up stale uploads now and every hour; what fails is swept the next
// time.
func sweep(ctx context.Context, s *service.Service) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		_ = s.Sweep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// more starts the further nodes of a process that hosts several; they join
// through the first.
func (p *process) more(ctx context.Context, o cli.NodeOptions) error {
	if o.Nodes <= 1 {
		return nil
	}
	ready, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	if err := p.nodes[0].Ready(ready); err != nil {
		return fmt.Errorf("%s has not joined the overlay: %w", p.nodes[0].GUID().Short(), err)
	}
	for i := 1; i < o.Nodes; i++ {
		c := config(o, i)
		if len(c.Listen) > 0 {
			c.Listen = nil // the ports given are the first node's
			c.Loopback = o.Loopback
		}
		n, err := node.Open(ctx, c)
		if errors.Is(err, node.ErrNotMade) || errors.Is(err, node.ErrPending) {
			var invite string
			if invite, _, err = p.nodes[0].Invite(node.InviteTerms{}); err == nil {
				n, err = node.Join(ctx, c, invite)
			}
		}
		if err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
		p.nodes = append(p.nodes, n)
	}
	return nil
}

// announce tells that the process serves. A node that finds nobody serves what
// it has: it is told of as soon as it runs.
func (p *process) announce(ctx context.Context, made bool, log *slog.Logger, started func(cli.Started)) error {
	n := p.nodes[0]
	s := cli.Started{Node: n.GUID(), Pool: id.GUID(n.Pool().ID()), Name: n.Pool().Name}
	for _, n := range p.nodes {
		s.Nodes = append(s.Nodes, n.GUID())
	}
	if made {
		text, _, err := n.Invite(node.InviteTerms{Uses: firstInviteUses, TTL: firstInviteTTL})
		if err != nil {
			return err
		}
		s.Invite = text
	}
	soon, cancel := context.WithTimeout(ctx, tellAfter)
	err := n.Ready(soon)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) && log != nil {
		log.Warn(service.Seeking(n))
	}
	for _, n := range p.nodes {
		if over := service.OverGranted(n); over != "" {
			s.Warnings = append(s.Warnings, over)
		}
		wait, cancel := context.WithTimeout(ctx, readyWait)
		err := n.Ready(wait)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	started(s)
	return nil
}

// wait returns when ctx ends or a node can't go on.
func (p *process) wait(ctx context.Context) error {
	failed := make(chan error, len(p.nodes))
	for _, n := range p.nodes {
		p.tasks.Go(func() { watch(ctx, n, failed) })
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		if err := context.Cause(ctx); errors.Is(err, errLeft) {
			return err
		}
		return nil
	}
}

func watch(ctx context.Context, n *node.Node, failed chan<- error) {
	select {
	case <-n.Failed():
		failed <- n.Failure()
	case <-ctx.Done():
	}
}
