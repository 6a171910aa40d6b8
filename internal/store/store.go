// Package store is the port between a node and its disk: small records and
// blocks under (family, GUID, sub-key), written in atomic batches that are
// durable when Apply returns. store/diskstore implements it with Pebble and
// files, store/memstore in memory; storetest is the suite both pass.
package store

import (
	"context"
	"errors"

	"atoll.example/atoll/internal/id"
)

// Errors of a Store.
var (
	ErrNotFound = errors.New("not in this store")
	ErrCorrupt  = errors.New("stored bytes fail their checksum")
	ErrFull     = errors.New("store full")
	ErrFailed   = errors.New("store stopped after a disk error") // after the first fsync error: final
	ErrInUse    = errors.New("store is in use by another process")
	ErrFormat   = errors.New("not a store of this version")
	ErrClosed   = errors.New("store closed")
)

// Family is the first byte of a key: what kind of record it names (20-dht §6).
type Family byte

const (
	Head      Family = 'h' // GUID → what is known of a block: kind, size, role
	Block     Family = 'b' // GUID → bytes of a content block; large ones live in files
	Claim     Family = 'c' // GUID, owner ‖ claim → StoreCert
	Tombstone Family = 't' // GUID, owner ‖ claim → Remove
	Signed    Family = 's' // GUID → Signed record
	Holder    Family = 'p' // GUID, node → pointer to a copy outside the set
	Meta      Family = 'm' // zero GUID, name → small state of the node
)

// MaxSub bounds the sub-key in bytes: owner 32 ‖ claim 16.
const MaxSub = 48

// MaxValue bounds a value in bytes: a content block and its header.
const MaxValue = 1<<20 + 64

// Key names a record.
type Key struct {
	Family Family
	GUID   id.GUID
	Sub    string
}

// Op sets a record, or deletes it if Delete is set. Deleting what is absent is
// no error.
type Op struct {
	Key    Key
	Value  []byte // not changed by anybody once in an Op
	Delete bool
	// Named says that the caller has found the GUID to be the BLAKE3 of Value,
	// so that a store which keeps that as its checksum need not hash the
	// value again. If it is not, the value is as good as damaged.
	Named bool
}

// Batch is applied whole or not at all.
type Batch struct {
	Ops []Op
	// Urgent batches may use the reserve: tombstones, deletions, compaction.
	Urgent bool
}

// Usage is what a store holds and may hold, in bytes.
type Usage struct {
	Limit   int64 // what the operator granted
	Used    int64
	Reserve int64 // kept for compaction and tombstones
	Free    int64 // min(Limit − Used, file system free) − Reserve, at least 0
	Blocks  int64 // number of Block records
}

// Store is safe for concurrent use.
type Store interface {
	// Apply makes the batch durable: nil means synced. ErrFull: nothing was
	// written. After ErrFailed every later call fails likewise.
	Apply(ctx context.Context, b Batch) error
	// Get returns a value that passed its checksum, in a slice of its own.
	Get(ctx context.Context, k Key) ([]byte, error)
	// Range calls f for the records of a family in order of (GUID, Sub), for
	// GUIDs in [lo, hi], until f returns false. For Block, value is nil. The
	// slice is valid during the call only.
	Range(ctx context.Context, fam Family, lo, hi id.GUID, f func(k Key, value []byte) bool) error
	// Usage is cheap; it may be called on every put.
	Usage() Usage
	// Failed is closed when the store has stopped after a disk error.
	Failed() <-chan struct{}
	Close() error
}
