package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// PutRequest says what to put, and how.
type PutRequest struct {
	// Path of a regular file; or Source, a stream. One of them. If the put
	// fails or ctx ends while a Read of Source waits for input, Source's
	// SetReadDeadline, or else its Close, is called, if it has one; PutFile
	// returns when the Read has.
	Path   string
	Source io.Reader
	// Size of Source as announced: another number of bytes is ErrChanged.
	// 0 or less: not known.
	Size int64
	// Mode and ModTime of a Source; zero: 0644, now. Paths have their own.
	Mode    os.FileMode
	ModTime time.Time
	// ResumeKey tells that a Source is the same as in an earlier put that was
	// cut short; its claim and acknowledgements are used again. Empty: none;
	// then blocks that the pool has are found by asking. At most 1 KiB.
	ResumeKey string

	Name     string // kept in the file; empty: the last element of Path
	Unique   bool   // sealed with a fresh secret: shares no block with other files
	Clear    bool   // not sealed at all
	K, W     int    // copies, and copies to wait for; 0: the pool's
	NoResume bool   // leave journals of earlier puts alone

	Progress func(Progress) // called from one goroutine, ≤ 4 times a second; may be nil
}

// Result is what a put stored.
type Result struct {
	Link       seal.Link // reads
	VerifyLink seal.Link // verifies and repairs; the same as Link for clear files
	GUID       id.GUID   // of the root
	Name       string
	Size       int64
	Blocks     int64 // stored for this file, manifests included
	NewBlocks  int64 // of them not in the pool before this try
	Holes      int64 // chunks of zeros, not stored
	Resumed    int64 // blocks that an earlier put had stored
	Copies     Copies
}

// PutFile stores a file. When it returns without error, every block is on as
// many disks as the write quorum asks for, and the file is in the catalogue.
// When ctx ends it, or the pool cannot be reached, its journal stays: the same put
// goes on from there, and one that never comes is cleaned up by Sweep. One that is
// refused for good (full, quota, claims, changed) gives back what it has stored, as its
// error says.
func (c *Client) PutFile(ctx context.Context, r PutRequest) (Result, error) {
	src, err := c.openSource(&r)
	if err != nil {
		return Result{}, fmt.Errorf("put: %w", err)
	}
	defer func() { _ = src.close() }()
	res, err := c.put(ctx, &r, src)
	if err != nil {
		return Result{}, fmt.Errorf("put: %w", err)
	}
	return res, nil
}

func (c *Client) put(ctx context.Context, r *PutRequest, src *source) (res Result, err error) {
	if r.K < 0 || r.K > 8 || r.W < 0 || r.W > 8 || r.K > 0 && r.W > r.K {
		return res, wrap(codeBadRequest, fmt.Errorf("k %d and w %d: want 0 ≤ w ≤ k ≤ 8", r.K, r.W))
	}
	if src.size > int64(seal.Span(seal.MaxLevel+1, uint32(c.cfg.ChunkSize))) {
		return res, ErrTooLarge
	}
	j, err := c.journalFor(ctx, r, src)
	if err != nil {
		return res, err
	}
	defer c.unclaim(j.path)
	u := &upload{
		c: c, src: src, journal: j, window: newWindow(c.cfg.Window), opt: PutOptions{K: r.K, W: r.W},
		meter: newMeter("sending", src.size, r.Progress), recent: newRecent(), share: c.newShare(), res: Result{Name: src.name},
	}
	defer u.share.close()
	defer u.meter.close()
	u.tree.put = u.putManifest
	root, err := u.run(ctx)
	if err == nil {
		u.meter.phase("finishing")
		e := Entry{Name: src.name, Link: root, Size: u.res.Size, PutAt: c.cfg.Now()}
		err = c.catalogue.Add(e)
	}
	if err != nil {
		if kept := j.keep(); kept != nil || ctx.Err() != nil || !final(err) {
			return res, errors.Join(err, kept)
		}
		return res, c.giveBack(ctx, j.path, err)
	}
	u.endDiverted(ctx)
	// The file is safe and listed. A journal that cannot be removed now is
	// when the client is next opened.
	_ = j.discard()
	u.res.Link, u.res.VerifyLink, u.res.GUID = root, root.ForVerify(), root.Root
	return u.res, nil
}

// journalFor finds the journal to go on with, or starts one. It is claimed.
func (c *Client) journalFor(ctx context.Context, r *PutRequest, src *source) (*journal, error) {
	h := journalHead{
		Source: src.id, Pool: c.cfg.Pool, Unique: r.Unique && !r.Clear, Clear: r.Clear, Secret: c.cfg.Secret.ID(),
		K: uint8(r.K), W: uint8(r.W), Chunk: uint32(c.cfg.ChunkSize), Name: src.name, Created: c.cfg.Now().UnixMilli(),
	}
	if !r.NoResume && !src.id.isZero() {
		j, err := c.awaitJournal(ctx, h)
		if j != nil || err != nil {
			return j, err
		}
	}
	if _, err := io.ReadFull(c.cfg.Random, h.Claim[:]); err != nil {
		return nil, err
	}
	if h.Unique {
		var err error
		if h.Own, err = seal.NewSecret(c.cfg.Random); err != nil {
			return nil, err
		}
	}
	j, err := createJournal(c.uploads, c.cfg.Random, h)
	if err != nil {
		return nil, err
	}
	if !c.claim(j.path) {
		panic("files: a new journal is in use: " + j.path)
	}
	return j, nil
}

// awaitJournal returns the claimed journal of an earlier put like h, or nil. One
// that is in use is waited for, as a part is by takePart: the put that was
// interrupted a moment ago may still be ending.
func (c *Client) awaitJournal(ctx context.Context, h journalHead) (*journal, error) {
	for start := time.Now(); ; {
		j, busy := c.findJournal(h)
		if j != nil || !busy || time.Since(start) > partPatience {
			return j, nil
		}
		select {
		case <-time.After(partPatience / 20):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// findJournal returns the claimed journal of an earlier put like h, or nil; busy
// reports that another put has claimed such a one.
func (c *Client) findJournal(h journalHead) (j *journal, busy bool) {
	for _, path := range c.journals() {
		if strings.HasSuffix(path, deadSuffix) {
			continue
		}
		head, err := readHead(path)
		if err != nil || !h.sameUpload(head) {
			continue
		}
		if !c.claim(path) {
			busy = true
			continue
		}
		if j, err := resumeJournal(path); err == nil {
			return j, false
		}
		c.unclaim(path)
	}
	return nil, busy
}

// sealer returns a sealer for this upload; each goroutine needs its own.
func (u *upload) sealer() *seal.Sealer {
	switch h := u.journal.head; {
	case h.Clear:
		return seal.NewClearSealer()
	case h.Unique:
		return seal.NewSealer(h.Own)
	}
	return seal.NewSealer(u.c.cfg.Secret)
}
