// Package files turns files into trees of sealed blocks and back: put, get,
// stat, verify, repair, remove, the catalogue of one's own files, and the
// journals that let a transfer go on after an interruption. It is ordinary
// blocking Go over one small interface, Blocks.
//
// The tree is CFS's and Tahoe-LAFS's idea: data blocks named by their hash,
// manifests that list 512 children each, one root. 20-dht §5 gives the
// formats, package seal makes and opens them.
//
// A put runs as a pipeline of bounded stages:
//
//	read ─► seal ×2 ─► journal, Head ─► Put ×16 ─► collect: acknowledge, fold 512 into a manifest
//
// and ends with root, catalogue entry (synced), journal gone. A get walks the
// manifests ahead of 16 fetches and writes what it has verified: in order to a
// writer, anywhere to a file.
//
// Memory: at most Window blocks in transfer and half as many staged, whatever
// the size of the file; of many files at once not much more, see share. A resumed
// put also keeps some 100 bytes for each chunk acknowledged before, and one that
// compares some 100 for every chunk.
package files

import (
	"context"

	"atoll.example/atoll/internal/id"
)

// MaxBatch is the most GUIDs of one Head or Audit.
const MaxBatch = 256

// PutOptions of a block: zero values mean the pool's k and its W.
type PutOptions struct {
	K, W int
	// Known: the pool seems to have the block. Only the claim need travel,
	// and the bytes where they are asked for.
	Known bool
}

// Copies is what a put of a block reached.
type Copies struct {
	Min    int  // copies acknowledged
	Target int  // copies there should be
	Known  bool // the pool had the block before
}

// Presence is what Head tells of a block.
type Presence struct {
	Copies int // 0: absent, or not known to be there
	Target int
	Size   uint32
}

// Audit is the state of one block's copies.
type Audit struct {
	GUID     id.GUID
	Valid    int // after repair, if that was asked for
	Corrupt  int // found wrong; they are not among Valid
	Missing  int // copies short of the target, after repair
	Repaired int
	Bad      []id.GUID // members with the corrupt ones
}

// Blocks is the store of content blocks that a pool offers. Its methods are
// safe for concurrent use, and return early when ctx is done.
//
// Errors may have Code() string in their chain, as 20-dht §8 lists them.
// "full" and "claims" make a put re-encode the block, "claims" naming nodes if
// they took it all the same; "busy", "unavailable" and "deadline"
// are tried again (AfterMS() int64 in the chain says when), unless Removed() bool
// says that all within reach know the block for removed; others end the transfer.
type Blocks interface {
	// Put stores block under g, its hash, for a reason named claim, and
	// returns when the write quorum has synced it. The bytes are given always,
	// with opt.Known as well: the certificate states their size, and the pool
	// may have lost them. The implementation may keep block for ever: it is
	// never changed.
	Put(ctx context.Context, g id.GUID, block []byte, claim [16]byte, opt PutOptions) (Copies, error)
	// Get returns the bytes named g, whose hash it has checked. They may be
	// shared: the caller does not change them.
	Get(ctx context.Context, g id.GUID) ([]byte, error)
	// Head tells of at most MaxBatch blocks, in the order asked.
	Head(ctx context.Context, gs []id.GUID) ([]Presence, error)
	// Remove ends the claim; the bytes go with the last one. Removing what is
	// not there is no error.
	Remove(ctx context.Context, g id.GUID, claim [16]byte) (keptByOthers bool, err error)
	// Audit checks the copies of at most MaxBatch blocks, in the order asked.
	// deep makes the holders prove their bytes; repair restores what can be.
	Audit(ctx context.Context, gs []id.GUID, deep, repair bool) ([]Audit, error)
}
