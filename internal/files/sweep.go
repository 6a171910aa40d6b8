package files

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/id"
)

// SweepAfter is how long an upload may lie untouched (20-dht §5).
const SweepAfter = 7 * 24 * time.Hour

// Swept is what a sweep did.
type Swept struct {
	Uploads int   // that were given up
	Blocks  int64 // whose claims were ended
}

// Sweep removes what puts left behind that were cut short and not taken up
// again for a week: their claims are ended and their journals deleted. Journals
// whose file is in the catalogue are only deleted. An upload whose claims
// cannot all be ended is left for the next sweep, and named in the error.
func (c *Client) Sweep(ctx context.Context) (Swept, error) {
	var s Swept
	var errs []error
	for _, path := range c.journals() {
		if !c.claim(path) {
			continue
		}
		err := c.sweepOne(ctx, path, &s)
		c.unclaim(path)
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep: upload %s: %w", filepath.Base(path), err))
		}
	}
	return s, errors.Join(errs...)
}

func (c *Client) sweepOne(ctx context.Context, path string, s *Swept) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	dead := strings.HasSuffix(path, deadSuffix)
	if !dead && c.cfg.Now().Sub(info.ModTime()) <= SweepAfter {
		return nil
	}
	j, err := readWhole(path)
	if errors.Is(err, errJournal) {
		return os.Remove(path) // not even a head was written: no block went out
	}
	if err != nil {
		return err
	}
	if c.finished(&j) {
		return os.Remove(path)
	}
	blocks, err := c.abandon(ctx, path, &j)
	if err != nil {
		return err
	}
	s.Uploads++
	s.Blocks += blocks
	return nil
}

// abandon ends all claims of an upload and deletes its journal.
func (c *Client) abandon(ctx context.Context, path string, j *contents) (blocks int64, err error) {
	if !strings.HasSuffix(path, deadSuffix) {
		// From now on no put may go on with it: its claims are ending.
		if err := os.Rename(path, path+deadSuffix); err != nil {
			return 0, err
		}
		path += deadSuffix
		if err := syncDir(c.uploads); err != nil {
			return 0, err
		}
	}
	gs := slices.SortedFunc(maps.Keys(j.intents), id.GUID.Cmp)
	if _, err := c.endClaims(ctx, newWindow(c.cfg.Window), nil, gs, j.head.Claim); err != nil {
		return 0, err
	}
	return int64(len(gs)), os.Remove(path)
}

// final reports whether a put that failed with err would fail again: then it is of
// no use to keep what it has stored.
func final(err error) bool {
	switch Code(err) {
	case codeFull, codeQuota, codeClaims, codeChanged:
		return true
	}
	return false
}

// giveBackTime bounds how long a put that was refused gives back what it had
// stored. What is left is the next Sweep's. Chosen by us: some thousand blocks.
const giveBackTime = 20 * time.Second

// giveBack abandons an upload that was refused for good, and adds to err what
// became of its blocks.
func (c *Client) giveBack(ctx context.Context, path string, err error) error {
	ctx, cancel := context.WithTimeout(ctx, giveBackTime)
	defer cancel()
	j, gerr := readWhole(path)
	if errors.Is(gerr, os.ErrNotExist) {
		return err // nothing went out
	}
	if gerr == nil {
		dead := path + deadSuffix
		c.claim(dead) // nobody else's: the journal was ours
		defer c.unclaim(dead)
		_, gerr = c.abandon(ctx, path, &j)
	}
	if gerr != nil {
		return fmt.Errorf("%w; what had been stored is given back later", err)
	}
	return fmt.Errorf("%w; what had been stored has been given back", err)
}

// deadSuffix marks journals whose claims are being ended.
const deadSuffix = ".dead"

// finished reports whether the file that a journal belongs to is in the
// catalogue: its root is among the intents.
func (c *Client) finished(j *contents) bool {
	for g := range j.intents {
		if _, ok := c.catalogue.Get(g); ok {
			return true
		}
	}
	return false
}

// dropFinished removes the journals of files that were completed just before
// the process ended. A put must not go on with one: its file may be removed
// meanwhile, and its acknowledgements with it.
func (c *Client) dropFinished() error {
	for _, path := range c.journals() {
		j, err := readWhole(path)
		if err != nil || !c.finished(&j) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// dropClaim removes the journal of a file that is being removed, for the same
// reason.
func (c *Client) dropClaim(claim [16]byte) error {
	for _, path := range c.journals() {
		h, err := readHead(path)
		if err != nil || h.Claim != claim || strings.HasSuffix(path, deadSuffix) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func readWhole(path string) (contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return contents{}, err
	}
	defer func() { _ = f.Close() }()
	return readJournal(f, false, true)
}

// journals lists the paths of all journals.
func (c *Client) journals() []string {
	names, err := os.ReadDir(c.uploads)
	if err != nil {
		return nil
	}
	paths := make([]string, 0, len(names))
	for _, n := range names {
		if n.Type().IsRegular() {
			paths = append(paths, filepath.Join(c.uploads, n.Name()))
		}
	}
	return paths
}

func readHead(path string) (journalHead, error) {
	f, err := os.Open(path)
	if err != nil {
		return journalHead{}, err
	}
	defer func() { _ = f.Close() }()
	j, err := readJournal(f, true, false)
	return j.head, err
}
