package diskstore

import (
	"fmt"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Numbers of our own.
const (
	// DefaultThreshold is the value size in bytes from which a block lives in
	// a file of its own. By BenchmarkThreshold segments are faster up to 128 KiB,
	// files from 512 KiB up; at 256 KiB they are within a tenth of each other,
	// and a file that is deleted leaves no garbage to be collected.
	DefaultThreshold = 256 << 10

	// DefaultMemTable in bytes: 64 MiB memtables kept 282 MiB of log around
	// 31 MiB of data (20-dht §6).
	DefaultMemTable = 8 << 20

	// DefaultCache in bytes: it must hold the filters and indexes of Pebble's
	// tables, which every put asks. With 8 MiB they were read again and again.
	DefaultCache = 32 << 20

	// Tag bounds: the first bytes of a pool id, enough to tell pools apart.
	minTag, maxTag = 4, 8
)

// Options of Open. The zero value of each field but Pool is usable.
type Options struct {
	// Limit is what the store may take, in bytes, at least store.MinLimit.
	// 0 means what was granted last; at the first start 80 % of what is free
	// on the file system. A limit given is remembered.
	Limit int64
	// Pool is an opaque tag of 4 to 8 bytes that every value carries. A store
	// of another pool is refused.
	Pool []byte
	// AcceptFailed opens a store that stopped after a disk error. The caller
	// then reads every record back before it trusts any, and calls Accept.
	AcceptFailed bool
	// FS is the file system; nil means the operating system's.
	FS vfs.FS
	// Threshold in bytes: blocks of at least this size get a file each,
	// those from 1 KiB up a place in a segment.
	// 0 means DefaultThreshold.
	Threshold int
	// MemTable in bytes; 0 means DefaultMemTable.
	MemTable int
	// Cache of uncompressed table blocks in bytes; 0 means DefaultCache.
	Cache int64

	planted planted
	// alone is the size in bytes up to which a block that is alone in its group
	// goes into Pebble; 0 means aloneBytes. Tests set -1: none does.
	alone int
	// segment is the length in bytes at which a segment is closed; 0 means
	// segmentBytes. Tests have short ones.
	segment int64
	// compactAgain is the least time between two attempts to empty a segment;
	// 0 means compactAgain of compact.go.
	compactAgain time.Duration
	// reviveEvery is the least time between two attempts to go on after the
	// disk was full; 0 means reviveEvery of revive.go. Tests do not wait.
	reviveEvery time.Duration
}

// planted are bugs that the crash suite must find (60-reliability §1). No code
// outside the package's tests can set them.
type planted struct {
	ackUnsynced     bool // answer before the log is synced
	skipDirSync     bool // no directory fsync after a block file is made
	recordFirst     bool // record committed before its file is synced
	ignoreSyncError bool // go on after an fsync error
	segmentUnsynced bool // record committed before its segment is synced
	segmentUnnamed  bool // no directory fsync after a segment is made
	dropEarly       bool // emptied segments deleted before that is durable
}

// Validate returns the first fault.
func (o *Options) Validate() error {
	if n := len(o.Pool); n < minTag || n > maxTag {
		return fmt.Errorf("diskstore: pool tag of %d bytes, want %d to %d", n, minTag, maxTag)
	}
	if o.Limit != 0 {
		if err := store.CheckLimit(o.Limit); err != nil {
			return err
		}
	}
	if o.Threshold < 0 || o.MemTable < 0 || o.Cache < 0 {
		return fmt.Errorf("diskstore: threshold %d, memtable %d and cache %d must not be negative", o.Threshold, o.MemTable, o.Cache)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Threshold == 0 {
		o.Threshold = DefaultThreshold
	}
	if o.MemTable == 0 {
		o.MemTable = DefaultMemTable
	}
	if o.Cache == 0 {
		o.Cache = DefaultCache
	}
	if o.alone == 0 {
		o.alone = aloneBytes
	}
	if o.segment == 0 {
		o.segment = segmentBytes
	}
	if o.compactAgain == 0 {
		o.compactAgain = compactAgain
	}
	if o.reviveEvery == 0 {
		o.reviveEvery = reviveEvery
	}
	return o
}
