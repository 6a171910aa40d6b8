package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/cli"
	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/service"
)

// Numbers of the demo.
const (
	demoNodes    = 8
	demoCopies   = 3
	demoLimit    = 1 << 30          // bytes a node may take
	demoPatience = 60 * time.Second // for any one step
	demoGlance   = 100 * time.Millisecond
)

// demonstration is eight members in one process, each with its own identity,
// failure domain, store and sockets on the loopback, as on eight machines.
type demonstration struct {
	process
	services []*service.Service
	dead     map[int]bool
	say      func(step string, fields map[string]any, format string, a ...any)
	start    time.Time
	lost     time.Time // when the two were killed
}

// demo stores a file in eight nodes, fetches it through another, loses two that
// share a block, fetches it again, and waits for the copies to be made anew.
func demo(ctx context.Context, o cli.DemoOptions, w io.Writer) (err error) {
	file := o.File
	if file == "" {
		if file, err = os.Executable(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "atoll-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d := &demonstration{dead: make(map[int]bool), start: time.Now()}
	d.say = d.teller(w, o)
	defer d.close()

	d.say("begin", map[string]any{"dir": dir, "nodes": demoNodes, "k": demoCopies},
		"%d nodes in this process, on loopback, in %s; %d copies of every block.\n"+
			"Heartbeats of 1 s and a repair grace of 1 s, so that repair can be watched (defaults: 5 s and 15 min).", demoNodes, dir, demoCopies)
	if err := d.grow(ctx, dir); err != nil {
		return err
	}
	link, sum, err := d.put(ctx, file)
	if err != nil {
		return err
	}
	if err := d.get(ctx, link, sum, 4, "get"); err != nil {
		return err
	}
	if err := d.lose(ctx, link); err != nil {
		return err
	}
	if err := d.get(ctx, link, sum, d.alive(6), "get_after_loss"); err != nil {
		return err
	}
	if err := d.healed(ctx); err != nil {
		return err
	}
	if err := d.get(ctx, link, sum, d.alive(3), "get_after_repair"); err != nil {
		return err
	}
	d.say("end", map[string]any{"seconds": time.Since(d.start).Seconds()}, "Done in %.1f s: no byte was lost.", time.Since(d.start).Seconds())
	if o.Exit {
		return nil
	}
	return d.serve(ctx)
}

// teller prints steps in words, or as one object a line.
func (d *demonstration) teller(w io.Writer, o cli.DemoOptions) func(string, map[string]any, string, ...any) {
	var mu sync.Mutex
	return func(step string, fields map[string]any, format string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		if o.JSON {
			line := map[string]any{"step": step, "at_s": time.Since(d.start).Seconds()}
			for k, v := range fields {
				line[k] = v
			}
			b, err := json.Marshal(line)
			if err != nil {
				panic("daemon: demo step: " + err.Error())
			}
			_, _ = fmt.Fprintf(w, "%s\n", b)
			return
		}
		if !o.Quiet || step == "end" {
			_, _ = fmt.Fprintf(w, "%6.2f s  %s\n", time.Since(d.start).Seconds(), indent(fmt.Sprintf(format, a...)))
		}
	}
}

func indent(s string) string {
	return string(bytes.ReplaceAll([]byte(s), []byte("\n"), []byte("\n          ")))
}

// grow makes the pool and has seven nodes join it at once.
func (d *demonstration) grow(ctx context.Context, dir string) error {
	cfg := func(i int) node.Config {
		name := fmt.Sprintf("demo-%d", i+1)
		return node.Config{
			Dir: filepath.Join(dir, name), Name: name, Domain: "domain-" + name, Loopback: true,
			NoQUIC: true, NoRelay: true, Limit: demoLimit, Preset: node.Local,
			Version: service.Release,
		}
	}
	first, err := node.Create(ctx, cfg(0), node.PoolParams{Name: "demo", K: demoCopies, Overlay: 1})
	if err != nil {
		return err
	}
	d.nodes = append(d.nodes, first)
	invite, _, err := first.Invite(node.InviteTerms{Uses: demoNodes - 1})
	if err != nil {
		return err
	}
	joined := make([]*node.Node, demoNodes)
	errs := make([]error, demoNodes)
	var all sync.WaitGroup
	for i := 1; i < demoNodes; i++ {
		all.Go(func() { joined[i], errs[i] = node.Join(ctx, cfg(i), invite) })
	}
	all.Wait()
	for i := 1; i < demoNodes; i++ {
		if joined[i] != nil {
			d.nodes = append(d.nodes, joined[i])
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if err := d.ready(ctx, n); err != nil {
			return err
		}
		s, err := service.Open(n, nil)
		if err != nil {
			return err
		}
		d.services = append(d.services, s)
	}
	// Everybody must have heard that all are ready, else the quorum is still
	// that of a smaller pool.
	err = d.until(ctx, "all nodes to know each other", func() (bool, error) {
		for _, n := range d.nodes {
			if v, err := n.View(); err != nil || v.Members < demoNodes {
				return false, err
			}
		}
		return true, nil
	})
	if err == nil {
		d.say("joined", map[string]any{"nodes": guids(d.nodes)}, "%d nodes have joined one ring: %s.", demoNodes, shorts(d.nodes))
	}
	return err
}

func (d *demonstration) ready(ctx context.Context, n *node.Node) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		return fmt.Errorf("%s did not join the overlay: %w", n.GUID().Short(), err)
	}
	return nil
}

func guids(ns []*node.Node) (gs []id.GUID) {
	for _, n := range ns {
		gs = append(gs, n.GUID())
	}
	return gs
}

func shorts(ns []*node.Node) (s string) {
	for i, n := range ns {
		if i > 0 {
			s += " "
		}
		s += n.GUID().Short()
	}
	return s
}

// put stores the file through the first node and returns its link and hash.
func (d *demonstration) put(ctx context.Context, file string) (link string, sum [32]byte, err error) {
	if file, err = filepath.Abs(file); err != nil {
		return "", sum, err
	}
	if sum, err = hashFile(file); err != nil {
		return "", sum, api.Errorf(api.NotFound, "demo", file, "%w", err)
	}
	r, err := d.services[0].Put(ctx, api.PutParams{Path: file, Size: -1}, nil, func(api.Progress) {})
	if err != nil {
		return "", sum, err
	}
	d.say("put", map[string]any{"file": file, "size": r.Size, "blocks": r.Blocks, "copies": r.Copies, "ms": r.MS, "guid": r.GUID},
		"put %s through node 1: %s in %s, each on %d disks before it counted, in %s (%s).",
		filepath.Base(file), size(r.Size), blocks(r.Blocks), r.Copies.Min, millis(r.MS), rate(r.Size, r.MS))
	way, err := d.services[0].Route(ctx, api.KeyRequest{Key: r.GUID})
	if err != nil {
		return "", sum, err
	}
	line := "its root block " + r.GUID.Short() + " lies at the node nearest to it:"
	for _, h := range way.Hops {
		line += fmt.Sprintf(" → %s (%s)", h.GUID.Short(), h.Rule)
	}
	d.say("route", map[string]any{"key": r.GUID, "hops": way.Hops}, "%s", line)
	return r.Link, sum, nil
}

func hashFile(path string) (sum [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := blake3.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	copy(sum[:], h.Sum(nil))
	return sum, nil
}

// get fetches the file through node i and compares it with what was put.
func (d *demonstration) get(ctx context.Context, link string, want [32]byte, i int, step string) error {
	h := blake3.New()
	r, err := d.services[i].Get(ctx, api.GetRequest{Link: link}, func(api.GetHead) (io.Writer, error) { return h, nil }, func(api.Progress) {})
	if err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want[:]) {
		return api.Errorf(api.Corrupt, "demo", "", "the bytes that came back through node %d are not those that were put", i+1)
	}
	d.say(step, map[string]any{"node": i + 1, "size": r.Size, "ms": r.MS, "blake3": hex.EncodeToString(want[:])},
		"get through node %d: the same %s, BLAKE3 %s…, in %s (%s).", i+1, size(r.Size), hex.EncodeToString(want[:4]), millis(r.MS), rate(r.Size, r.MS))
	return nil
}

// lose waits until every block has its copies, then kills two nodes that hold
// the file's root block: without a word to the others, as a power cut would.
func (d *demonstration) lose(ctx context.Context, link string) error {
	if err := d.full(ctx, "every block to have its copies"); err != nil {
		return err
	}
	st, err := d.services[0].Stat(ctx, api.LinkRequest{Link: link})
	if err != nil {
		return err
	}
	where, err := d.services[0].Lookup(ctx, api.KeyRequest{Key: st.GUID})
	if err != nil {
		return err
	}
	d.say("copies", map[string]any{"copies": st.Copies}, "every block has %d copies.", st.Copies.Min)
	for _, r := range where.Replicas {
		for i, n := range d.nodes {
			if n.GUID() == r.GUID && i != 0 && len(d.dead) < 2 {
				d.dead[i] = true
			}
		}
	}
	var names string
	d.lost = time.Now()
	for i := range d.nodes {
		if d.dead[i] {
			d.nodes[i].Close()
			if names != "" {
				names += " and"
			}
			names += fmt.Sprintf(" node %d (%s)", i+1, d.nodes[i].GUID().Short())
		}
	}
	st, err = d.services[0].Stat(ctx, api.LinkRequest{Link: link})
	if err != nil {
		return err
	}
	d.say("killed", map[string]any{"copies": st.Copies}, "killed%s, which both held block %s: copies of it left: %d.", names, st.GUID.Short(), st.Copies.Min)
	return nil
}

// alive is the first node from i on that was not killed.
func (d *demonstration) alive(i int) int {
	for d.dead[i%len(d.nodes)] {
		i++
	}
	return i % len(d.nodes)
}

// full waits until the pool says that all blocks have all copies.
func (d *demonstration) full(ctx context.Context, what string) error {
	var last dht.Survey
	err := d.until(ctx, what, func() (bool, error) {
		v, err := node.Command[dht.Survey](ctx, d.nodes[0], dht.SurveyCmd{}, nil)
		if err != nil {
			return false, err
		}
		last = v
		learning := slices.ContainsFunc(v.Members, func(m dht.MemberSurvey) bool { return m.Unsynced })
		living := len(d.nodes) - len(d.dead)
		return v.Total.Blocks > 0 && v.Total.Full == v.Total.Blocks && !learning && len(v.Members) >= living, nil
	})
	if err != nil {
		return api.Errorf(api.Unavailable, "demo", "", "%s; the members said: %+v, silent %v", err.Error(), last.Members, last.Silent)
	}
	return nil
}

// healed waits until the living hold k copies of everything again.
func (d *demonstration) healed(ctx context.Context) error {
	if err := d.full(ctx, "the copies to be made again"); err != nil {
		return err
	}
	took := time.Since(d.lost).Milliseconds() // repair goes on while the file is fetched
	var repaired int64
	for i, n := range d.nodes {
		if d.dead[i] {
			continue
		}
		v, err := n.View()
		if err != nil {
			return err
		}
		repaired += v.DHT.RepairBytes
	}
	d.say("healed", map[string]any{"ms": took, "repair_bytes": repaired},
		"the %d nodes left have made the missing copies again by themselves, %s after the loss: %s copied, every block has %d copies.",
		len(d.nodes)-len(d.dead), millis(took), size(repaired), demoCopies)
	return nil
}

// until looks at a condition until it holds.
func (d *demonstration) until(ctx context.Context, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	glance := time.NewTicker(demoGlance)
	defer glance.Stop()
	for {
		ok, err := holds()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		select {
		case <-glance.C:
		case <-ctx.Done():
			return api.Errorf(api.Unavailable, "demo", "", "waited %s for %s in vain", demoPatience, what)
		}
	}
}

// serve keeps the pool up and its API open until Ctrl-C.
func (d *demonstration) serve(ctx context.Context) error {
	dir := d.nodes[0].Dir()
	l, err := api.Listen(dir)
	if err != nil {
		return err
	}
	d.say("serving", map[string]any{"dir": dir}, "serving until Ctrl-C. In another terminal: atoll --dir %s status", dir)
	return api.NewServer(d.services[0]).Serve(ctx, l)
}

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func blocks(n int64) string {
	if n == 1 {
		return "1 block"
	}
	return fmt.Sprintf("%d blocks", n)
}

func millis(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

func rate(n, ms int64) string {
	return fmt.Sprintf("%.0f MiB/s", float64(n)/(1<<20)/max(float64(ms)/1000, 0.001))
}
