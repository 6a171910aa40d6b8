package service

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/store"
)

// check is one thing the doctor looks at.
type check struct {
	name string
	run  func(ctx context.Context, s *Service, v node.View) api.Check
}

var checks = []check{
	{"folder", checkFolder},
	{"disk", checkDisk},
	{"clock", checkClock},
	{"certificate", checkCertificate},
	{"admins", checkAdmins},
	{"overlay", checkOverlay},
	{"network", checkNetwork},
	{"copies", checkCopies},
	{"catalogue", checkCatalogue},
}

// Doctor implements api.Service.
func (s *Service) Doctor(ctx context.Context, r api.DoctorRequest) (api.DoctorResult, error) {
	res := api.DoctorResult{Results: []api.Check{}}
	v, err := s.n.View()
	if err != nil {
		return res, err
	}
	for _, name := range r.Checks {
		if !slices.ContainsFunc(checks, func(c check) bool { return c.name == name }) {
			return res, api.Errorf(api.BadRequest, "doctor", name, "no such check; there are: %s", strings.Join(checkNames(), ", "))
		}
	}
	for _, c := range checks {
		if len(r.Checks) == 0 || slices.Contains(r.Checks, c.name) {
			found := c.run(ctx, s, v)
			found.Check = c.name
			res.Results = append(res.Results, found)
		}
	}
	if r.Backup != "" {
		if err := s.n.Backup(r.Backup); err != nil {
			return res, fileError("doctor", r.Backup, err)
		}
		res.Results = append(res.Results, api.Check{Check: "backup", OK: true, Detail: "keys, secret and catalogue saved in " + r.Backup + "; keep it where only you can read it"})
	}
	return res.Graded(), nil
}

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	unit, i := float64(n)/1024, 0
	for ; unit >= 1024; i++ {
		unit /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", unit, "KMGTPE"[i])
}

func checkNames() []string {
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	return names
}

func checkFolder(_ context.Context, s *Service, _ node.View) api.Check {
	info, err := os.Stat(s.n.Dir())
	if err != nil {
		return api.Check{Detail: err.Error(), Fix: "make the folder readable for this user"}
	}
	if err := s.n.Intact(); err != nil {
		return api.Check{Detail: err.Error(), Fix: "see the message; the node runs with what it had at its start: do it before it stops"}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return api.Check{Detail: fmt.Sprintf("others on this computer can change %s (mode %o)", s.n.Dir(), info.Mode().Perm()), Fix: "chmod 700 " + s.n.Dir()}
	}
	if gone := s.n.Rootless(); gone != "" {
		return api.Check{Detail: gone, Fix: "stop the node and see the message"}
	}
	if anew := s.n.BegunAnew(); anew != "" {
		return api.Check{OK: true, Detail: anew, Fix: "see the message"}
	}
	if info.Mode().Perm()&0o055 != 0 { // names only: what is in the files, or in folders in it, is this user's
		return api.Check{OK: true, Detail: fmt.Sprintf("others on this computer can list %s (mode %o)", s.n.Dir(), info.Mode().Perm()), Fix: "chmod 700 " + s.n.Dir()}
	}
	return api.Check{OK: true, Detail: s.n.Dir()}
}

func checkDisk(_ context.Context, s *Service, _ node.View) api.Check {
	u := s.n.Usage()
	detail := fmt.Sprintf("%s of %s used, %s free for blocks", size(u.Used), size(u.Limit), size(u.Free))
	if bad, since := s.n.BadBlocks(); bad > 0 {
		return api.Check{
			Detail: fmt.Sprintf("blocks that failed their check since %s: %d; %s", since.UTC().Format("2006-01-02 15:04 UTC"), bad, detail),
			Fix:    "check the disk (dmesg, smartctl) and replace it if it fails; the copies are fetched anew from the others",
		}
	}
	return checkRoom(u, detail)
}

// checkRoom looks at how much a store takes still.
func checkRoom(u store.Usage, detail string) api.Check {
	fix := "raise --limit, free space on the file system, or add a member"
	over := granted(u)
	if over != "" {
		detail, fix = detail+"; "+over, "free space on the file system, or add a member"
	}
	if u.Free < room(u)/20 {
		return api.Check{Detail: detail, Fix: fix}
	}
	// A limit above what there is is a warning, OK and yet with a Fix, as long as there is room.
	if over != "" {
		return api.Check{OK: true, Detail: detail, Fix: "free space on the file system, or lower --limit"}
	}
	return api.Check{OK: true, Detail: detail}
}

// clockWarn is how far clocks may be apart before the doctor warns; from
// ident.MaxClockDiff on puts of the one that is ahead are refused.
const clockWarn = time.Minute

