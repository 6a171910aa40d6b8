package api

import (
	"time"

	"atoll.example/atoll/internal/id"
)

// Version tells what a node runs.
type Version struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Go      string    `json:"go"`
	Wire    WireRange `json:"wire"`
}

// WireRange is the range of wire versions a node speaks.
type WireRange struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Status is one node's view of its pool.
type Status struct {
	Pool     PoolStatus   `json:"pool"`
	Node     NodeStatus   `json:"node"`
	Members  MemberCount  `json:"members"`
	Safety   Safety       `json:"safety"`
	Repair   RepairStatus `json:"repair"`
	Disk     DiskStatus   `json:"disk"`
	Warnings []string     `json:"warnings"`
}

// PoolStatus names the pool and its parameters.
type PoolStatus struct {
	ID      id.GUID `json:"id"`
	Name    string  `json:"name"`
	K       int     `json:"k"`
	W       int     `json:"w"`
	Overlay string  `json:"overlay"`
}

// NodeStatus describes the node asked.
type NodeStatus struct {
	GUID   id.GUID  `json:"guid"`
	Name   string   `json:"name"`
	Role   string   `json:"role"` // member, admin
	Addrs  []string `json:"addrs"`
	Domain string   `json:"domain"`
	// State is joining, settling, ready, leaving or left.
	State string `json:"state"`
}

// Searching reports whether a node in this state has found no other member since
// it started.
func Searching(state string) bool { return state == "joining" || state == "settling" }

// MemberCount counts members of the roster, and those the node can see.
type MemberCount struct {
	Total int `json:"total"`
	Live  int `json:"live"`
}

// Safety sums what each live member reports for the arcs it leads.
type Safety struct {
	Blocks   int64 `json:"blocks"`
	Full     int64 `json:"full"`     // k copies
	Degraded int64 `json:"degraded"` // W ≤ copies < k
	BelowW   int64 `json:"below_w"`  // 0 < copies < W
	Lost     int64 `json:"lost"`     // no copy on a live member
	// Silent are the live members that did not answer: their arcs are missing
	// from the sums.
	Silent []id.GUID `json:"silent"`
	// Learning are the members that started lately and are still hearing what
	// they should hold: the sums may rise.
	Learning []id.GUID `json:"learning"`
}

// RepairStatus is the queue of copies to make.
type RepairStatus struct {
	Queued int64  `json:"queued"`
	Bytes  int64  `json:"bytes"`
	ETAS   *int64 `json:"eta_s"` // seconds; null when it cannot be told
}

// DiskStatus is the store of the node asked, in bytes.
type DiskStatus struct {
	Limit   int64  `json:"limit"`
	Used    int64  `json:"used"`
	Cache   int64  `json:"cache"`
	Reserve int64  `json:"reserve"`
	FullInS *int64 `json:"full_in_s"` // seconds at the present rate, 0: it is full; null when it is not filling
}

// Peers lists the members of the roster, the node itself among them.
type Peers struct {
	Peers []Peer `json:"peers"`
}

// Peer is one member.
type Peer struct {
	GUID    id.GUID   `json:"guid"`
	Name    string    `json:"name"`
	Domain  string    `json:"domain"`
	Role    string    `json:"role"`
	State   string    `json:"state"`  // self, live, suspected, silent, left, revoked
	RTTMs   *float64  `json:"rtt_ms"` // null when unknown
	Addr    string    `json:"addr"`
	Used    int64     `json:"used"`
	Limit   int64     `json:"limit"` // 0 when unknown
	Free    int64     `json:"free"`  // room for blocks; less than the limit leaves if other files fill the disk
	Since   time.Time `json:"since"`
	Version string    `json:"version"`
}

// InviteRequest asks for an invite.
type InviteRequest struct {
	Role  string `json:"role"`  // member (also when empty) or admin
	Uses  int    `json:"uses"`  // 0 is 1
	TTLS  int64  `json:"ttl_s"` // 0 is a day
	Quota int64  `json:"quota"` // bytes, 0 is none
}

