package stack

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
	"atoll.example/atoll/internal/wire/wiretest"
)

func sampleAnswer() *ProbeAnswer {
	return &ProbeAnswer{Req: kbr.ReqID{1}, Hops: []Hop{
		{Node: id.FromPrefix("aa"), Addr: "10.0.0.1:7", Rule: kbr.RuleTable, RTT: 5 * machine.Millisecond},
		{Node: id.FromPrefix("bb"), Rule: kbr.RuleRoot},
	}}
}

func encodeMessage(m machine.Message) []byte {
	var w wire.Writer
	machine.AppendMessage(&w, m)
	return w.B
}

func TestGoldenBytes(t *testing.T) {
	a := sampleAnswer()
	wiretest.Bytes(t, "stack", []wiretest.Sample{
		{Name: "message 104 ProbeAnswer", Value: a, Bytes: encodeMessage(a), Decode: wiretest.Decoder(Decode)},
		{Name: "body of a route probe", Value: a.Hops, Bytes: appendHops(a.Hops, nil), Decode: wiretest.Decoder(readHops)},
	})
}
