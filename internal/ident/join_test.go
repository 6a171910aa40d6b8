package ident

import (
	"errors"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

func TestInviteText(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 1)
	text := v.Text()
	got, err := ParseInvite("  " + text[:40] + "\n " + text[40:] + "\n")
	check(t, err)
	if got.Text() != text || got.Issuer != l.admin.GUID() || len(got.Addrs) != 2 || got.Token != v.Token {
		t.Errorf("parsed %+v", got)
	}
	for i := len(invitePrefix); i < len(text); i++ {
		c := byte('a')
		if text[i] == 'a' {
			c = 'b'
		}
		if _, err := ParseInvite(text[:i] + string(c) + text[i+1:]); !errors.Is(err, ErrTyping) {
			t.Fatalf("character %d mistyped: %v", i, err)
		}
	}
	for name, tc := range map[string]struct {
		text string
		want error
	}{
		"nothing":        {"", ErrBadInvite},
		"a link":         {"atoll:r1:abcd", ErrBadInvite},
		"cut off":        {text[:len(text)-9], ErrTyping},
		"prefix only":    {invitePrefix, ErrTyping},
		"too long":       {invitePrefix + strings.Repeat("a", 5000), ErrBadInvite},
		"upper case":     {strings.ToUpper(text), ErrBadInvite},
		"later version":  {armour(invitePrefix, append([]byte{2}, v.encode()[1:]...)), ErrBadInvite},
		"trailing bytes": {armour(invitePrefix, append(v.encode(), 0)), ErrBadInvite},
		"role 9":         {armour(invitePrefix, (&Invite{Role: 9}).encode()), ErrBadInvite},
		"five addresses": {armour(invitePrefix, (&Invite{Role: Member, Addrs: make([]string, 5)}).encode()), ErrBadInvite},
	} {
		if _, err := ParseInvite(tc.text); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// TestJoin is the whole conversation of 20-dht §7.
func TestJoin(t *testing.T) {
	l := newLagoon(t)
	v, err := ParseInvite(l.invite(t, 1).Text())
	check(t, err)

	// 1. Who is there?
	q, err := ParseQuestion(EncodeQuestion(Identify{}))
	check(t, err)
	if _, ok := q.(Identify); !ok {
		t.Fatalf("parsed %T", q)
	}
	who, err := v.ParseIdentity((&Identity{Wall: t0 + minute, Pool: l.pool, Chain: l.chain}).Encode(), l.admin.Public(), t0)
	check(t, err)
	if who.Pool.Name != "lagoon" || who.Chain.Leaf().GUID() != v.Issuer {
		t.Errorf("identity %+v", who)
	}

	// 2. and 3.
	asked := l.request(t, v, 10)
	q, err = ParseQuestion(EncodeQuestion(asked))
	check(t, err)
	chain, changed, err := l.issuer.Issue(q.(*JoinRequest), t0+minute)
	check(t, err)
	if !changed {
		t.Error("a use was burnt without a change to save")
	}
	liar := &id.Handle{GUID: id.FromPrefix("ff"), Key: testKey(50).Public(), Addrs: []string{"x"}}
	answer := &JoinAnswer{
		Wall: t0, Pool: l.pool, Chain: chain, Seeds: [][]byte{{1}, {2, 3}},
		Handles: []*id.Handle{l.hello(l.chain).Handle, liar},
	}
	a, err := v.ParseAnswer(answer.Encode(), asked, t0)
	check(t, err)
	leaf := a.Chain.Leaf()
	if leaf.Node != asked.Node || leaf.Role != Member || leaf.Quota != 5 || leaf.Domain != "cellar" || leaf.Name != "second" {
		t.Errorf("certificate %+v", leaf)
	}
	if len(a.Handles) != 1 || len(a.Seeds) != 2 {
		t.Errorf("%d handles, %d seeds", len(a.Handles), len(a.Seeds))
	}
	check(t, a.Chain.Verify(l.pool, t0))

	if _, err := v.ParseAnswer(answer.Encode(), l.request(t, v, 20), t0); !errors.Is(err, ErrNotMember) {
		t.Errorf("took the certificate of another: %v", err)
	}
}

func TestJoinRefusals(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 1)
	for _, sentinel := range []error{
		ErrBadInvite, ErrTyping, ErrWrongPool, ErrInviteExpired, ErrInviteUsed, ErrRevoked, ErrNotMember,
		ErrForbidden, ErrClock, ErrUnavailable, errors.New("a disk failed"),
	} {
		_, err := v.ParseAnswer(Refuse(sentinel, t0).Encode(), l.request(t, v, 10), t0)
		var refusal *Refusal
		if !errors.As(err, &refusal) || Code(err) != Code(sentinel) {
			t.Errorf("%v arrives as %v", sentinel, err)
		}
	}
	_, err := v.ParseAnswer(Refuse(errors.New("\x1b[2J"+strings.Repeat("ä", 300)), t0).Encode(), l.request(t, v, 10), t0)
	if err == nil || len(err.Error()) > 255 || strings.ContainsRune(err.Error(), 0x1b) {
		t.Errorf("refusal %q", err)
	}
}

func TestIdentityIsChecked(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 1)
	otherRoot := testKey(77)
	other, err := NewPool(otherRoot, [16]byte{7}, "other", 3, Pastry)
	check(t, err)
	otherChain, err := Certify(other, otherRoot, nil, Subject{Node: l.admin.Public(), Role: Admin}, t0)
	check(t, err)
	forged := *l.pool
	forged.K = 1
	for name, tc := range map[string]struct {
		who    Identity
		proved [32]byte
		want   error
		text   string
	}{
		"fine":            {Identity{t0, l.pool, l.chain}, l.admin.Public(), nil, ""},
		"another pool":    {Identity{t0, other, otherChain}, l.admin.Public(), ErrWrongPool, "other"},
		"another's chain": {Identity{t0, l.pool, l.chain}, testKey(78).Public(), ErrNotMember, ""},
		"no member":       {Identity{t0, l.pool, otherChain}, l.admin.Public(), ErrWrongPool, ""},
		"hour off":        {Identity{t0 - hour, l.pool, l.chain}, l.admin.Public(), ErrClock, "1h0m0s ahead"},
	} {
		_, err := v.ParseIdentity(tc.who.Encode(), tc.proved, t0)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || err != nil && !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, err := v.ParseIdentity((&Identity{t0, &forged, l.chain}).Encode(), l.admin.Public(), t0); err == nil {
		t.Error("changed pool parameters were taken")
	}
}

func TestHello(t *testing.T) {
	l := newLagoon(t)
	c := l.member(t, 10)
	key := c.Leaf().Node
	h, err := ParseHello(l.hello(c).Encode())
	check(t, err)
	handle, cert, err := h.Check(l.gate(), key, t0)
	check(t, err)
	if handle.GUID != GUIDOf(key) || cert.Name != "m" {
		t.Errorf("let in %+v %+v", handle, cert)
	}
	revoked := l.gate()
	revoked.Revoked = func(Chain) error { return ErrRevoked }
	for name, tc := range map[string]struct {
		change func(*Hello)
		gate   Gate
		key    [32]byte
		now    int64
		want   error
	}{
		"another's hello replayed": {nil, l.gate(), testKey(99).Public(), t0, ErrNotMember},
		"another's handle":         {func(h *Hello) { h.Handle = l.hello(l.chain).Handle }, l.gate(), key, t0, ErrNotMember},
		"another's GUID":           {func(h *Hello) { h.Handle.GUID = GUIDOf(testKey(2).Public()) }, l.gate(), key, t0, ErrNotMember},
		"another pool":             {func(h *Hello) { h.Pool[0]++ }, l.gate(), key, t0, ErrWrongPool},
		"future version":           {func(h *Hello) { h.Min, h.Max = 7, 9 }, l.gate(), key, t0, ErrVersion},
		"revoked":                  {nil, revoked, key, t0, ErrRevoked},
		"expired":                  {nil, l.gate(), key, t0 + 500*day, ErrExpired},
		"clock days off":           {nil, l.gate(), key, t0 - 3*day, ErrClock},
	} {
		h := l.hello(c)
		if tc.change != nil {
			tc.change(h)
		}
		h, err := ParseHello(h.Encode())
		check(t, err)
		if _, _, err := h.Check(tc.gate, tc.key, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if v, err := (&Hello{Min: 1, Max: 3}).Version(2, 5); v != 3 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
	if h.Roster != [32]byte{9} || h.Wall != t0 {
		t.Error("digest or clock lost")
	}
}

// TestBounds keeps what this package writes within what links carry.
func TestBounds(t *testing.T) {
	if MaxQuestion > transport.MaxAsk || MaxAnswer > transport.MaxAnswer {
		t.Error("questions or answers pass the bounds of transport.Ask")
	}
	l := newLagoon(t)
	long := strings.Repeat("x", MaxLabel)
	addr := strings.Repeat("y", id.MaxAddrLen)
	s := Subject{Node: testKey(10).Public(), Owner: testKey(11).Public(), Role: Member, Domain: long, Name: long}
	root, err := Certify(l.pool, l.root, nil, Subject{Node: l.admin.Public(), Role: Admin, Domain: long, Name: long}, t0)
	check(t, err)
	c, err := Certify(l.pool, l.admin, root, s, t0)
	check(t, err)
	h := l.hello(c)
	h.Handle.Addrs = []string{addr, addr, addr, addr}
	h.Ext = make([]byte, maxExt)
	if n := len(h.Encode()); n > transport.MaxHello {
		t.Errorf("a hello of %d bytes", n)
	}
	if n := len(EncodeQuestion(&RenewRequest{c})); n > MaxQuestion {
		t.Errorf("a question of %d bytes", n)
	}
	a := &JoinAnswer{Pool: l.pool, Chain: c, Wall: t0}
	for range 100 {
		a.Seeds = append(a.Seeds, make([]byte, 1000))
		a.Handles = append(a.Handles, h.Handle)
	}
	b := a.Encode()
	if len(b) > MaxAnswer {
		t.Errorf("an answer of %d bytes", len(b))
	}
	got, err := readAnswer(b)
	check(t, err)
	if len(got.Seeds) != 49 || len(got.Handles) != maxHandles {
		t.Errorf("%d seeds, %d handles kept", len(got.Seeds), len(got.Handles))
	}
}
