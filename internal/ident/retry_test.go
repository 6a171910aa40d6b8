package ident

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenInviteRetry: an invite of one use, an answer that is lost, an issuer
// that crashes; the retry gets the same certificate and burns nothing (20-dht
// §7, §10). A is the admin who issued the invite, M a member who passes on, J
// and K want to join. What must not differ is asserted beside the trace.
func TestGoldenInviteRetry(t *testing.T) {
	var lines []string
	now := t0
	say := func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf("%5d s  %s", (now-t0)/1000, fmt.Sprintf(format, args...)))
	}
	chapter := func(text string) { lines = append(lines, "", text) }

	l := newLagoon(t)
	v := l.invite(t, 1)
	disk := l.issuer.Encode()
	member := l.member(t, 30)
	// ask lets n ask A by way of M, and A answer.
	ask := func(who string, n uint64) (*JoinAnswer, error) {
		t.Helper()
		q := l.request(t, v, n)
		q.Wall = now
		q.Proof = q.prove(tokenKey(v.Token))
		say("%s → M  join, with a proof made under the token", who)
		say("M → A  the same, passed on")
		chain, changed, err := l.issuer.Issue(q, now)
		answer := &JoinAnswer{Wall: now, Pool: l.pool, Chain: chain}
		if err != nil {
			answer = Refuse(err, now)
		}
		if changed {
			disk = l.issuer.Encode()
			say("A ▪     one use burnt, and whom the certificate went to")
		}
		_, uses := l.issuer.Outstanding(now)
		if err != nil {
			say("A → M  refused: %s", answer.Refusal.Code)
		} else {
			say("A → M  certificate %x for %s; uses left: %d", chain.Leaf().Serial[:3], who, uses)
		}
		return v.ParseAnswer(answer.Encode(), q, now)
	}

	chapter("J has an invite of one use. It checks whom it is talking to.")
	say("J → M  identify")
	peer, err := v.ParseIdentity((&Identity{Wall: now, Pool: l.pool, Chain: member}).Encode(), member.Leaf().Node, now)
	check(t, err)
	say("M → J  pool %s, and a certificate that leads to its root key", peer.Pool.ID().Short())

	chapter("J joins. The answer is lost on its way back.")
	first, err := ask("J", 10)
	check(t, err)
	say("M → J  (lost)")

	chapter("A crashes, and starts again from its disk.")
	now += 20 * 1000
	again, err := NewIssuer(l.pool, l.admin, l.chain, l.root)
	check(t, err)
	check(t, again.Restore(disk))
	l.issuer = again

	// retry has J ask again.
	retry := func() {
		t.Helper()
		before := string(disk)
		second, err := ask("J", 10)
		check(t, err)
		say("M → J  the answer")
		if second.Chain.Leaf().Sig != first.Chain.Leaf().Sig || string(disk) != before {
			t.Error("the retry got another certificate, or burnt a use")
		}
		if err := second.Chain.Verify(l.pool, now); err != nil {
			t.Error(err)
		}
	}
	chapter("J tries again: the same certificate, and nothing is burnt.")
	now = t0 + minute
	retry()

	chapter("K has seen the invite too, and comes too late.")
	now = t0 + 2*minute
	if _, err := ask("K", 20); !errors.Is(err, ErrInviteUsed) {
		t.Errorf("the invite was used twice: %v", err)
	}
	chapter("The next day the invite has expired, for K.")
	now = t0 + 25*hour
	if _, err := ask("K", 20); !errors.Is(err, ErrInviteExpired) {
		t.Errorf("an invite of a day, after a day: %v", err)
	}
	chapter("J, whose answer was lost once more, still gets what it was granted.")
	now = t0 + 26*hour
	retry()
	wiretest.Text(t, filepath.Join("testdata", "invite-retry.txt"), "An invite, and a join that is tried again\n"+strings.Join(lines, "\n")+"\n")
}
