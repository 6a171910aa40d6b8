package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// Message kinds (10-overlay §3.1).
const (
	kindHop uint8 = iota + 1
	kindHopAck
	kindProbe
	kindProbeAck
	kindPingReq
	kindPingRep
	kindBeat
	kindBeatAck
	kindJoin
	kindAdmitReq
	kindAdmitRep
	kindJoinReply
	kindJoinBusy
	kindJoined
	kindJoinedAck
	kindLSProbe
	kindRowReq
	kindRowRep
	kindHandlesReq
	kindHandles
	kindEvents
	kindLeave
	kindRtt
)

// Bounds of lists and fields on the wire.
const (
	maxAcks     = 64
	maxSide     = 32 // leaf set entries on one side
	maxFailed   = 64
	maxRow      = 4096
	maxHandles  = 64
	maxEvents   = 512
	maxCoord    = 32       // bytes of a network coordinate
	maxJoinRows = 40 << 10 // bytes of rows gathered by a join
	maxBody     = kbr.MaxBody
)

// Ref names a node briefly: the first 8 bytes of its GUID and its boot epoch.
// Whoever does not know the node asks the sender for its handle.
type Ref struct {
	Prefix uint64
	Epoch  uint32
}

// Row is a row of a routing table under way to a joiner.
type Row struct {
	Index   uint8
	Handles []*id.Handle
}

// Hop carries a routed message one hop. ID is the sender's, echoed by HopAck.
type Hop struct {
	ID uint32
	M  kbr.Message
}

// HopAck acknowledges hops. Onward is for two-hop custody and empty here. Busy
// says that the messages were refused, not taken.
type HopAck struct {
	IDs    []uint32
	Onward []uint32
	Busy   bool
}

// Probe asks whether a node lives. Coord is a network coordinate, empty here.
type Probe struct {
	Nonce uint64
	Coord []byte
}

// ProbeAck answers a Probe after Held.
type ProbeAck struct {
	Nonce uint64
	Held  machine.Duration
	Ready bool
	Coord []byte
}

// PingReq asks a third node to probe Target.
type PingReq struct {
	Target *id.Handle
	Nonce  uint64
}

// PingRep tells that Target answered (OK) or that the asked node gave up.
type PingRep struct {
	Nonce uint64
	OK    bool
}

// Flags of a beat. Left and right are the sender's.
const (
	beatWant       uint8 = 1 << iota // the sender lacks the receiver's lease
	beatGrantLeft                    // a lease: the receiver is the sender's left neighbour
	beatGrantRight                   // a lease: the receiver is the sender's right neighbour
	beatBackLeft                     // the leases the receiver gave to the sender's left side are returned, up to Back
	beatBackRight
	beatReady        // the sender is ready
	beatActive       // the sender's arc sees owned traffic
	beatFlags  uint8 = 1<<iota - 1
)

func grantFlag(s ring.Side) uint8 {
	if s == ring.Left {
		return beatGrantLeft
	}
	return beatGrantRight
}

func backFlag(s ring.Side) uint8 {
	if s == ring.Left {
		return beatBackLeft
	}
	return beatBackRight
}

// BeatBody is what Beat, BeatAck, Joined and JoinedAck share: half of an
// exchange of leases (10-overlay §3.5).
type BeatBody struct {
	Nonce uint64
	Echo  uint64           // last nonce received, if Hold says so
	Hold  machine.Duration // since Echo was received; noEcho if there was none
	Grant machine.Duration // whole ms
	Seq   uint32           // number of the grant; they rise in one boot epoch
	Back  uint32           // leases up to this number are returned, if Flags say so
	Flags uint8
	Trt   uint32 // table probe period in s
}

// noEcho in Hold: nothing to echo.
const noEcho = machine.Duration(1<<32 - 1)

// Beat is the heartbeat to a neighbour.
type Beat struct{ BeatBody }

// BeatAck answers a Beat.
type BeatAck struct{ BeatBody }

