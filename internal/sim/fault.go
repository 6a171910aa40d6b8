package sim

import "sort"

// Fault is a kind of injected fault (60-reliability §2).
type Fault int

const (
	FaultLoss Fault = iota
	FaultDuplicate
	FaultReorder
	FaultSpike
	FaultCorrupt
	FaultSlowLink
	FaultPartition // messages stopped by a partition
	FaultSplit     // partitions begun, symmetric
	FaultOneWay    // partitions begun, one-way
	FaultFreeze
	FaultSkew
	FaultWallJump
	FaultDrift
	FaultCrash
	FaultCrashInStep
	FaultRestart
	FaultTableLost
	FaultTableStale
	FaultTableTorn
	FaultLeave
	FaultJoin
	FaultMassKill
	FaultUnsyncedLost // batches lost at a crash
	FaultUnsyncedKept // batches not acknowledged, yet on the disk after a crash
	FaultDiskSlow
	FaultFsync
	FaultTorn
	FaultFull
	FaultBitRot
	FaultDestroyed // a node is gone for ever, with its disk
	FaultAmnesia   // a node returns with an empty disk
	numFaults
)

var faultNames = [numFaults]string{
	"loss", "duplicate", "reorder", "delay_spike", "corrupt", "slow_link",
	"partition_drop", "partition", "partition_one_way",
	"freeze", "clock_skew", "clock_jump", "clock_drift",
	"crash", "crash_between_effects", "restart", "table_lost", "table_stale", "table_torn",
	"leave", "join", "mass_kill",
	"unsynced_lost", "unsynced_kept", "disk_slow", "fsync_error", "torn_write", "disk_full", "bit_rot", "destroyed", "amnesia",
}

func (f Fault) String() string { return faultNames[f] }

// FaultCounts counts injections by kind.
type FaultCounts [numFaults]uint64

// Add counts one.
func (c *FaultCounts) Add(f Fault) { c[f]++ }

// Merge adds the counts of another run.
func (c *FaultCounts) Merge(d *FaultCounts) {
	for i := range c {
		c[i] += d[i]
	}
}

// Map names the kinds that were injected at least once.
func (c *FaultCounts) Map() map[string]uint64 {
	m := make(map[string]uint64)
	for i, v := range c {
		if v > 0 {
			m[Fault(i).String()] = v
		}
	}
	return m
}

// sortedNames lists the keys of a map by name, for printing.
func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	sort.Strings(names)
	return names
}
