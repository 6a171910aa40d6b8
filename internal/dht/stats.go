package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

// Stats counts since the start. Sizes are bytes of blocks.
type Stats struct {
	Puts, Gets, Removes, SignedPuts, SignedGets int64 // commands that succeeded

	Stored, StoredBytes int64 // copies taken in
	Served, ServedBytes int64 // Gets answered with bytes
	Repairs             int64 // copies sent because one was missing
	RepairBytes         int64
	Migrations          int64 // of these: for a newcomer, while k copies existed
	Fetched             int64 // copies this node asked for itself
	Surplus             int64 // copies dropped because k members of the set had theirs
	StandIns            int64
	Diverted            int64
	Hedges              int64
	WrongBytes          int64
	Locates             int64
	LocateDrops         int64
	RosterWaits         int64
	WriteBacks          int64
	Forks               int64 // signed blocks found with two records of one seq
	Scrubbed            int64
	Corrupt             int64 // blocks found bad on this disk
	SyncRounds          int64 // pairwise comparisons finished
	SyncItems           int64 // items named in them: what digests did not spare
	Strikes             int64 // bad inputs
	Dropped             int64 // because a queue was full
	Refused             Refused

	RepairQueued int64 // now
	LinkRate     int64 // bytes per second, measured
	Blocks       int64 // copies on this disk now
	Entries      int64 // GUIDs remembered now
	Unsynced     int64 // arcs not yet entered now
}

// Refused counts refusals by code.
type Refused struct {
	Full, Busy, NoQuorum, NotFound, Unavailable, Removed, StaleSeq, CAS, BadInput, Other int64
}

func (s *Stats) refused(code string) {
	r := &s.Refused
	switch code {
	case CodeFull, CodeQuota:
		r.Full++
	case CodeBusy:
		r.Busy++
	case CodeNoQuorum:
		r.NoQuorum++
	case CodeNotFound:
		r.NotFound++
	case CodeUnavailable:
		r.Unavailable++
	case CodeRemoved:
		r.Removed++
	case CodeStaleSeq:
		r.StaleSeq++
	case CodeCAS:
		r.CAS++
	case CodeBadName, CodeBadSig, CodeNotMember:
		r.BadInput++
	default:
		r.Other++
	}
}

// Stats returns the counters.
func (n *Node) Stats() Stats {
	s := n.stats
	s.RepairQueued = int64(n.repair.queued())
	s.LinkRate = n.rate
	s.Entries = int64(n.tree.len())
	s.Blocks = n.cfg.Usage().Blocks
	for _, a := range n.arcs {
		if a.mine() && !a.synced {
			s.Unsynced++
		}
	}
	return s
}

// MemberSurvey is what one member says of the arcs it leads.
type MemberSurvey struct {
	Member       id.GUID
	Blocks       int64 // blocks on arcs it leads
	Full         int64 // with as many copies as the pool keeps
	Degraded     int64 // fewer, but a write quorum
	BelowW       int64 // fewer still
	Lost         int64 // known by name only: every copy is away
	RepairQueued int64
	RepairBytes  int64 // sent since it started
	RepairRate   int64 // bytes per second it may use for repair
	Unsynced     bool  // it is still learning what it should hold; the counts may rise
	Usage        store.Usage
}

// Survey answers SurveyCmd: the state of the whole pool, as far as members
// answered within 2 s.
type Survey struct {
	Total   MemberSurvey // sums; Usage summed too
	Members []MemberSurvey
	Silent  []id.GUID
}

// SurveyCmd asks every member for its survey; with Without set, as it would be
// if that member's copies were gone.
type SurveyCmd struct{ Without id.GUID }

// DrainCmd hands everything over before leaving: it is answered when k others
// hold each block this node has. Progress comes as notes (DrainProgress).
type DrainCmd struct{}

// DrainProgress is the note of a drain.
type DrainProgress struct{ Blocks, HandedOver int64 }

// DrainDone answers DrainCmd.
type DrainDone struct{ HandedOver int64 }

// RemoveCmd ends a claim. Refused it is not_found where there is no such block,
// removed or not: no tombstone is kept of what never was.
type RemoveCmd struct{ Rec Remove }

// RemoveDone answers RemoveCmd: W receipts of members that have the tombstone
// on disk.
type RemoveDone struct {
	Receipts     []Receipt
	KeptByOthers bool
}

// PutSignedCmd writes a version of a signed block. With CAS, only if the
// stored seq is *CAS (0: absent).
type PutSignedCmd struct {
	Rec Signed
	CAS *uint64
	W   int // no smaller than the rule's; 0: the rule's
}

// GetSignedCmd reads a signed block: the highest version of a read quorum, or
// with Any the first valid one of at least MinSeq. The answer is a *Signed; if
// two records of its seq exist, it comes with CodeEquivocation as the error.
type GetSignedCmd struct {
	GUID   id.GUID
	Any    bool
	MinSeq uint64
}

// AuditCmd examines copies: that they are there, and with Deep that each
// holder can prove to have the bytes. Repair restores what is missing.
type AuditCmd struct {
	GUIDs  []id.GUID
	Deep   bool
	Repair bool
}

// Audit is the answer for one block, in a []Audit.
type Audit struct {
	GUID     id.GUID
	Valid    int
	Corrupt  int
	Missing  int
	Repaired int
	Target   int
	Bad      []id.GUID // holders whose copy failed its proof: failing disks, or liars
}
