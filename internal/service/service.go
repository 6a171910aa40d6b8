// Package service is what a running member offers its user: it implements
// api.Node over package node (the machine and its host) and package files
// (files as trees of blocks). It holds no protocol; it translates.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/files"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/seal"
	"atoll.example/atoll/internal/trace"
)

// Release is the version this program tells. A release build sets it.
var Release = "0.1-dev"

// Service is one member's service.
type Service struct {
	n       *node.Node
	files   *files.Client
	metrics prometheus.Gatherer
	fill    fillRate
	seen    seen
	leaving func() // ends the process after a leave; may be nil

	patience time.Duration // see await
}

var _ api.Node = (*Service)(nil)

// Open opens the service of a node. leaving, if not nil, is called once the
// node has left its pool.
func Open(n *node.Node, leaving func()) (*Service, error) {
	c, err := files.Open(files.Config{
		Dir: n.Dir(), Pool: n.Pool().ID(), Secret: n.Secret(), Blocks: n.Blocks(),
	})
	if err != nil {
		return nil, err
	}
	s := &Service{n: n, files: c, leaving: leaving, patience: patience}
	s.metrics = newMetrics(n)
	return s, nil
}

// Close closes what Open opened; the node is the caller's.
func (s *Service) Close() error { return s.files.Close() }

// Sweep gives up uploads that were cut short a week ago.
func (s *Service) Sweep(ctx context.Context) error {
	_, err := s.files.Sweep(ctx)
	return err
}

// VersionOf tells what this program is.
func VersionOf() api.Version {
	v := api.Version{Version: Release, Go: runtime.Version(), Wire: api.WireRange{Min: ident.WireMin, Max: ident.WireMax}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

// Version implements api.Service.
func (s *Service) Version(context.Context) (api.Version, error) { return VersionOf(), nil }

// progress passes on what a transfer reports.
func progress(report api.Report) func(files.Progress) {
	return func(p files.Progress) {
		report(api.Progress{
			Phase: p.Phase, Bytes: p.Bytes, Total: p.Total, Blocks: p.Blocks,
			Rate: p.Rate, StalledOn: p.StalledOn, ETAS: p.ETAS,
		})
	}
}

// Put implements api.Service.
func (s *Service) Put(ctx context.Context, p api.PutParams, body io.Reader, report api.Report) (api.PutResult, error) {
	if err := s.await(ctx, "put"); err != nil {
		return api.PutResult{}, err
	}
	start := time.Now()
	r := files.PutRequest{
		Path: p.Path, Name: p.Name, Unique: p.Unique, Clear: p.Clear, K: p.K, W: p.W,
		NoResume: p.NoResume, Progress: progress(report),
	}
	if p.Path == "" {
		r.Source, r.Size = body, p.Size
	} else if !filepath.IsAbs(p.Path) {
		return api.PutResult{}, api.Errorf(api.BadRequest, "put", p.Path, "the path must be absolute")
	}
	if most := max(p.K, s.n.Pool().K); p.W > most {
		return api.PutResult{}, api.Errorf(api.BadRequest, "put", "", "w is %d, but only %d copies are made: raise k, or lower w", p.W, most)
	}
	if p.W > 1 {
		if v, err := s.n.View(); err == nil && p.W > v.Members {
			return api.PutResult{}, api.Errorf(api.BadRequest, "put", "", "w is %d, but the pool has %s: lower w, or add members first", p.W, members(v.Members))
		}
	}
	name := p.Name
	if name == "" && p.Path != "" {
		name = filepath.Base(p.Path)
	}
	if name != "" {
		if err := api.CheckName(name); err != nil {
			return api.PutResult{}, api.Errorf(api.BadRequest, "put", p.Path, "%w: name it otherwise", err)
		}
	}
	done, err := s.files.PutFile(ctx, r)
	if err != nil {
		k := p.K
		if k == 0 {
			k = s.n.Pool().K
		}
		return api.PutResult{}, s.late("put", k, p.W, fileError("put", p.Path, err))
	}
	return api.PutResult{
		Older: s.namesakes(done.Name, done.GUID),
		Link:  done.Link.Text(), VerifyLink: done.VerifyLink.Text(), GUID: done.GUID, Size: done.Size,
		Blocks: done.Blocks, NewBlocks: done.NewBlocks, Resumed: done.Resumed, Holes: done.Holes,
		Copies: api.Copies{Min: done.Copies.Min, Target: done.Copies.Target},
		MS:     time.Since(start).Milliseconds(),
	}, nil
}

// namesakes lists the other files of this name in the catalogue, oldest first.
func (s *Service) namesakes(name string, than id.GUID) (older []id.GUID) {
	if name == "" {
		return nil
	}
	for _, e := range s.files.Catalogue().List(name) {
		if e.Name == name && e.Link.Root != than {
			older = append(older, e.Link.Root)
		}
	}
	return older
}

// fileError gives an error of the file system a place in the table of codes.
func fileError(op, path string, err error) error {
	var c interface{ Code() string }
	switch {
	case errors.As(err, &c) && c.Code() == api.Full: // the pool's disks
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT): // this machine's
		e := api.Errorf(api.Full, op, path, "%w; make room on this disk", err)
		e.Message = strings.TrimPrefix(e.Message, op+": ") // Error says it again
		return e
	case c != nil:
	case errors.Is(err, os.ErrNotExist): // not_found is the pool's word
		return api.Errorf(api.BadRequest, op, pathOf(err, path), "no such file or folder on this machine")
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.Forbidden, op, pathOf(err, path), "the file system does not allow it")
	}
	return err
}

