package ident

import (
	"errors"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
)

func TestIssueBurnsUses(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 2)
	first, changed, err := l.issuer.Issue(l.request(t, v, 10), t0)
	check(t, err)
	if !changed {
		t.Error("no change to save")
	}
	for _, now := range []int64{t0, t0 + minute, t0 + 3*day} { // also past the invite's expiry
		again, changed, err := l.issuer.Issue(l.request(t, v, 10), now)
		check(t, err)
		if changed || again.Leaf().Sig != first.Leaf().Sig {
			t.Error("a retry burnt a use or got another certificate")
		}
	}
	_, _, err = l.issuer.Issue(l.request(t, v, 20), t0)
	check(t, err)
	if _, _, err := l.issuer.Issue(l.request(t, v, 30), t0); !errors.Is(err, ErrInviteUsed) {
		t.Errorf("third of two uses: %v", err)
	}
}

// TestIssueSurvivesACrash: state saved before the answer is enough to give the
// same answer after a restart, and never one use too many.
func TestIssueSurvivesACrash(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 1)
	first, _, err := l.issuer.Issue(l.request(t, v, 10), t0)
	check(t, err)
	state := l.issuer.Encode()

	after, err := NewIssuer(l.pool, l.admin, l.chain, Key{})
	check(t, err)
	check(t, after.Restore(state))
	sameBytes(t, "issuer", state, after.Encode())
	again, changed, err := after.Issue(l.request(t, v, 10), t0+minute)
	check(t, err)
	if changed || again.Leaf().Sig != first.Leaf().Sig {
		t.Error("the retry got another certificate")
	}
	if _, _, err := after.Issue(l.request(t, v, 20), t0+minute); !errors.Is(err, ErrInviteUsed) {
		t.Errorf("used twice across a restart: %v", err)
	}
	for cut := range state {
		if after.Restore(state[:cut]) == nil {
			t.Fatalf("a state cut to %d bytes was taken", cut)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 1)
	stranger := *v
	stranger.Token[0]++
	elsewhere := *v
	elsewhere.Issuer = id.FromPrefix("ab")
	altered := l.request(t, v, 10)
	altered.Domain = "roof"
	swapped := l.request(t, v, 10)
	swapped.Node = testKey(40).Public()
	slow := l.request(t, v, 10)
	slow.Wall -= hour
	slow.Proof = slow.prove(tokenKey(v.Token))
	gone := l.request(t, v, 50)
	l.issuer.Revoked = func(g id.GUID) bool { return g == GUIDOf(gone.Node) }

	for name, tc := range map[string]struct {
		q    *JoinRequest
		now  int64
		want error
		text string
	}{
		"made-up token":       {l.request(t, &stranger, 10), t0, ErrBadInvite, ""},
		"another issuer":      {l.request(t, &elsewhere, 10), t0, ErrBadInvite, ""},
		"altered on the way":  {altered, t0, ErrBadInvite, "does not fit"},
		"key swapped":         {swapped, t0, ErrBadInvite, "does not fit"},
		"a day late":          {l.request(t, v, 10), t0 + 25*hour, ErrInviteExpired, "2026-01-02 00:00:00 UTC"},
		"a clock an hour off": {slow, t0, ErrClock, "says 2025-12-31 23:00:00 UTC, that of the issuer 2026-01-01 00:00:00 UTC"},
		"a revoked node":      {gone, t0, ErrRevoked, ""},
	} {
		_, changed, err := l.issuer.Issue(tc.q, tc.now)
		if !errors.Is(err, tc.want) || changed || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, uses := l.issuer.Outstanding(t0); uses != 1 {
		t.Errorf("refusals burnt uses: %d left", uses)
	}
}

func TestInviteTerms(t *testing.T) {
	l := newLagoon(t)
	plain, err := NewIssuer(l.pool, l.admin, l.chain, Key{})
	check(t, err)
	if _, err := plain.Invite(Token{}, Terms{Role: Admin, Uses: 1, TTL: hour}, t0); !errors.Is(err, ErrForbidden) {
		t.Errorf("an admin without the root key invites admins: %v", err)
	}
	if _, err := NewIssuer(l.pool, testKey(10), l.member(t, 10), Key{}); !errors.Is(err, ErrForbidden) {
		t.Errorf("a member invites: %v", err)
	}
	if _, err := NewIssuer(l.pool, l.admin, l.chain, testKey(9)); !errors.Is(err, ErrWrongPool) {
		t.Errorf("a strange root key: %v", err)
	}
	for _, bad := range []Terms{
		{Role: 0, Uses: 1, TTL: hour},
		{Role: Member, Uses: 0, TTL: hour},
		{Role: Member, Uses: MaxUses + 1, TTL: hour},
		{Role: Member, Uses: 1},
		{Role: Member, Uses: 1, TTL: Validity + 1},
	} {
		if _, err := l.issuer.Invite(Token{}, bad, t0); err == nil {
			t.Errorf("terms %+v taken", bad)
		}
	}
	v, err := l.issuer.Invite(Token{5}, Terms{Role: Admin, Uses: 1, TTL: hour}, t0)
	check(t, err)
	c, _, err := l.issuer.Issue(l.request(t, v, 60), t0)
	check(t, err)
	if len(c) != 1 || c.Leaf().Role != Admin {
		t.Errorf("an admin's chain: %d certificates, %s", len(c), c.Leaf().Role)
	}
	check(t, c.Verify(l.pool, t0))

	for i := range MaxInvites - 1 {
		_, err := l.issuer.Invite(Token{6, byte(i), byte(i >> 8)}, Terms{Role: Member, Uses: 1, TTL: hour}, t0)
		check(t, err)
	}
	full := Terms{Role: Member, Uses: 1, TTL: hour}
	if _, err := l.issuer.Invite(Token{7}, full, t0); err == nil {
		t.Error("more invites than the bound")
	}
	_, err = l.issuer.Invite(Token{7}, full, t0+8*day)
	check(t, err)
}

func TestRenew(t *testing.T) {
	l := newLagoon(t)
	old := l.member(t, 10)
	same, err := l.issuer.Renew(&RenewRequest{old}, t0+100*day)
	check(t, err)
	if same.Leaf() != old.Leaf() {
		t.Error("renewed too early")
	}
	// The admin renews first, else its members' chains would end with its own.
	own, err := l.issuer.Renew(&RenewRequest{l.chain}, t0+201*day)
	check(t, err)
	l.issuer.SetChain(own)
	fresh, err := l.issuer.Renew(&RenewRequest{old}, t0+201*day)
	check(t, err)
	if fresh.NotAfter() != t0+201*day+Validity || fresh.Leaf().Owner != old.Leaf().Owner {
		t.Errorf("renewed to %s", date(fresh.NotAfter()))
	}
	var w JoinAnswer
	w.Wall, w.Pool, w.Chain = t0, l.pool, fresh
	_, err = ParseRenewal(l.pool, w.Encode(), old.Leaf(), t0+201*day)
	check(t, err)
	if _, err := ParseRenewal(l.pool, w.Encode(), l.chain.Leaf(), t0+201*day); !errors.Is(err, ErrNotMember) {
		t.Errorf("took another's renewal: %v", err)
	}
	if _, err := l.issuer.Renew(&RenewRequest{old}, t0+500*day); !errors.Is(err, ErrExpired) {
		t.Errorf("an expired member renewed: %v", err)
	}
	plain, err := NewIssuer(l.pool, l.admin, l.chain, Key{})
	check(t, err)
	if _, err := plain.Renew(&RenewRequest{l.chain}, t0+201*day); !errors.Is(err, ErrForbidden) {
		t.Errorf("an admin renewed itself: %v", err)
	}
}