// checkClock compares this node's clock with those of up to three members. One that
// is wrong itself is outvoted where three answer.
func checkClock(ctx context.Context, s *Service, _ node.View) api.Check {
	gaps, err := s.n.Clocks(ctx)
	switch {
	case err != nil:
		return api.Check{Detail: err.Error(), Fix: "try again"}
	case len(gaps) == 0:
		return api.Check{OK: true, Detail: "not compared: no other member is there to ask"}
	}
	gap, most := gaps[(len(gaps)-1)/2], time.Duration(ident.MaxClockDiff)*time.Millisecond
	if gap.Abs() <= clockWarn {
		return api.Check{OK: true, Detail: "agrees with that of " + members(len(gaps)) + " asked"}
	}
	way, so := "ahead of", fmt.Sprintf("from %s on its puts and removals are refused", most)
	if gap < 0 {
		way, so = "behind", "what it puts and removes is dated too early"
	}
	c := api.Check{
		OK: gap.Abs() <= most,
		Detail: fmt.Sprintf("this computer's clock (%s UTC) is %s %s that of %s asked; %s",
			s.n.Wall().UTC().Format("2006-01-02 15:04:05"), gap.Abs().Round(time.Second), way, members(len(gaps)), so),
		Fix: "set this computer's clock (timedatectl set-ntp true, where systemd runs)",
	}
	if len(gaps) < 3 {
		c.Fix = "see which of the clocks is wrong, and set it (timedatectl set-ntp true, where systemd runs)"
	}
	return c
}

func checkCertificate(_ context.Context, _ *Service, v node.View) api.Check {
	ends := time.UnixMilli(v.CertEnds)
	detail := "valid until " + ends.Format(time.DateOnly)
	if time.Until(ends) < 30*24*time.Hour {
		return api.Check{Detail: detail, Fix: "start the node of an admin, which renews it"}
	}
	return api.Check{OK: true, Detail: detail}
}

func checkAdmins(_ context.Context, _ *Service, v node.View) api.Check {
	if v.Admins == 0 {
		return api.Check{Detail: noAdmin(v), Fix: "make a new pool (atoll up in another folder, or on another machine), and put the files there"}
	}
	if v.Admins < 2 && v.Members > 1 {
		// A warning: OK, and yet with a Fix.
		return api.Check{OK: true, Detail: "one admin: if its node is lost, nobody can be invited and certificates end", Fix: "on the node that made the pool: atoll invite --role admin"}
	}
	return api.Check{OK: true, Detail: fmt.Sprintf("%d of %d members", v.Admins, v.Members)}
}

// noAdmin says what becomes of a pool that all admins have left.
func noAdmin(v node.View) string {
	return "the pool has no admin any more: nobody can join it or be revoked, and this node's certificate ends on " + time.UnixMilli(v.CertEnds).Format(time.DateOnly) + ", not to be renewed"
}

func checkOverlay(_ context.Context, _ *Service, v node.View) api.Check {
	if unreached(v) {
		return api.Check{Detail: fmt.Sprintf("%s; %d members, none of them reached", v.State, v.Members), Fix: seeking(v)}
	}
	detail := fmt.Sprintf("%s; %d members, about %d nodes on the ring", v.State, v.Members, v.Estimate)
	if v.State != "ready" {
		return api.Check{Detail: detail, Fix: "wait a minute; if it stays so, check that other members run and can be reached (network)"}
	}
	return api.Check{OK: true, Detail: detail}
}

func checkNetwork(_ context.Context, s *Service, v node.View) api.Check {
	links := s.n.Links()
	relayed := 0
	for _, l := range links {
		if l.Proto == "relay" {
			relayed++
		}
	}
	var addrs []string
	for _, a := range formatAddrs(v.Handle.Addrs) {
		addrs = append(addrs, node.PlainAddr(a))
	}
	detail := fmt.Sprintf("%d links, %d of them relayed; listening on %s", len(links), relayed, strings.Join(addrs, ", "))
	switch {
	case v.Members > 1 && len(links) == 0:
		return api.Check{Detail: detail, Fix: "check the firewall and that other members run"}
	case relayed > 0:
		return api.Check{OK: true, Detail: detail + " (relayed links are slow: forward a port and tell it with --announce)"}
	}
	return api.Check{OK: true, Detail: detail}
}

func checkCopies(ctx context.Context, s *Service, v node.View) api.Check {
	if unreached(v) {
		return api.Check{Detail: "cannot be told: this node reaches no other member", Fix: "see overlay"}
	}
	survey, err := node.Command[dht.Survey](ctx, s.n, dht.SurveyCmd{}, nil)
	if err != nil {
		return api.Check{Detail: err.Error(), Fix: "try again"}
	}
	t := survey.Total
	noun := "blocks"
	if t.Blocks == 1 {
		noun = "block"
	}
	detail := fmt.Sprintf("%d %s: %d with all copies, %d with fewer, %d below the write quorum, %d without any", t.Blocks, noun, t.Full, t.Degraded, t.BelowW, t.Lost)
	if t.BelowW > 0 || t.Lost > 0 {
		return api.Check{Detail: detail, Fix: "start the members that are silent (atoll peers); copies are then made by themselves"}
	}
	return api.Check{OK: true, Detail: detail}
}

func checkCatalogue(_ context.Context, s *Service, _ node.View) api.Check {
	c := s.files.Catalogue()
	if n := c.Damaged(); n > 0 {
		return api.Check{Detail: fmt.Sprintf("%s listed, %d damaged entries left out", fileCount(c.Len()), n), Fix: "stop the node, move the file catalogue in its folder away, and restore it from a backup: atoll doctor --restore FILE"}
	}
	return api.Check{OK: true, Detail: fmt.Sprintf("%s listed; it is kept on this node alone: atoll doctor --backup FILE", fileCount(c.Len()))}
}

func fileCount(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
