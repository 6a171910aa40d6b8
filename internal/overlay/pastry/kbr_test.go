package pastry

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/kbr/kbrtest"
	"atoll.example/atoll/internal/machine"
)

func TestConformance(t *testing.T) {
	kbrtest.Run(t, kbrtest.Engine{
		New: func(self *id.Handle, app uint16, up kbr.Upcalls) kbrtest.Node {
			cfg := LAN()
			n := New(&cfg, self, 1)
			n.Register(app, up)
			return n
		},
		Start: func(n kbrtest.Node, now machine.Time, seed *id.Handle, out []machine.Effect) []machine.Effect {
			if seed == nil {
				return n.(*Node).Start(now, nil, nil, true, out)
			}
			return n.(*Node).Start(now, []*id.Handle{seed}, nil, false, out)
		},
		Decode: Decode,
		Settle: 20 * machine.Second,
	})
}
