package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/transport/p2p"
)

// Status implements api.Service.
func (s *Service) Status(ctx context.Context) (api.Status, error) {
	v, err := s.n.View()
	if err != nil {
		return api.Status{}, err
	}
	survey, err := node.Command[dht.Survey](ctx, s.n, dht.SurveyCmd{}, nil)
	if err != nil {
		return api.Status{}, err
	}
	pool := s.n.Pool()
	t := survey.Total
	st := api.Status{
		Pool: api.PoolStatus{
			ID: id.GUID(pool.ID()), Name: pool.Name, K: pool.K,
			W: quorum(min(pool.K, max(v.Members, 1))), Overlay: pool.Overlay.String(),
		},
		Node: api.NodeStatus{
			GUID: s.n.GUID(), Name: v.Self.Cert.Name, Role: v.Self.Cert.Role.String(),
			Addrs: formatAddrs(v.Handle.Addrs), Domain: v.Self.Cert.Domain, State: v.State,
		},
		Members: api.MemberCount{Total: v.Members, Live: len(survey.Members)},
		Safety: api.Safety{
			Blocks: t.Blocks, Full: t.Full, Degraded: t.Degraded, BelowW: t.BelowW, Lost: t.Lost,
			// Those that are away are counted as such by the members that lead
			// their blocks; who reaches nobody has no such count.
			Silent: slices.DeleteFunc(slices.Clone(nonNil(survey.Silent)), func(g id.GUID) bool { return !v.Near[g] && !unreached(v) }),
		},
		Repair:   api.RepairStatus{Queued: t.RepairQueued},
		Warnings: []string{},
	}
	st.Safety.Learning = []id.GUID{}
	for _, m := range survey.Members {
		if m.Unsynced {
			st.Safety.Learning = append(st.Safety.Learning, m.Member)
		}
	}
	u := s.n.Usage()
	st.Disk = api.DiskStatus{Limit: u.Limit, Used: u.Used, Reserve: u.Reserve, FullInS: s.fill.fullIn(u.Used, u.Free)}
	st.Repair.Bytes, st.Repair.ETAS = repairLeft(survey)
	st.Warnings = append(st.Warnings, s.warnings(v, survey)...)
	return st, nil
}

// repairLeft estimates what is left to copy: the queue of each member at the
// mean size of its blocks, and the slowest of them.
func repairLeft(v dht.Survey) (bytes int64, eta *int64) {
	var slowest int64
	for _, m := range v.Members {
		if m.RepairQueued == 0 {
			continue
		}
		mean := int64(1 << 20)
		if m.Usage.Blocks > 0 {
			mean = m.Usage.Used / m.Usage.Blocks
		}
		left := m.RepairQueued * mean
		bytes += left
		if m.RepairRate > 0 {
			slowest = max(slowest, left/m.RepairRate)
		}
	}
	return bytes, &slowest
}

func (s *Service) warnings(v node.View, survey dht.Survey) []string {
	var w []string
	if unreached(v) {
		w, survey = append(w, seeking(v)), dht.Survey{}
	}
	for _, g := range survey.Silent {
		if v.Near[g] {
			w = append(w, v.Called(g)+" did not answer: the blocks it leads are not counted")
		} else {
			w = append(w, v.Called(g)+" is away; its copies are made again elsewhere after the repair grace")
		}
	}
	for _, m := range survey.Members {
		if m.Unsynced {
			w = append(w, fmt.Sprintf("%s is still learning what it should hold; the counts may rise", v.Called(m.Member)))
		}
		if m.Member != s.n.GUID() && m.Usage.Limit > 0 && m.Usage.Free == 0 {
			w = append(w, fmt.Sprintf("%s has no room for more blocks (%s of %s used%s)", v.Called(m.Member), size(m.Usage.Used), size(m.Usage.Limit), strangers(m.Usage)))
		}
	}
	w = append(w, offences(v)...)
	u := s.n.Usage()
	for _, own := range []string{noRoom(u), overGranted(u), badBlocks(s.n.BadBlocks())} {
		if own != "" {
			w = append(w, own)
		}
	}
	if v.Members < s.n.Pool().K {
		w = append(w, fmt.Sprintf("the pool keeps %d copies but has %s: add members", s.n.Pool().K, members(v.Members)))
	}
	if until := time.Until(time.UnixMilli(v.CertEnds)); until < 30*24*time.Hour {
		w = append(w, fmt.Sprintf("this node's certificate ends in %d days: an admin must be running to renew it", int(until.Hours()/24)))
	}
	return w
}