// pathOf is the path that an error of the file system names, else that given.
func pathOf(err error, path string) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Path
	}
	return path
}

// Get implements api.Service.
func (s *Service) Get(ctx context.Context, r api.GetRequest, begin func(api.GetHead) (io.Writer, error), report api.Report) (api.GetResult, error) {
	if err := s.await(ctx, "get"); err != nil {
		return api.GetResult{}, err
	}
	start := time.Now()
	link, err := s.files.ParseLink(r.Link)
	if err != nil {
		return api.GetResult{}, err
	}
	res := api.GetResult{GUID: link.Root, Verified: true}
	if r.Out != "" {
		if r.Offset != 0 || r.Length != 0 {
			return api.GetResult{}, api.Errorf(api.BadRequest, "get", r.Out, "a part of a file can only be streamed")
		}
		info, saved, err := s.files.SaveFile(ctx, link, filepath.Dir(r.Out), files.SaveOptions{
			Name: filepath.Base(r.Out), Force: r.Force, Progress: progress(report),
		})
		if err != nil {
			return api.GetResult{}, fileError("get", r.Out, err)
		}
		res.Path, res.Name, res.Size, res.Resumed = r.Out, info.Name, saved.Size, saved.Resumed
		res.MS = time.Since(start).Milliseconds()
		return res, nil
	}
	f, err := s.files.OpenFile(ctx, link)
	if err != nil {
		return api.GetResult{}, err
	}
	info := f.Info()
	res.Name = info.Name
	w, err := begin(api.GetHead{Name: info.Name, Size: info.Size, GUID: info.GUID})
	if err != nil {
		return api.GetResult{}, err
	}
	res.Size, err = f.CopyTo(ctx, w, files.GetOptions{Offset: r.Offset, Length: r.Length, Progress: progress(report)})
	res.MS = time.Since(start).Milliseconds()
	return res, err
}

// Stat implements api.Service.
func (s *Service) Stat(ctx context.Context, r api.LinkRequest) (api.StatResult, error) {
	if err := s.await(ctx, "stat"); err != nil {
		return api.StatResult{}, err
	}
	link, err := s.files.ParseLink(r.Link)
	if err != nil {
		return api.StatResult{}, err
	}
	st, err := s.files.Stat(ctx, link)
	if err != nil {
		return api.StatResult{}, err
	}
	res := api.StatResult{
		Name: st.Name, GUID: st.GUID, Blocks: st.Blocks, Depth: st.Depth,
		Chunk: st.Chunking, Capability: capability(st.Capability),
		Copies: api.Copies{Min: st.Copies.Min, Max: st.Copies.Max, Target: st.Copies.Target},
	}
	if st.Size >= 0 {
		res.Size, res.Mtime = &st.Size, &st.Mtime
	}
	return res, nil
}

func capability(c seal.Capability) string {
	switch c {
	case seal.CanRead:
		return "read"
	case seal.CanVerify:
		return "verify"
	default:
		return "clear"
	}
}

// Rm implements api.Service.
func (s *Service) Rm(ctx context.Context, r api.LinkRequest) (api.RmResult, error) {
	if err := s.await(ctx, "rm"); err != nil {
		return api.RmResult{}, err
	}
	var done files.Removed
	link, err := s.files.ParseLink(r.Link)
	if err == nil {
		done, err = s.files.Remove(ctx, link, nil)
	} else if !strings.HasPrefix(r.Link, "atoll:") {
		if link, known := s.byDigits(r.Link); known {
			done, err = s.files.Remove(ctx, link, nil)
		} else {
			done, err = s.files.RemoveName(ctx, r.Link, nil)
		}
	}
	if err != nil {
		return api.RmResult{}, s.late("rm", s.n.Pool().K, 0, err)
	}
	return api.RmResult{Removed: done.Blocks, KeptByOthers: done.KeptByOthers}, nil
}

// byDigits finds the one file in the catalogue whose GUID begins with the digits
// that ls shows in place of a name, and rm where a name is not enough. A file that
// has them for its name comes before.
func (s *Service) byDigits(digits string) (link seal.Link, known bool) {
	if len(digits) < len(id.GUID{}.Short()) {
		return link, false
	}
	found := 0
	for _, e := range s.files.Catalogue().List("") {
		if e.Name == digits {
			return link, false
		}
		if strings.HasPrefix(e.Link.Root.String(), strings.ToLower(digits)) {
			link = e.Link
			found++
		}
	}
	return link, found == 1
}

