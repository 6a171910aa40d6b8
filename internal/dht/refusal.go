package dht

import (
	"fmt"

	"atoll.example/atoll/internal/id"
)

// Codes of a Refusal (20-dht §3 and §8).
const (
	CodeFull         = "full"
	CodeQuota        = "quota"
	CodeNotMember    = "not_member"
	CodeBadName      = "bad_name"
	CodeBadSig       = "bad_sig"
	CodeStaleSeq     = "stale_seq"
	CodeCAS          = "cas"
	CodeRemoved      = "removed"
	CodeClock        = "clock"
	CodeBusy         = "busy"
	CodeNoQuorum     = "no_quorum"
	CodeNotReplica   = "not_replica"
	CodeUnsynced     = "unsynced"
	CodeNotFound     = "not_found"
	CodeUnavailable  = "unavailable"
	CodeDeadline     = "deadline"
	CodeEquivocation = "equivocation"
	CodeBadRequest   = "bad_request"
	CodeClaims       = "claims" // the owner has MaxPerOwner claims on the block
)

// code is a Refusal's code on the wire.
type code uint8

const (
	codeFull code = iota + 1
	codeQuota
	codeNotMember
	codeBadName
	codeBadSig
	codeStaleSeq
	codeCAS
	codeRemoved
	codeClock
	codeBusy
	codeNoQuorum
	codeNotReplica
	codeUnsynced
	codeClaims
	codeEnd
)

var codeNames = [...]string{
	"", CodeFull, CodeQuota, CodeNotMember, CodeBadName, CodeBadSig, CodeStaleSeq, CodeCAS,
	CodeRemoved, CodeClock, CodeBusy, CodeNoQuorum, CodeNotReplica, CodeUnsynced, CodeClaims,
}

func (c code) String() string { return codeNames[c] }

// Refusal is the error of a command that did not succeed.
type Refusal struct {
	Code     string
	AfterMS  int64     // busy: when to ask again
	Nodes    []id.GUID // no_quorum, unavailable: who was silent; full: the fullest; claims: who may have taken it all the same
	Stamp    uint64    // removed: the tombstone's stamp; clock: the replica's; stale_seq, cas: the stored seq
	Detail   string
	Removed  bool      // unavailable: those within reach know that it was removed
	Receipts []Receipt // no_quorum: what was reached all the same
}

func (r *Refusal) Error() string {
	s := "dht: " + r.Code
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	for i, g := range r.Nodes {
		if i == 0 {
			s += ": "
		} else {
			s += ", "
		}
		s += g.Short()
	}
	if r.AfterMS > 0 {
		s += fmt.Sprintf(" (again after %d ms)", r.AfterMS)
	}
	return s
}

// Is makes errors.Is compare codes.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

// Sentinels for errors.Is.
var (
	ErrNotFound    = &Refusal{Code: CodeNotFound}
	ErrUnavailable = &Refusal{Code: CodeUnavailable}
	ErrNoQuorum    = &Refusal{Code: CodeNoQuorum}
	ErrFull        = &Refusal{Code: CodeFull}
	ErrRemoved     = &Refusal{Code: CodeRemoved}
	ErrBusy        = &Refusal{Code: CodeBusy}
	ErrStaleSeq    = &Refusal{Code: CodeStaleSeq}
	ErrCAS         = &Refusal{Code: CodeCAS}
)
