package p2p

import "sync/atomic"

// Stats is a snapshot of counters since New. Frames and bytes are those of
// the host, without handshakes and headers; queued and peers are of now.
type Stats struct {
	ControlIn, ControlOut           uint64 // frames
	ControlBytesIn, ControlBytesOut uint64
	BulkIn, BulkOut                 uint64
	BulkBytesIn, BulkBytesOut       uint64

	QueueFull uint64 // frames refused by Send for want of room
	Expired   uint64 // frames dropped after waiting for a connection
	Lost      uint64 // frames dropped because a link ended, stalled or was dropped

	Dials, DialsFailed uint64 // attempts on a peer, all addresses together
	LinksOpened        uint64
	HelloRefused       uint64 // peers we refused
	RefusedByPeer      uint64 // peers that refused us
	BadFrames          uint64 // frames over their bound, streams that broke the rules
	Stalls             uint64 // frames or handshakes that did not end in time

	Asked, AskRefused            uint64 // questions answered, and refused for their rate or size
	BlockedConns, BlockedStreams uint64 // refused by the resource manager
	BlockedMemory                uint64
	Floods                       uint64 // peers shut out for flooding

	QueuedBytes int64
	Peers       int
	Links       int
}

// counters are the live Stats. Those of the hot path are touched once per
// batch, not per frame.
type counters struct {
	controlIn, controlOut, controlBytesIn, controlBytesOut atomic.Uint64
	bulkIn, bulkOut, bulkBytesIn, bulkBytesOut             atomic.Uint64
	queueFull, expired, lost                               atomic.Uint64
	dials, dialsFailed, linksOpened                        atomic.Uint64
	helloRefused, refusedByPeer, badFrames, stalls         atomic.Uint64
	asked, askRefused                                      atomic.Uint64
	blockedConns, blockedStreams, blockedMemory, floods    atomic.Uint64
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	c := &t.stats
	s := Stats{
		ControlIn: c.controlIn.Load(), ControlOut: c.controlOut.Load(),
		ControlBytesIn: c.controlBytesIn.Load(), ControlBytesOut: c.controlBytesOut.Load(),
		BulkIn: c.bulkIn.Load(), BulkOut: c.bulkOut.Load(),
		BulkBytesIn: c.bulkBytesIn.Load(), BulkBytesOut: c.bulkBytesOut.Load(),
		QueueFull: c.queueFull.Load(), Expired: c.expired.Load(), Lost: c.lost.Load(),
		Dials: c.dials.Load(), DialsFailed: c.dialsFailed.Load(), LinksOpened: c.linksOpened.Load(),
		HelloRefused: c.helloRefused.Load(), RefusedByPeer: c.refusedByPeer.Load(),
		BadFrames: c.badFrames.Load(), Stalls: c.stalls.Load(),
		Asked: c.asked.Load(), AskRefused: c.askRefused.Load(),
		BlockedConns: c.blockedConns.Load(), BlockedStreams: c.blockedStreams.Load(),
		BlockedMemory: c.blockedMemory.Load(), Floods: c.floods.Load(),
		QueuedBytes: t.queued.Load(),
	}
	for _, p := range t.allPeers() {
		s.Peers++
		p.mu.Lock()
		s.Links += len(p.links)
		p.mu.Unlock()
	}
	return s
}