// InviteResult is an invite: a secret.
type InviteResult struct {
	Invite  string    `json:"invite"`
	Expires time.Time `json:"expires"`
}

// RevokeRequest names a member to exclude.
type RevokeRequest struct {
	GUID   id.GUID `json:"guid"`
	Reason string  `json:"reason"`
	// DryRun changes nothing and tells what would become of the blocks.
	DryRun bool `json:"dry_run"`
}

// RevokeResult tells what a revocation did, or would do.
type RevokeResult struct {
	Entries int   `json:"entries"` // entries added to the roster
	BelowW  int64 `json:"below_w"` // blocks with fewer than W copies without that member
}

// LeaveRequest ends this node's membership.
type LeaveRequest struct {
	Reason string `json:"reason"`
	Job    string `json:"job"`
	// LastAdmin lets it end although no other admin answers.
	LastAdmin bool `json:"last_admin"`
}

// LeaveResult tells what was handed over.
type LeaveResult struct {
	Entries    int   `json:"entries"`
	HandedOver int64 `json:"handed_over"` // blocks
}

// PutParams is the query of put.
type PutParams struct {
	Name     string // at most MaxName bytes, no slash; the last element of Path if empty
	Size     int64  // of the body, -1 when unknown
	Unique   bool   // sealed with a fresh secret: shares no block with other files
	Clear    bool   // not sealed
	K        int    // copies, 0: the pool's k
	W        int    // copies to wait for, 0: the pool's W
	Job      string
	Path     string // absolute: the node reads this file, and body is empty
	NoResume bool   // begin anew, although a journal of this file exists
}

// PutResult tells what put stored.
type PutResult struct {
	Link       string  `json:"link"`
	VerifyLink string  `json:"verify_link"`
	GUID       id.GUID `json:"guid"` // of the root block
	Size       int64   `json:"size"`
	Blocks     int64   `json:"blocks"`
	NewBlocks  int64   `json:"new_blocks"` // sent with their bytes: not in the pool before
	Resumed    int64   `json:"resumed"`    // stored by an earlier try of the same put
	Holes      int64   `json:"holes"`
	Copies     Copies  `json:"copies"`
	MS         int64   `json:"ms"`
	// Older are the root blocks of other files of this name in the catalogue,
	// oldest first.
	Older []id.GUID `json:"older,omitempty"`
}

// Copies tells how many copies there are of the block that has the fewest, of
// the one that has the most (stat only), and how many there should be.
type Copies struct {
	Min    int `json:"min"`
	Max    int `json:"max,omitempty"`
	Target int `json:"target"`
}

// GetRequest asks for a file or a part of it.
type GetRequest struct {
	Link   string `json:"link"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"` // 0: to the end
	Job    string `json:"job"`
	Out    string `json:"out"`   // absolute path the node writes
	Force  bool   `json:"force"` // Out may exist and is replaced
}

// GetHead is known before the first byte.
type GetHead struct {
	Name string
	Size int64 // of the whole file
	GUID id.GUID
}

// GetResult tells what get wrote.
type GetResult struct {
	Path     string  `json:"path"` // empty for a stream
	Name     string  `json:"name"`
	Size     int64   `json:"size"` // bytes written, all verified
	GUID     id.GUID `json:"guid"`
	Resumed  int64   `json:"resumed"` // of them, there from an earlier try
	Verified bool    `json:"verified"`
	MS       int64   `json:"ms"`
}

// LinkRequest names a file by its link, or in rm by its name in the catalogue.
type LinkRequest struct {
	Link string `json:"link"`
}

// StatResult describes a file. A verify link tells neither Name, Size, Mtime nor
// Chunk: they are empty, or null.
type StatResult struct {
	Name       string     `json:"name"`
	GUID       id.GUID    `json:"guid"`
	Size       *int64     `json:"size"`
	Mtime      *time.Time `json:"mtime"`
	Blocks     int64      `json:"blocks"`
	Depth      int        `json:"depth"`
	Chunk      string     `json:"chunk"`
	Capability string     `json:"capability"` // read, verify, clear
	Copies     Copies     `json:"copies"`
}