// Join asks for admission of X, or with Look only for the leaf set at X.
type Join struct {
	X      *id.Handle
	Nonce  uint64
	Look   bool
	Passes uint8 // direct hand-overs so far
	Rows   []Row
}

// AdmitReq asks the neighbour on X's other side to lock itself for X.
type AdmitReq struct {
	X    *id.Handle
	Lock uint64
}

// AdmitRep grants or refuses an AdmitReq.
type AdmitRep struct {
	Lock        uint64
	OK          bool
	Left, Right []Ref
}

// JoinReply brings X what it needs: rows, the leaves around its place, the
// lock, and the node S on its other side. With Lock 0 it answers a Look.
type JoinReply struct {
	Nonce uint64
	Lock  uint64
	S     *id.Handle // nil in answer to a Look
	L     []*id.Handle
	Rows  []Row
}

// JoinBusy tells X to come back. Ready tells whether the sender is.
type JoinBusy struct {
	Nonce       uint64
	Retry       machine.Duration // whole ms
	Ready       bool
	Left, Right []Ref
}

// Joined tells P and S that X is about to be ready.
type Joined struct {
	Lock uint64
	BeatBody
}

// JoinedAck accepts X, or refuses it because the lock no longer stands.
type JoinedAck struct {
	Lock uint64
	OK   bool
	BeatBody
}

// LSProbe tells a leaf set and who is thought dead. It asks for the like if
// Reply is set.
type LSProbe struct {
	Reply       bool
	Ready       bool
	Left, Right []Ref
	Failed      []Ref
}

// RowReq asks for row P of a routing table.
type RowReq struct{ P uint8 }

// RowEntry is a routing table entry under way.
type RowEntry struct {
	Ref   Ref
	Coord []byte
}

// RowRep tells row P, asked or not. Its sender is ready.
type RowRep struct {
	P       uint8
	Entries []RowEntry
}

// HandlesReq asks for the handles of nodes that the receiver named.
type HandlesReq struct{ Refs []Ref }

// Handles answers HandlesReq.
type Handles struct{ Handles []*id.Handle }

// MemberEvent is one change of membership, spread in full membership mode.
type MemberEvent struct {
	Ref    Ref
	Joined bool
	TTL    uint8
}

// Events spreads changes of membership. Known, and not used here.
type Events struct{ Events []MemberEvent }

// Leave tells the leaf set that its sender is going.
type Leave struct{ Left, Right []Ref }

// Rtt tells the receiver what the sender measured.
type Rtt struct{ RTT machine.Duration }

func (*Hop) Kind() uint8        { return kindHop }
func (*HopAck) Kind() uint8     { return kindHopAck }
func (*Probe) Kind() uint8      { return kindProbe }
func (*ProbeAck) Kind() uint8   { return kindProbeAck }
func (*PingReq) Kind() uint8    { return kindPingReq }
func (*PingRep) Kind() uint8    { return kindPingRep }
func (*Beat) Kind() uint8       { return kindBeat }
func (*BeatAck) Kind() uint8    { return kindBeatAck }
func (*Join) Kind() uint8       { return kindJoin }
func (*AdmitReq) Kind() uint8   { return kindAdmitReq }
func (*AdmitRep) Kind() uint8   { return kindAdmitRep }
func (*JoinReply) Kind() uint8  { return kindJoinReply }
func (*JoinBusy) Kind() uint8   { return kindJoinBusy }
func (*Joined) Kind() uint8     { return kindJoined }
func (*JoinedAck) Kind() uint8  { return kindJoinedAck }
func (*LSProbe) Kind() uint8    { return kindLSProbe }
func (*RowReq) Kind() uint8     { return kindRowReq }
func (*RowRep) Kind() uint8     { return kindRowRep }
func (*HandlesReq) Kind() uint8 { return kindHandlesReq }
func (*Handles) Kind() uint8    { return kindHandles }
func (*Events) Kind() uint8     { return kindEvents }
func (*Leave) Kind() uint8      { return kindLeave }
func (*Rtt) Kind() uint8        { return kindRtt }
