package pastry

import (
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// Config is what a node is told at its start. Start from a preset: LAN, WAN,
// Local or Sim. Sources in brackets; "ours" is explained in 10-overlay §3.9.
type Config struct {
	// Pool identifies the pool in the saved table.
	Pool [32]byte
	// GUIDOf derives a GUID from a public key; handles named by others are
	// checked with it. Nil: unchecked, for figures whose GUIDs are given.
	GUIDOf func(key [32]byte) id.GUID

	// LeafSet is h, the number of leaves on each side, 1–32. 16 (MSPastry
	// l = 32).
	LeafSet int
	// LeafSetOnly routes by leaf sets alone, as in Figure 10.6, and lifts the
	// hop cap.
	LeafSetOnly bool

	// Beat is the heartbeat period to the left neighbour; Lease the delivery
	// lease given with it. 5 s and 15 s on a LAN, 75 s and 90 s on a WAN
	// (ours; MSPastry 30 s, FreePastry lease 30 s).
	Beat, Lease machine.Duration
	// ActiveBeat and ActiveLease serve arcs that saw owned traffic within
	// ActiveFor. 5 s, 15 s, 10 min (ours).
	ActiveBeat, ActiveLease, ActiveFor machine.Duration

	// ProbeMin and ProbeMax clamp the timeout of a probe, twice the peer's
	// RTO. 300 ms, 1 s (ours; MSPastry 3 s).
	ProbeMin, ProbeMax machine.Duration
	// EvictAfter is how long a probed node may be silent before it is
	// evicted. 3.5 s (ours).
	EvictAfter machine.Duration
	// RTOFloor, RTOCap, RTOFirst bound the retransmission timeout of a hop.
	// 20 ms, 10 s, 500 ms (ours; FreePastry 50 ms, 10 s).
	RTOFloor, RTOCap, RTOFirst machine.Duration
	// AckDelay is how long acks of hops may be gathered. 2 ms (ours).
	AckDelay machine.Duration

	// LockLife is the life of an admission lock. 10 s (ours: more than five
	// times the worst RTO of a join).
	LockLife machine.Duration
	// AdmitWait is how long the lock of the other neighbour is waited for. 2 s.
	AdmitWait machine.Duration
	// JoinWait is how long an answer to a Join is waited for. 1.5 s.
	JoinWait machine.Duration
	// SettleWait is how long a joiner waits for all its leaves to answer
	// before half of each side will do. 4 s.
	SettleWait machine.Duration
	// Member says that this node was on the ring in an earlier life, whatever
	// became of its table: if it reaches nobody who is ready it is the ring
	// again. A newcomer never is. Default: false.
	Member bool
	// AloneAfter is when a restarted member that reached nobody serves. 2 s.
	AloneAfter machine.Duration
	// LeaveWait bounds a leave. 10 s.
	LeaveWait machine.Duration

	// QueueWait is how long a message waits for repair if no next hop is
	// known. 3 s.
	QueueWait machine.Duration
	// DedupFor is how long a root remembers request ids. 60 s.
	DedupFor machine.Duration
	// Deadline is given to messages routed without one. 10 s.
	Deadline machine.Duration

	// TableProbe is Trt: a table entry silent for so long is probed. 10 min.
	TableProbe machine.Duration
	// GossipMin to GossipMax is the period of row gossip, doubling while
	// nothing new comes. 20 min to 4 h (MSPastry, recalled; doubling ours).
	GossipMin, GossipMax machine.Duration
	// ExchangeNear and ExchangeFar are the delay of a leaf exchange after a
	// change among the four nearest of a side or elsewhere; it doubles to
	// ExchangeMax when quiet. 4 s, 60 s, 30 min (OverSim's Bamboo 4 s; ours).
	ExchangeNear, ExchangeFar, ExchangeMax machine.Duration
	// RepairEvery and RepairBurst are the token bucket of repair. 2/s, 10.
	RepairEvery machine.Duration
	RepairBurst int64
	// HealFast is the period of looking for the other side of a partition in
	// the HealFor after a sudden loss of leaves; HealSlow the period
	// otherwise; HealAlone the period of a node with no leaf at all. 20 s,
	// 1 h, 30 min, 1 s.
	HealFast, HealFor, HealSlow, HealAlone machine.Duration
	// SaveEvery is the least time between two saved tables. 60 s.
	SaveEvery machine.Duration
	// NoSave emits no table: for a host that starts no node again, such as the
	// simulator's overlay run. Default: false.
	NoSave bool

	// Failed and Remembered bound what is kept of evicted and once known
	// nodes: 256 each, for FailedFor (15 min) and RememberFor (7 days).
	Failed, Remembered     int
	FailedFor, RememberFor machine.Duration

	// TraceHops emits a trace event for every hop.
	TraceHops bool

	// Bugs are faults to be found by checkers; all off.
	Bugs Bugs
}

// Bugs are planted faults: each breaks one rule, so that a test can show that
// a checker notices. They are for tests only and off in every preset.
type Bugs struct {
	// TrustLeafSets inserts nodes named in another's leaf set without asking
	// them (rule broken: every entry answered us directly, 10-overlay §3.1).
	TrustLeafSets bool
	// LeaseFromReceipt counts a lease from the receipt of the grant, in full,
	// not from the send time of the nonce it echoes (§3.5).
	LeaseFromReceipt bool
	// JoinWithoutLock admits every joiner at once (§3.3).
	JoinWithoutLock bool
	// GrantEarly grants a lease while an older one on that side still runs
	// (§3.5).
	GrantEarly bool
	// DeliverWithoutLease delivers class owned, and says it owns, without
	// leases (§3.5).
	DeliverWithoutLease bool
	// AcceptUnready takes an answer of a node that has not joined yet for that
	// of a ready one (§3.3).
	AcceptUnready bool
}

// WAN is the preset for pools across the Internet.
func WAN() Config {
	const s, m = machine.Second, machine.Minute
	return Config{
		LeafSet: 16,
		Beat:    75 * s, Lease: 90 * s,
		ActiveBeat: 5 * s, ActiveLease: 15 * s, ActiveFor: 10 * m,
		ProbeMin: 300 * machine.Millisecond, ProbeMax: s, EvictAfter: 3500 * machine.Millisecond,
		RTOFloor: 20 * machine.Millisecond, RTOCap: 10 * s, RTOFirst: 500 * machine.Millisecond,
		AckDelay: 2 * machine.Millisecond,
		LockLife: 10 * s, AdmitWait: 2 * s, JoinWait: 1500 * machine.Millisecond, SettleWait: 4 * s,
		AloneAfter: 2 * s, LeaveWait: 10 * s,
		QueueWait: 3 * s, DedupFor: 60 * s, Deadline: 10 * s,
		TableProbe: 10 * m, GossipMin: 20 * m, GossipMax: 240 * m,
		ExchangeNear: 4 * s, ExchangeFar: 60 * s, ExchangeMax: 30 * m,
		RepairEvery: 500 * machine.Millisecond, RepairBurst: 10,
		HealFast: 20 * s, HealFor: machine.Hour, HealSlow: 30 * m, HealAlone: s,
		SaveEvery: 60 * s,
		Failed:    256, Remembered: 256, FailedFor: 15 * m, RememberFor: 7 * 24 * machine.Hour,
	}
}

// LAN is the default preset: heartbeats of 5 s and leases of 15 s always.
func LAN() Config {
	c := WAN()
	c.Beat, c.Lease = 5*machine.Second, 15*machine.Second
	return c
}

// Local is for several nodes on one computer, such as a demonstration: a dead
// node is noticed within about 2 s and evicted 1.2 s later.
func Local() Config {
	c := LAN()
	c.Beat, c.Lease = machine.Second, 3*machine.Second
	c.ActiveBeat, c.ActiveLease = c.Beat, c.Lease
	c.ProbeMin, c.ProbeMax, c.EvictAfter = 100*machine.Millisecond, 300*machine.Millisecond, 1200*machine.Millisecond
	c.RTOFirst, c.JoinWait = 250*machine.Millisecond, 500*machine.Millisecond
	c.AdmitWait, c.SettleWait, c.LockLife = machine.Second, 2*machine.Second, 5*machine.Second
	c.AloneAfter, c.LeaveWait = machine.Second, 5*machine.Second
	c.ExchangeNear, c.ExchangeFar = machine.Second, 15*machine.Second
	c.HealFast, c.HealAlone = 5*machine.Second, 500*machine.Millisecond
	c.RepairEvery = 100 * machine.Millisecond
	return c
}

// Sim is the preset of the simulator: LAN with less memory of the past.
func Sim() Config {
	c := LAN()
	c.Failed, c.Remembered = 32, 32
	return c
}

// Validate returns the first fault.
func (c *Config) Validate() error {
	if c.LeafSet < 1 || c.LeafSet > maxSide {
		return fmt.Errorf("pastry: leaf set of %d a side, want 1–%d", c.LeafSet, maxSide)
	}
	for _, d := range []struct {
		name string
		d    machine.Duration
	}{
		{"Beat", c.Beat},
		{"Lease", c.Lease},
		{"ActiveBeat", c.ActiveBeat},
		{"ActiveLease", c.ActiveLease},
		{"ActiveFor", c.ActiveFor},
		{"ProbeMin", c.ProbeMin},
		{"ProbeMax", c.ProbeMax},
		{"EvictAfter", c.EvictAfter},
		{"RTOFloor", c.RTOFloor},
		{"RTOCap", c.RTOCap},
		{"RTOFirst", c.RTOFirst},
		{"AckDelay", c.AckDelay},
		{"LockLife", c.LockLife},
		{"AdmitWait", c.AdmitWait},
		{"JoinWait", c.JoinWait},
		{"SettleWait", c.SettleWait},
		{"AloneAfter", c.AloneAfter},
		{"LeaveWait", c.LeaveWait},
		{"QueueWait", c.QueueWait},
		{"DedupFor", c.DedupFor},
		{"Deadline", c.Deadline},
		{"TableProbe", c.TableProbe},
		{"GossipMin", c.GossipMin},
		{"GossipMax", c.GossipMax},
		{"ExchangeNear", c.ExchangeNear},
		{"ExchangeFar", c.ExchangeFar},
		{"ExchangeMax", c.ExchangeMax},
		{"RepairEvery", c.RepairEvery},
		{"HealFast", c.HealFast},
		{"HealFor", c.HealFor},
		{"HealSlow", c.HealSlow},
		{"HealAlone", c.HealAlone},
		{"SaveEvery", c.SaveEvery},
		{"FailedFor", c.FailedFor},
		{"RememberFor", c.RememberFor},
	} {
		if d.d <= 0 {
			return fmt.Errorf("pastry: %s is not positive", d.name)
		}
	}
	if c.Lease <= c.Beat || c.ActiveLease <= c.ActiveBeat {
		return fmt.Errorf("pastry: a lease must outlast the heartbeat that renews it")
	}
	if max(c.Lease, c.ActiveLease) > machine.Hour {
		return fmt.Errorf("pastry: lease of more than an hour")
	}
	if c.ProbeMin > c.ProbeMax || c.EvictAfter < 3*c.ProbeMax {
		return fmt.Errorf("pastry: EvictAfter leaves no room for three rounds of probes")
	}
	if c.RepairBurst < 1 || c.Failed < 1 || c.Remembered < 1 {
		return fmt.Errorf("pastry: RepairBurst, Failed and Remembered must be at least 1")
	}
	return nil
}