// RmResult tells what became of the blocks.
type RmResult struct {
	Removed      int64 `json:"removed"`        // blocks that this file keeps no more
	KeptByOthers int64 `json:"kept_by_others"` // of them, kept by another file or owner
}

// LsResult lists the catalogue.
type LsResult struct {
	Files []File `json:"files"`
}

// File is an entry of the catalogue. Its link is a secret.
type File struct {
	Name  string    `json:"name"` // empty: it has none, and goes by the first digits of GUID
	GUID  id.GUID   `json:"guid"` // of the root block
	Link  string    `json:"link"`
	Size  int64     `json:"size"`
	PutAt time.Time `json:"put_at"`
}

// VerifyRequest names what to check: one link, or All of the catalogue.
type VerifyRequest struct {
	Link string `json:"link"`
	All  bool   `json:"all"`
	Deep bool   `json:"deep"` // holders prove their bytes
	Job  string `json:"job"`
}

// VerifyResult counts blocks, and copies of them.
type VerifyResult struct {
	Blocks       int64       `json:"blocks"`
	OK           int64       `json:"ok"`           // blocks with all copies
	Corrupt      int64       `json:"corrupt"`      // copies
	Missing      int64       `json:"missing"`      // copies that nobody claims to have
	Repaired     int64       `json:"repaired"`     // copies
	Unrepairable []id.GUID   `json:"unrepairable"` // blocks without any valid copy
	Bad          []BadCopies `json:"bad"`          // who has the corrupt copies, most first
}

// BadCopies is a member whose copies failed their proof: its disk is failing, or
// it lies.
type BadCopies struct {
	GUID   id.GUID `json:"guid"`
	Name   string  `json:"name"`
	Copies int64   `json:"copies"`
}

// DHTPutRequest stores Raw as a content block, or Signed if it is not nil.
type DHTPutRequest struct {
	Raw    []byte
	Signed *SignedValue
}

// SignedValue is the next value of a signed block.
type SignedValue struct {
	// Key is the absolute path of the file with the private key that names the
	// block and signs it; empty: the node's owner key.
	Key  string `json:"key"`
	Salt []byte `json:"salt"` // at most 64 bytes
	// Seq is the sequence number of this value; 0: the next one.
	Seq uint64 `json:"seq"`
	// CAS is the number the stored value must have, 0 for none; nil: any lower.
	CAS   *uint64 `json:"cas"`
	Value []byte  `json:"value"` // at most 64 KiB
}

// DHTPutResult names the block stored and who holds it.
type DHTPutResult struct {
	GUID     id.GUID   `json:"guid"`
	Seq      uint64    `json:"seq,omitempty"` // signed blocks
	Receipts []Receipt `json:"receipts"`
}

// Receipt says that a node has synced a block or a removal.
type Receipt struct {
	Node id.GUID `json:"node"`
	Role string  `json:"role"` // replica, diverted, stand-in, tombstone
}

// DHTGetRequest asks for a block of either kind.
type DHTGetRequest struct {
	GUID id.GUID `json:"guid"`
	Any  bool    `json:"any"` // signed: the first valid record will do
}

// DHTGetResult is a block's value. Seq is nil for a content block, whose
// header is not part of Value.
type DHTGetResult struct {
	Value []byte  `json:"value"`
	Seq   *uint64 `json:"seq"`
}

// DHTRemoveRequest removes a block: of a content block the claim of raw puts,
// of a signed block (Key, Salt as it was put) the value.
type DHTRemoveRequest struct {
	GUID id.GUID      `json:"guid"`
	Sign *SignedValue `json:"sign"` // its Value stays empty
}

// DHTRemoveResult tells who has synced the removal.
type DHTRemoveResult struct {
	Receipts     []Receipt `json:"receipts"`
	KeptByOthers bool      `json:"kept_by_others"`
}

// KeyRequest names a point on the ring.
type KeyRequest struct {
	Key id.GUID `json:"key"`
}

