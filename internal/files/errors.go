package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// Coded is an error with a code of 20-dht §8.
type Coded interface{ Code() string }

// Codes that this package gives or looks for.
const (
	codeBadLink     = "bad_link"
	codeBadRequest  = "bad_request"
	codeWrongPool   = "wrong_pool"
	codeNotFound    = "not_found"
	codeRemoved     = "removed"
	codeBusy        = "busy"
	codeUnavailable = "unavailable"
	codeDeadline    = "deadline"
	codeForbidden   = "forbidden"
	codeChanged     = "changed"
	codeExists      = "exists"
	codeFull        = "full"
	codeQuota       = "quota"
	codeClaims      = "claims"
	codeCorrupt     = "corrupt"
	codeDiskFailed  = "disk_failed"
)

// Error is a cause with a code. The sentinels below are of this type; others
// wrap what a block or disk said.
type Error struct {
	code string
	text string
	err  error
}

// Code returns the code of 20-dht §8.
func (e *Error) Code() string { return e.code }

func (e *Error) Error() string {
	switch {
	case e.err == nil:
		return e.text
	case e.text == "":
		return e.err.Error()
	}
	return e.text + ": " + e.err.Error()
}

func (e *Error) Unwrap() error { return e.err }

// Causes.
var (
	// ErrChanged: a file changed while it was read.
	ErrChanged = &Error{code: codeChanged, text: "the file changed while it was put"}
	// ErrExists: the output exists and was not to be replaced.
	ErrExists = &Error{code: codeExists, text: "the file exists"}
	// ErrInUse: another transfer writes the same output.
	ErrInUse = &Error{code: codeExists, text: "another get writes this file; wait for its end, or write elsewhere"}
	// ErrClaims: no name of a block is left for another file of this member.
	ErrClaims = &Error{code: codeClaims, text: "as many files of this member as can have this piece have it; remove some of them, or put this one with --unique"}
	// ErrCorrupt: bytes that do not match what the link promises.
	ErrCorrupt = &Error{code: codeCorrupt, text: "the bytes are not those of the link"}
	// ErrForbidden: a verify link where a read link is needed.
	ErrForbidden = &Error{code: codeForbidden, text: "a verify link does not allow this; use the read link"}
	// ErrNotOwner: the file of a link was put by another member.
	ErrNotOwner = &Error{code: codeForbidden, text: "this member has not put the file, and nothing of it was removed: only the member who did can"}
	// ErrName: a name that no file can have.
	ErrName = &Error{code: codeBadRequest, text: "not a file name: one to 255 bytes without slash or NUL"}
	// ErrRange: a range outside the file.
	ErrRange = &Error{code: codeBadRequest, text: "range outside the file"}
	// ErrNotFile: a directory or device.
	ErrNotFile = &Error{code: codeBadRequest, text: "not a regular file"}
	// ErrTooLarge: more than the format can hold.
	ErrTooLarge = &Error{code: codeBadRequest, text: "the file is larger than 128 TiB"}
	// ErrNotFound: no such name in the catalogue.
	ErrNotFound = &Error{code: codeNotFound, text: "no file of this name in the catalogue"}
	// ErrRemoved: the root of a file was removed.
	ErrRemoved = &Error{code: codeRemoved, text: "the file was removed by its owner: its link leads to nothing any more"}
	// ErrClosed: the client was closed.
	ErrClosed = &Error{code: codeUnavailable, text: "the node is closing"}
)

func wrap(code string, err error) error { return &Error{code: code, err: err} }

// corrupt makes err an ErrCorrupt, if it is not one yet.
func corrupt(err error) error {
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// Code returns the code in err's chain, or "" if it has none. Errors of links
// and seals have theirs, too.
func Code(err error) string {
	var c Coded
	switch {
	case err == nil:
		return ""
	case errors.As(err, &c):
		return c.Code()
	case errors.Is(err, seal.ErrBadLink):
		return codeBadLink
	case errors.Is(err, seal.ErrWrongPool):
		return codeWrongPool
	case errors.Is(err, seal.ErrBlock), errors.Is(err, seal.ErrSeal), errors.Is(err, seal.ErrManifest):
		return codeCorrupt
	case errors.Is(err, context.DeadlineExceeded):
		return codeDeadline
	}
	return ""
}

// after is when a refusal says to ask again; 0 if it does not say.
func after(err error) time.Duration {
	var d interface{ AfterMS() int64 }
	if errors.As(err, &d) {
		return time.Duration(d.AfterMS()) * time.Millisecond
	}
	return 0
}

// named are the nodes that a refusal names.
func named(err error) []id.GUID {
	var n interface{ Nodes() []id.GUID }
	if errors.As(err, &n) {
		return n.Nodes()
	}
	return nil
}

// removed reports whether err says that a block was removed, be it only as far as
// those within reach know.
func removed(err error) bool {
	var r interface{ Removed() bool }
	return Code(err) == codeRemoved || errors.As(err, &r) && r.Removed()
}

// AmbiguousError says that several files in the catalogue have a name.
type AmbiguousError struct {
	Name    string
	Entries []Entry // at least 2, oldest first
}

// Code returns "bad_request".
func (e *AmbiguousError) Code() string { return codeBadRequest }

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%d files are named %s; say which one to remove, by the first digits of its GUID or by its link:", len(e.Entries), EscapeName(e.Name))
}

// maxAmbiguous bounds the files that an AmbiguousError lists.
const maxAmbiguous = 16

// Detail has a line for each file: the command that removes it, and as a comment
// what tells it from the others.
func (e *AmbiguousError) Detail() string {
	var lines []string
	for i, f := range e.Entries {
		if i == maxAmbiguous {
			lines = append(lines, fmt.Sprintf("# and %d more: atoll ls --long", len(e.Entries)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("atoll rm %s  # put at %s, %d bytes",
			f.Link.Root.Short(), f.PutAt.Local().Format("2006-01-02 15:04:05"), f.Size))
	}
	return strings.Join(lines, "\n")
}

// FullError says that a block was refused for want of space under each of its
// names.
type FullError struct {
	GUID  id.GUID // first name of the block
	Tries int
	Err   error // the last refusal
	nodes []id.GUID
	texts []string
}

// Code returns "full".
func (e *FullError) Code() string { return codeFull }

// Nodes returns the fullest nodes, as far as the refusals named them.
func (e *FullError) Nodes() []id.GUID { return e.nodes }

func (e *FullError) Unwrap() error { return e.Err }

func (e *FullError) Error() string {
	first := ""
	if len(e.texts) > 0 { // the others name the same disks in another order
		first = ": " + e.texts[0]
	}
	return fmt.Sprintf("the pool is full: block %s was refused under %d names%s; remove files, raise --limit or add members",
		e.GUID.Short(), e.Tries, first)
}

func (e *FullError) add(err error) {
	e.Tries++
	e.Err = err
	if s := err.Error(); !slices.Contains(e.texts, s) {
		e.texts = append(e.texts, s)
	}
	for _, g := range named(err) {
		if !slices.Contains(e.nodes, g) {
			e.nodes = append(e.nodes, g)
		}
	}
}
