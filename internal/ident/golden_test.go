package ident

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenBytes: certificates last for a year, invites for a day, the Hello
// for ever.
func TestGoldenBytes(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 2)
	q := l.request(t, v, 10)
	chain, _, err := l.issuer.Issue(q, t0)
	check(t, err)
	handle := l.hello(chain).Handle
	identity := &Identity{Wall: t0, Pool: l.pool, Chain: l.chain}
	answer := &JoinAnswer{Wall: t0, Pool: l.pool, Chain: chain, Seeds: [][]byte{{1}, {2, 3}}, Handles: []*id.Handle{handle}}
	refused := &JoinAnswer{Wall: t0, Refusal: &Refusal{"invite_used", "ask for a new one"}}
	hello := l.hello(chain)
	hello.Features, hello.Ext = 5, []byte("later")
	grounds := &Grounds{Entry: []byte{1, 2}}
	question := func(name string, q Question) wiretest.Sample {
		return wiretest.Sample{Name: "question " + name, Value: q, Bytes: EncodeQuestion(q), Decode: wiretest.Decoder(ParseQuestion)}
	}
	wiretest.Bytes(t, "ident", []wiretest.Sample{
		{Name: "pool record", Value: l.pool, Bytes: l.pool.Encode(), Decode: wiretest.Decoder(ParsePool)},
		{Name: "chain of the founder", Value: l.chain, Bytes: l.chain.Encode(), Decode: wiretest.Decoder(ParseChain)},
		{Name: "chain of a member", Value: chain, Bytes: chain.Encode(), Decode: wiretest.Decoder(ParseChain)},
		{Name: "invite, as text", Value: v, Bytes: []byte(v.Text()), Decode: wiretest.Decoder(func(b []byte) (*Invite, error) {
			return ParseInvite(string(b))
		})},
		{Name: "key file", Value: testKey(1), Bytes: testKey(1).Encode(), Decode: wiretest.Decoder(ParseKey)},
		question("identify", Identify{}),
		question("join", q),
		question("renew", &RenewRequest{chain}),
		question("standing", &Standing{chain}),
		{Name: "answer to standing", Value: grounds, Bytes: grounds.Encode(), Decode: wiretest.Decoder(ParseGrounds)},
		{Name: "answer to identify", Value: identity, Bytes: identity.Encode(), Decode: wiretest.Decoder(ParseIdentity)},
		{Name: "answer to join", Value: answer, Bytes: answer.Encode(), Decode: wiretest.Decoder(readAnswer)},
		{Name: "answer to join: refused", Value: refused, Bytes: refused.Encode(), Decode: wiretest.Decoder(readAnswer)},
		{Name: "hello", Value: hello, Bytes: hello.Encode(), Decode: wiretest.Decoder(ParseHello)},
		{Name: "invites kept by their issuer", Value: l.issuer, Bytes: l.issuer.Encode(), Decode: wiretest.Decoder(func(b []byte) (*Issuer, error) {
			s, err := NewIssuer(l.pool, l.admin, l.chain, l.root)
			check(t, err)
			return s, s.Restore(b)
		})},
	})
	// What is derived and never sent.
	for name, c := range map[string]struct{ got, want string }{
		"pool id":   {l.pool.ID().String(), "1dccb7f88710d8d53a08b82778cf27648c9ca2ec6f7bf795150e536fa6127d64"},
		"node GUID": {l.admin.GUID().String(), "5cf2a5059bf36c3b83c424ca4352dcf6db6b971e0bcc79b9c1b1eaa35654251c"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s", name, c.got)
		}
	}
}
