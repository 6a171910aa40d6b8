package sim

import (
	"fmt"
	"reflect"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/overlay/pastry"
)

// kindNames are pastry's messages (10-overlay §3.1).
var kindNames = map[uint8]string{
	1: "Hop", 2: "HopAck", 3: "Probe", 4: "ProbeAck", 5: "PingReq", 6: "PingRep", 7: "Beat", 8: "BeatAck",
	9: "Join", 10: "AdmitReq", 11: "AdmitRep", 12: "JoinReply", 13: "JoinBusy", 14: "Joined", 15: "JoinedAck",
	16: "LSProbe", 17: "RowReq", 18: "RowRep", 19: "HandlesReq", 20: "Handles", 21: "Events", 22: "Leave", 23: "Rtt",
}

// newNodeMaker makes pastry nodes as cfg wants them.
func newNodeMaker(cfg *OverlayConfig) (*nodeMaker, error) {
	pc, err := pastryPreset(cfg.Preset)
	if err != nil {
		return nil, err
	}
	pc.LeafSetOnly, pc.TraceHops = cfg.LeafOnly, cfg.Log != nil
	pc.NoSave = true // a node of this workload that has ended is never started again
	if cfg.Leaves > 0 {
		pc.LeafSet = cfg.Leaves
	}
	for _, b := range cfg.Bugs {
		if !plantPastry(&pc.Bugs, b) {
			return nil, fmt.Errorf("unknown bug %q", b)
		}
	}
	if err := pc.Validate(); err != nil {
		return nil, err
	}
	seed := cfg.Seed
	return &nodeMaker{
		leaf: pc.LeafSet,
		make: func(h *id.Handle, up kbr.Upcalls) overlayNode {
			n := pastry.New(&pc, h, seed+uint64(h.Epoch))
			n.Register(appLookup, up)
			return n
		},
		decode: pastry.Decode,
		name:   kindNames,
		lookup: map[uint8]bool{1: true, 2: true},
	}, nil
}

func pastryPreset(name string) (pastry.Config, error) {
	switch name {
	case "", "sim":
		return pastry.Sim(), nil
	case "lan":
		return pastry.LAN(), nil
	case "wan":
		return pastry.WAN(), nil
	case "local":
		return pastry.Local(), nil
	}
	return pastry.Config{}, fmt.Errorf("unknown preset %q: sim, lan, wan or local", name)
}

// plantPastry switches a planted bug on by its field name.
func plantPastry(b *pastry.Bugs, name string) bool { return plant(reflect.ValueOf(b).Elem(), name) }

// plant sets the field of that name; false: there is none.
func plant(v reflect.Value, name string) bool {
	f := v.FieldByName(name)
	if !f.IsValid() {
		return false
	}
	f.SetBool(true)
	return true
}
