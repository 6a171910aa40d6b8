package dht

import (
	"errors"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// Members is what the dht needs to know of the roster. The calls are cheap:
// some are made for every request.
type Members interface {
	// Count is the number of members that were ready once and have neither
	// left nor been revoked.
	Count() int
	// Digest is the digest of the whole roster.
	Digest() [32]byte
	// Has reports whether g is a current member.
	Has(g id.GUID) bool
	// Domain is g's failure domain; never empty.
	Domain(g id.GUID) string
	// Nearest are the n counted members nearest to key, by id.CmpDist.
	Nearest(key id.GUID, n int) []id.GUID
	// Elders is Nearest among those of whom all members have heard, since this
	// node has known them for age; wall is the wall clock in Unix ms.
	Elders(key id.GUID, n int, now machine.Time, wall int64, age machine.Duration) []id.GUID
	// Handle is the last known handle of g; nil if it was never seen.
	Handle(g id.GUID) *id.Handle
	// OwnerOK reports whether a valid certificate of the pool names owner.
	OwnerOK(owner [32]byte) bool
}

// Config is what a Node is made of. Times are in machine.Duration (µs).
type Config struct {
	Self   *id.Handle
	Pool   [32]byte
	K      int      // copies of a block: 3; 5 across WAN (PAST)
	Sign   Signer   // with the node's key
	Verify Verifier // any key
	Seed   uint64   // of choices and jitter
	Usage  func() store.Usage

	// RosterDiffers, if set, is called when a peer's request carries another
	// roster digest than ours; it starts an exchange of rosters.
	RosterDiffers func(now machine.Time, peer *id.Handle, out []machine.Effect) []machine.Effect

	// BadInput, if set, is told of what no honest node sends; whoever does is shut
	// out where messages enter the node (20-dht §10).
	BadInput func(peer id.GUID, what string)

	Grace machine.Duration // how long a lost copy may come back before it is replaced: 15 min (Carbonite)
	Elder machine.Duration // membership after which every member is taken to know of it: 30 min; see anchor
	Round machine.Duration // anti-entropy of each pair: 10 min ± 20 %
	Tick  machine.Duration // how often pending repair is looked at: 1 s

	OpDeadline    machine.Duration // a command: 30 s
	LocateTimeout machine.Duration // a routed Locate, before it is repeated: 2 s
	ClientTimeout machine.Duration // silence of a coordinator before the next one is asked: 3 s at least
	GetTimeout    machine.Duration // silence of a holder before the next one is asked: 1 s at least
	HedgeFloor    machine.Duration // a second read after the peer's p95, but not before: 50 ms
	AckFloor      machine.Duration // RTO of a CopyAck, floor: 200 ms
	SyncTimeout   machine.Duration // a question of anti-entropy, before it is repeated: 1 s
	ScrubPeriod   machine.Duration // every block is re-read within: 7 days
	StatusTimeout machine.Duration // Survey waits for answers: 2 s

	RepairFloor int64 // bytes per second repair may always use: 1 MiB/s
	RepairShare int   // percent of the measured link repair may use: 25
	RepairSlots int   // copies under way at once: 8

	MaxOps   int   // commands and requests under way: 4,096
	MaxBytes int64 // block bytes held by requests under way: 64 MiB

	Bugs Bugs
}

// Bugs plants known bugs, for the simulator to prove its checkers with
// (60-reliability §1). All false in every preset.
type Bugs struct {
	AckBeforeFsync      bool // a replica acknowledges a copy before it is durable
	AckAtWMinusOne      bool // the coordinator answers one receipt early, and the client lets it pass
	DropStandIn         bool // a copy outside the set is dropped without asking whether the set has it
	DeleteOnReturn      bool // when a holder returns, surplus goes before the copies are confirmed
	AbsentWhileUnsynced bool // an entering node says "absent"
	HaveIsAck           bool // a known block is acknowledged because one node has it
	ForgetTombstones    bool // tombstones are not restored at start
	IgnoreClaim         bool // a remove ends every claim on the block
	PushAfterAbsence    bool // what a node brings that missed a removal is stored all the same
	StampReversed       bool // a tombstone covers the claims with later stamps
	CASAtCoordinator    bool // replicas do not check cas and seq
	NoWriteBack         bool // a signed read answers without writing back
	UnsyncedInQuorum    bool // an entering node counts in signed quorums
	NoRepair            bool // missing copies are never made again
}

// LAN is the default preset.
func LAN() Config {
	return Config{
		K:             3,
		Grace:         15 * machine.Minute,
		Elder:         30 * machine.Minute,
		Round:         10 * machine.Minute,
		Tick:          machine.Second,
		OpDeadline:    30 * machine.Second,
		LocateTimeout: 2 * machine.Second,
		ClientTimeout: 3 * machine.Second,
		GetTimeout:    machine.Second,
		HedgeFloor:    50 * machine.Millisecond,
		AckFloor:      200 * machine.Millisecond,
		SyncTimeout:   machine.Second,
		ScrubPeriod:   7 * 24 * machine.Hour,
		StatusTimeout: 2 * machine.Second,
		RepairFloor:   1 << 20,
		RepairShare:   25,
		RepairSlots:   8,
		MaxOps:        4096,
		MaxBytes:      64 << 20,
	}
}

// Local is for the demo: eight nodes on one computer that lose two of theirs
// before one's eyes.
func Local() Config {
	c := LAN()
	c.Grace = machine.Second
	c.Round = 5 * machine.Second
	c.Tick = 200 * machine.Millisecond
	return c
}

// Sim is for the simulator: the times of LAN with a grace of a minute, so that
// an hour of virtual time shows repair and scrub, and small bounds.
func Sim() Config {
	c := LAN()
	c.Grace = machine.Minute
	c.Elder = 4 * machine.Minute // longer than a split lasts there, and clocks differ
	c.Round = 2 * machine.Minute
	c.ScrubPeriod = 5 * machine.Minute
	c.MaxOps = 512
	return c
}

// Validate returns the first fault.
func (c *Config) Validate() error {
	switch {
	case c.Self == nil:
		return errors.New("dht: no handle of the own node")
	case c.K < 1 || c.K > MaxReplicas:
		return errors.New("dht: K must be 1 to 8")
	case c.Sign == nil || c.Verify == nil || c.Usage == nil:
		return errors.New("dht: Sign, Verify and Usage must be set")
	case c.Grace < 0 || c.Elder < 0 || c.Round <= 0 || c.Tick <= 0 || c.OpDeadline <= 0 || c.LocateTimeout <= 0 ||
		c.ClientTimeout <= 0 || c.GetTimeout <= 0 || c.HedgeFloor <= 0 || c.AckFloor <= 0 ||
		c.SyncTimeout <= 0 || c.ScrubPeriod <= 0 || c.StatusTimeout <= 0:
		return errors.New("dht: every time but Grace and Elder must be above 0")
	case c.RepairFloor <= 0 || c.RepairShare < 0 || c.RepairShare > 100 || c.RepairSlots < 1:
		return errors.New("dht: repair needs a floor above 0, a share of 0 to 100 percent and a slot")
	case c.MaxOps < 16 || c.MaxBytes < 4<<20:
		return errors.New("dht: MaxOps is at least 16, MaxBytes at least 4 MiB")
	}
	return nil
}

// quorum is W: ⌈(k+1)/2⌉ (20-dht §2).
func quorum(k int) int { return (k + 2) / 2 }