// Ls implements api.Service.
func (s *Service) Ls(_ context.Context, prefix string) (api.LsResult, error) {
	res := api.LsResult{Files: []api.File{}}
	for _, e := range s.files.Catalogue().List(prefix) {
		res.Files = append(res.Files, api.File{Name: e.Name, GUID: e.Link.Root, Link: e.Link.Text(), Size: e.Size, PutAt: e.PutAt})
	}
	return res, nil
}

// Verify implements api.Service.
func (s *Service) Verify(ctx context.Context, r api.VerifyRequest, report api.Report) (api.VerifyResult, error) {
	return s.verify(ctx, r, false, report)
}

// Repair implements api.Service.
func (s *Service) Repair(ctx context.Context, r api.VerifyRequest, report api.Report) (api.VerifyResult, error) {
	return s.verify(ctx, r, true, report)
}

func (s *Service) verify(ctx context.Context, r api.VerifyRequest, repair bool, report api.Report) (api.VerifyResult, error) {
	if err := s.await(ctx, ""); err != nil {
		return api.VerifyResult{}, err
	}
	if v, err := s.n.View(); err != nil {
		return api.VerifyResult{}, err
	} else if alone(v) {
		return api.VerifyResult{}, api.Errorf(api.Unavailable, "", "", "how many copies there are cannot be told: %s", seeking(v))
	}
	o := files.VerifyOptions{Deep: r.Deep, Repair: repair, Progress: progress(report)}
	var v files.Verified
	var err error
	if r.All {
		var links []seal.Link
		for _, e := range s.files.Catalogue().List("") {
			links = append(links, e.Link)
		}
		v, err = s.files.VerifyAll(ctx, links, o)
	} else {
		var link seal.Link
		if link, err = s.files.ParseLink(r.Link); err == nil {
			v, err = s.files.Verify(ctx, link, o)
		}
	}
	if err != nil {
		return api.VerifyResult{}, err
	}
	return api.VerifyResult{
		Blocks: v.Blocks, OK: v.OK, Corrupt: v.Corrupt, Missing: v.Missing, Repaired: v.Repaired, Unrepairable: nonNil(v.Unrepairable),
		Bad: s.badCopies(v.Bad),
	}, nil
}

// badCopies lists who has corrupt copies, most first.
func (s *Service) badCopies(count map[id.GUID]int64) []api.BadCopies {
	bad := make([]api.BadCopies, 0, len(count))
	view, err := s.n.View()
	for g, c := range count {
		b := api.BadCopies{GUID: g, Name: g.Short(), Copies: c}
		if err == nil {
			b.Name = view.NameOf(g)
		}
		bad = append(bad, b)
	}
	slices.SortFunc(bad, func(a, b api.BadCopies) int {
		return cmp.Or(cmp.Compare(b.Copies, a.Copies), a.GUID.Cmp(b.GUID))
	})
	return bad
}

// Events implements api.Service.
func (s *Service) Events(ctx context.Context, emit func(api.TraceEvent) error) error {
	return s.n.Observe(ctx, func(ev trace.Event) error {
		return emit(api.TraceEvent{Time: time.Now(), Kind: ev.Kind, Peer: ev.Peer, Key: ev.Key, N: ev.N, Note: ev.Note})
	})
}

// Invite implements api.Service.
func (s *Service) Invite(_ context.Context, r api.InviteRequest) (api.InviteResult, error) {
	t := node.InviteTerms{Uses: r.Uses, TTL: time.Duration(r.TTLS) * time.Second, Quota: r.Quota}
	if r.Quota != 0 {
		return api.InviteResult{}, api.Errorf(api.NotBuilt, "invite", "", "quotas are not built yet; leave --quota out")
	}
	if r.Role != "" {
		var err error
		if t.Role, err = ident.ParseRole(r.Role); err != nil {
			return api.InviteResult{}, api.Errorf(api.BadRequest, "invite", r.Role, "%w", err)
		}
	}
	text, expires, err := s.n.Invite(t)
	if v, verr := s.n.View(); err != nil && verr == nil && v.Admins == 0 {
		return api.InviteResult{}, api.Errorf(api.Forbidden, "invite", "", "%s. Make a new pool (atoll up in another folder, or on another machine), and put the files there", noAdmin(v))
	}
	if err != nil {
		return api.InviteResult{}, identError("invite", err)
	}
	return api.InviteResult{Invite: text, Expires: expires}, nil
}

// identError gives an error of package ident or roster its code.
func identError(op string, err error) error {
	if c := ident.Code(err); c != api.Internal {
		return api.Errorf(c, op, "", "%w", err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