// LookupResult names the nodes responsible for a key.
type LookupResult struct {
	Key      id.GUID   `json:"key"`
	Root     id.GUID   `json:"root"`
	Replicas []Replica `json:"replicas"` // nearest first
}

// Replica is a member of a replica set.
type Replica struct {
	GUID   id.GUID  `json:"guid"`
	Name   string   `json:"name"`
	Domain string   `json:"domain"`
	Addr   string   `json:"addr"`
	RTTMs  *float64 `json:"rtt_ms"` // null when unknown
}

// RouteResult is the way a probe took, this node first.
type RouteResult struct {
	Key  id.GUID `json:"key"`
	Hops []Hop   `json:"hops"`
}

// Hop is a node on the way.
type Hop struct {
	GUID   id.GUID  `json:"guid"`
	Addr   string   `json:"addr"`
	Rule   string   `json:"rule"`   // how this node chose the next: root, leaf set, table, rare case
	Prefix int      `json:"prefix"` // digits shared with the key
	RTTMs  *float64 `json:"rtt_ms"` // from the hop before; null for the first, and when unknown
}

// Table is the routing state of a node (Coulouris et al., Figure 10.7).
type Table struct {
	GUID          id.GUID   `json:"guid"`
	Rows          [][]*Cell `json:"rows"` // 16 cells each, nil when empty
	Leaf          LeafSet   `json:"leaf"`
	Neighbourhood []Cell    `json:"neighbourhood"`
}

// Cell is an entry of the routing table; Self marks the node's own cells.
type Cell struct {
	GUID  id.GUID  `json:"guid"`
	RTTMs *float64 `json:"rtt_ms"` // null when unknown
	Self  bool     `json:"self"`
}

// LeafSet holds the nearest nodes on either side, nearest first.
type LeafSet struct {
	Left  []Cell `json:"left"`
	Right []Cell `json:"right"`
}

// DoctorRequest asks for checks, all of them if none is named.
type DoctorRequest struct {
	Checks []string `json:"checks"`
	// Backup is an absolute path to which catalogue, keys and secret are saved.
	Backup string `json:"backup"`
}

// DoctorResult lists what was checked.
type DoctorResult struct {
	Results []Check `json:"results"`
}

// Check is one finding. Fix says what to do when it is not OK; with one that is OK
// it makes a warning.
type Check struct {
	Check  string `json:"check"`
	Level  string `json:"level"` // ok, warn or fail: what OK and Fix say in one word; see Graded
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Fix    string `json:"fix"`
}

// Graded returns r with the level of each finding.
func (r DoctorResult) Graded() DoctorResult {
	for i := range r.Results {
		c := &r.Results[i]
		switch {
		case !c.OK:
			c.Level = "fail"
		case c.Fix != "":
			c.Level = "warn"
		default:
			c.Level = "ok"
		}
	}
	return r
}

// Progress is how far a job is. Totals and times are -1 when unknown.
type Progress struct {
	Phase     string `json:"phase"` // reading, sending, comparing, fetching, checking, handing over …
	Bytes     int64  `json:"bytes"`
	Total     int64  `json:"total"`
	Blocks    int64  `json:"blocks"`
	Rate      int64  `json:"rate"`       // bytes a second
	StalledOn string `json:"stalled_on"` // why nothing moves; empty while it does
	ETAS      int64  `json:"eta_s"`
}

// Jobs lists what runs and what ended lately.
type Jobs struct {
	Jobs []Job `json:"jobs"`
}

// Job is a long operation.
type Job struct {
	ID       string    `json:"id"`
	Op       string    `json:"op"`
	State    string    `json:"state"` // running, done, error
	Started  time.Time `json:"started"`
	Progress Progress  `json:"progress"`
	Error    *Error    `json:"error,omitempty"`
}

// TraceEvent is a trace.Event with the time at which the host saw it.
type TraceEvent struct {
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	Peer id.GUID   `json:"peer"`
	Key  id.GUID   `json:"key"`
	N    int64     `json:"n"`
	Note string    `json:"note"`
}
