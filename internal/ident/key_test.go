package ident

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKeyFile(t *testing.T) {
	k, err := NewKey(bytes.NewReader(bytes.Repeat([]byte{5}, 32)))
	check(t, err)
	got, err := ParseKey(k.Encode())
	check(t, err)
	if got.Seed() != k.Seed() || got.GUID() != k.GUID() {
		t.Error("a key file gives back another key")
	}
	if _, err := NewKey(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a key was made of 31 bytes")
	}
	for _, bad := range []string{
		"", "\n", "atoll-key1:\n", strings.TrimSuffix(string(k.Encode()), "\n"), string(k.Encode()) + "\n",
		strings.ToUpper(string(k.Encode())), strings.Replace(string(k.Encode()), "key1:a", "key1:b", 1),
	} {
		if _, err := ParseKey([]byte(bad)); !errors.Is(err, ErrBadKey) {
			t.Errorf("ParseKey(%q) = %v", bad, err)
		}
	}
}

func TestSecretsStayOutOfLogs(t *testing.T) {
	l := newLagoon(t)
	v := l.invite(t, 1)
	seed := l.admin.Seed()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if s := fmt.Sprintf(verb, l.admin); strings.Contains(s, fmt.Sprintf("%x", seed[:4])) || len(s) > 20 {
			t.Errorf("key printed with %s: %s", verb, s)
		}
		if s := fmt.Sprintf(verb, v.Token); s != "token:…" {
			t.Errorf("token printed with %s: %s", verb, s)
		}
	}
	if s := fmt.Sprint(v); strings.Contains(s, "atoll-invite1:") || strings.Contains(s, fmt.Sprintf("%x", v.Token[:3])) {
		t.Errorf("invite printed: %s", s)
	}
}

func TestSignaturesKeepTheirDomain(t *testing.T) {
	k := testKey(4)
	sig := k.Sign(DomainReady, []byte("msg"))
	if !Verify(k.Public(), DomainReady, []byte("msg"), sig) {
		t.Error("own signature refused")
	}
	if Verify(k.Public(), DomainLeft, []byte("msg"), sig) || Verify(k.Public(), DomainReady, []byte("msh"), sig) ||
		Verify(testKey(5).Public(), DomainReady, []byte("msg"), sig) {
		t.Error("a signature passed for another")
	}
	tags := []string{
		domainPool, domainCert, DomainReady, DomainLeft, DomainRevoked,
		"atoll/storecert/1", "atoll/receipt/1", "atoll/signed/1", "atoll/remove/1", // package dht's
	}
	for i, a := range tags {
		for j, b := range tags {
			if i != j && strings.HasPrefix(a, b) {
				t.Errorf("tag %s begins with tag %s", a, b)
			}
		}
	}
}

func TestLabels(t *testing.T) {
	for _, good := range []string{"", "attic", "Große Insel 3", strings.Repeat("x", MaxLabel)} {
		if err := CheckLabel(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{" a", "a ", "a\nb", "a\x1b[31m", "\u202egnp", "\xff", strings.Repeat("x", MaxLabel+1), "\ufffd"} {
		if err := CheckLabel(bad); !errors.Is(err, ErrBadLabel) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := CheckLabel(Label(bad)); err != nil {
			t.Errorf("Label(%q) = %q: %v", bad, Label(bad), err)
		}
	}
	if got := Label(strings.Repeat("ä", 40)); got != strings.Repeat("ä", 32) {
		t.Errorf("cut in the middle of a rune: %q", got)
	}
}