// offences tells of the members that lie or flood: who is out already needs no more.
func offences(v node.View) (w []string) {
	for _, o := range v.Offenders {
		if m, ok := v.Member(o.Peer); !ok || m.Status != roster.WasRevoked && m.Status != roster.Left {
			w = append(w, offence(v.Called(o.Peer), o))
		}
	}
	return w
}

// offence tells of a member that lies or floods, and what to do.
func offence(name string, o stack.Offender) string {
	var what []string
	if o.Bad > 0 {
		what = append(what, fmt.Sprintf("sent what no honest member sends (%s; refused %s)", o.What, times(o.Bad)))
	}
	if o.Flood > 0 {
		what = append(what, fmt.Sprintf("sent more than is allowed (%d above 200 messages a second, dropped)", o.Flood))
	}
	out := ""
	if o.Shut {
		out = ", and is shut out for some minutes"
	}
	return fmt.Sprintf("%s %s in the last hour%s: see to that machine, or put it out with \"atoll revoke %s\"", name,
		strings.Join(what, " and "), out, o.Peer.Short())
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// members counts members in words.
func members(n int) string {
	if n == 1 {
		return "1 member"
	}
	return fmt.Sprintf("%d members", n)
}

// noRoom warns of a store that takes no more blocks.
func noRoom(u store.Usage) string {
	switch {
	case u.Free > 0:
		return ""
	case strangers(u) != "":
		return fmt.Sprintf("this node takes no more blocks: %s of %s used, but its file system has no more free than the %s kept in reserve: make room there, or add a member",
			size(u.Used), size(u.Limit), size(u.Reserve))
	}
	return fmt.Sprintf("this node's store is full: %s of %s used: raise --limit, remove files, or add a member", size(u.Used), size(u.Limit))
}

// OverGranted warns of a limit that the file system has no room for; empty: it has.
func OverGranted(n *node.Node) string { return granted(n.Usage()) }

func granted(u store.Usage) string {
	if u.Free == 0 && strangers(u) != "" {
		return noRoom(u)
	}
	return overGranted(u)
}

func overGranted(u store.Usage) string {
	if u.Free == 0 || strangers(u) == "" { // noRoom tells of the full ones
		return ""
	}
	return fmt.Sprintf("this node's limit is %s, but its disk has only %s free, %s of them kept in reserve: it takes at most %s more, unless space is freed",
		size(u.Limit), size(u.Free+u.Reserve), size(u.Reserve), size(u.Free))
}

// room is what a store may hold in all, by its limit and by its file system.
func room(u store.Usage) int64 { return min(u.Limit, u.Used+u.Free+u.Reserve) }

// strangers says so if a store is bounded by its file system, not by its limit.
func strangers(u store.Usage) string {
	if u.Free < u.Limit-u.Used-u.Reserve {
		return "; its file system has less free than its limit"
	}
	return ""
}

// badBlocks warns of a disk that gives back what was not written.
func badBlocks(count int64, since time.Time) string {
	switch count {
	case 0:
		return ""
	case 1:
		return "1 block on this node's disk failed its check at " + since.UTC().Format("2006-01-02 15:04 UTC") + ": check the disk (dmesg, smartctl); its copy is fetched anew from the others"
	}
	return fmt.Sprintf("%d blocks on this node's disk failed their check since %s: check the disk (dmesg, smartctl); their copies are fetched anew from the others",
		count, since.UTC().Format("2006-01-02 15:04 UTC"))
}

// Peers implements api.Service.
func (s *Service) Peers(ctx context.Context) (api.Peers, error) {
	v, err := s.n.View()
	if err != nil {
		return api.Peers{}, err
	}
	survey, err := node.Command[dht.Survey](ctx, s.n, dht.SurveyCmd{}, nil)
	if err != nil {
		return api.Peers{}, err
	}
	versions, shakes := s.n.Heard()
	used := make(map[id.GUID]dht.MemberSurvey)
	for _, m := range survey.Members {
		used[m.Member] = m
	}
	res := api.Peers{Peers: []api.Peer{}}
	for _, m := range v.Roster {
		p := api.Peer{GUID: m.GUID, RTTMs: ms(v.RTT[m.GUID]), Addr: v.Addr(m.GUID), Version: versions[m.GUID]}
		if p.RTTMs == nil { // the overlay has had no reason to measure
			p.RTTMs = ms(machine.Duration(shakes[m.GUID].Microseconds()))
		}
		if m.Cert != nil {
			p.Name, p.Domain, p.Role = m.Cert.Name, m.Cert.Domain, m.Cert.Role.String()
			p.Since = time.UnixMilli(m.Cert.NotBefore)
		}
		u, answered := used[m.GUID]
		p.Used, p.Limit, p.Free = u.Usage.Used, u.Usage.Limit, u.Usage.Free
		switch {
		case m.GUID == s.n.GUID():
			p.State, p.Version = "self", Release
		case m.Status == roster.Left:
			p.State = "left"
		case m.Status == roster.WasRevoked:
			p.State = "revoked"
		case answered:
			p.State = "live"
		default:
			p.State = "silent"
		}
		res.Peers = append(res.Peers, p)
	}
	return res, nil
}

// Revoke implements api.Service.
func (s *Service) Revoke(ctx context.Context, r api.RevokeRequest) (api.RevokeResult, error) {
	var res api.RevokeResult
	v, err := s.n.View()
	if err != nil {
		return res, err
	}
	i := slices.IndexFunc(v.Roster, func(m roster.Info) bool { return m.GUID == r.GUID })
	if i < 0 {
		return res, api.Errorf(api.NotFound, "revoke", r.GUID.String(), "no such member; see: atoll peers")
	}
	if r.GUID == s.n.GUID() {
		return res, api.Errorf(api.BadRequest, "revoke", r.GUID.String(), "this is the node itself; to take it out of the pool: atoll leave")
	}
	if v.Roster[i].Status == roster.WasRevoked {
		return res, api.Errorf(api.BadRequest, "revoke", r.GUID.String(), "it is revoked already")
	}
	if err := s.n.MayRevoke(); err != nil { // before much is counted
		return res, identError("revoke", err)
	}
	survey, err := node.Command[dht.Survey](ctx, s.n, dht.SurveyCmd{Without: r.GUID}, nil)
	if err != nil {
		return res, err
	}
	res.BelowW = survey.Total.BelowW + survey.Total.Lost // none is fewer, too
	if r.DryRun {
		return res, nil
	}
	if err := s.n.Revoke(r.GUID, r.Reason); err != nil {
		return res, identError("revoke", err)
	}
	res.Entries = 1
	return res, nil
}

// mayLeave refuses the departure of the last member while it holds blocks: nobody
// could take them over, and to leave is to lose nothing. It refuses that of the last
// admin too, unless told to: it cannot be made good.
func (s *Service) mayLeave(ctx context.Context, lastAdmin bool) error {
	v, err := s.n.View()
	if err != nil || v.Members > 1 && (lastAdmin || v.Self.Cert == nil || v.Self.Cert.Role != ident.Admin) {
		return err
	}
	survey, err := node.Command[dht.Survey](ctx, s.n, dht.SurveyCmd{}, nil)
	if err != nil {
		return err
	}
	if v.Members > 1 {
		return s.adminStays(v, survey)
	}
	if survey.Total.Blocks == 0 {
		return nil
	}
	return api.Errorf(api.BadRequest, "leave", "", "this is the last member of the pool: nobody is there to take over what it holds. "+
		"Add a member first (atoll invite), or get and remove its files (atoll ls); to give all up, stop it and remove its folder")
}

// adminStays is nil if another admin answers.
func (s *Service) adminStays(v node.View, survey dht.Survey) error {
	for _, m := range survey.Members {
		if i, ok := v.Member(m.Member); ok && m.Member != s.n.GUID() && i.Cert != nil && i.Cert.Role == ident.Admin {
			return nil
		}
	}
	who := "this is the only admin of the pool"
	if v.Admins > 1 {
		who = "no other admin of the pool answers"
	}
	return api.Errorf(api.BadRequest, "leave", "", "%s: without one nobody can be invited or revoked ever again, and memberships end, the last within %d days. "+
		"Make another first (on the node that made the pool: atoll invite --role admin, then atoll join with it on another machine), or start one that is away; "+
		"to leave the pool so all the same: atoll leave --last-admin", who, ident.Validity/(24*time.Hour).Milliseconds())
}

// Leave implements api.Service.
func (s *Service) Leave(ctx context.Context, r api.LeaveRequest, report api.Report) (api.LeaveResult, error) {
	if err := s.await(ctx, "leave"); err != nil {
		return api.LeaveResult{}, err
	}
	if err := s.mayLeave(ctx, r.LastAdmin); err != nil {
		return api.LeaveResult{}, err
	}
	done, err := node.Command[dht.DrainDone](ctx, s.n, dht.DrainCmd{}, func(note any) {
		if p, ok := note.(dht.DrainProgress); ok {
			report(api.Progress{Phase: "handing over", Total: -1, ETAS: -1, Blocks: p.HandedOver})
		}
	})
	if err != nil {
		return api.LeaveResult{}, err
	}
	report(api.Progress{Phase: "telling the others", Total: -1, ETAS: -1, Blocks: done.HandedOver})
	if err := s.n.Leave(); err != nil {
		return api.LeaveResult{}, err
	}
	if s.leaving != nil {
		s.leaving()
	}
	return api.LeaveResult{Entries: 1, HandedOver: done.HandedOver}, nil
}

// Lookup implements api.Service.
func (s *Service) Lookup(ctx context.Context, r api.KeyRequest) (api.LookupResult, error) {
	if err := s.await(ctx, "lookup"); err != nil {
		return api.LookupResult{}, err
	}
	loc, err := node.Command[dht.Located](ctx, s.n, dht.LookupCmd{Key: r.Key}, nil)
	if err != nil {
		return api.LookupResult{}, err
	}
	v, err := s.n.View()
	if err != nil {
		return api.LookupResult{}, err
	}
	res := api.LookupResult{Key: r.Key, Replicas: []api.Replica{}}
	for i, h := range loc.Set {
		if i == 0 {
			res.Root = h.GUID
		}
		rep := api.Replica{GUID: h.GUID, Name: v.NameOf(h.GUID), RTTMs: ms(v.RTT[h.GUID])}
		if m, ok := v.Member(h.GUID); ok && m.Cert != nil {
			rep.Domain = m.Cert.Domain
		}
		if len(h.Addrs) > 0 {
			rep.Addr = p2p.FormatAddr(h.Addrs[0])
		}
		res.Replicas = append(res.Replicas, rep)
	}
	return res, nil
}

// Route implements api.Service.
func (s *Service) Route(ctx context.Context, r api.KeyRequest) (api.RouteResult, error) {
	if err := s.await(ctx, "route"); err != nil {
		return api.RouteResult{}, err
	}
	way, err := node.Command[stack.Route](ctx, s.n, stack.ProbeCmd{Key: r.Key}, nil)
	if err != nil {
		return api.RouteResult{}, routeError(err)
	}
	res := api.RouteResult{Key: r.Key, Hops: []api.Hop{}}
	var rtt machine.Duration // from the hop before, which measured it
	for _, h := range way.Hops {
		res.Hops = append(res.Hops, api.Hop{
			GUID: h.Node, Addr: p2p.FormatAddr(h.Addr), Rule: h.Rule.String(),
			Prefix: id.CommonDigits(h.Node, r.Key), RTTMs: ms(rtt),
		})
		rtt = h.RTT
	}
	return res, nil
}

func routeError(err error) error {
	switch {
	case errors.Is(err, kbr.ErrBusy):
		return api.Errorf(api.Busy, "route", "", "%w", err)
	case errors.Is(err, stack.ErrNoAnswer), errors.Is(err, kbr.ErrDeadline):
		return api.Errorf(api.Deadline, "route", "", "%w", err)
	case errors.Is(err, kbr.ErrIsolated), errors.Is(err, kbr.ErrHops):
		return api.Errorf(api.Unavailable, "route", "", "%w", err)
	}
	return err
}

// Table implements api.Service.
func (s *Service) Table(context.Context) (api.Table, error) {
	t, err := s.n.Table()
	if err != nil {
		return api.Table{}, err
	}
	res := api.Table{GUID: s.n.GUID(), Rows: [][]*api.Cell{}, Neighbourhood: []api.Cell{}}
	cell := func(h *id.Handle) api.Cell {
		return api.Cell{GUID: h.GUID, RTTMs: ms(t.RTT[h.GUID]), Self: h.GUID == s.n.GUID()}
	}
	for _, row := range t.Rows {
		cells := make([]*api.Cell, 16)
		for col, h := range row {
			if h != nil {
				c := cell(h)
				cells[col] = &c
			}
		}
		res.Rows = append(res.Rows, cells)
	}
	for _, side := range []struct {
		hs   []*id.Handle
		into *[]api.Cell
	}{{t.Left, &res.Leaf.Left}, {t.Right, &res.Leaf.Right}, {t.Near, &res.Neighbourhood}} {
		*side.into = []api.Cell{}
		for _, h := range side.hs {
			*side.into = append(*side.into, cell(h))
		}
	}
	return res, nil
}

// quorum is W of 20-dht §2.
func quorum(k int) int { return (k + 2) / 2 }

// ms is a time that was measured; nil where none was.
func ms(d machine.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	t := float64(d) / 1000
	return &t
}

func formatAddrs(addrs []string) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, p2p.FormatAddr(a))
	}
	return out
}

func nonNil(gs []id.GUID) []id.GUID {
	if gs == nil {
		return []id.GUID{}
	}
	return gs
}
