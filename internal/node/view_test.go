package node

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/roster"
)

// TestCalled: members of one name are told apart.
func TestCalled(t *testing.T) {
	a, b, c := id.FromPrefix("65a1fc"), id.FromPrefix("d13da3"), id.FromPrefix("d46a1c")
	named := func(g id.GUID, name string) roster.Info {
		return roster.Info{GUID: g, Cert: &ident.Certificate{Name: name}}
	}
	v := View{Roster: []roster.Info{named(a, "host"), named(b, "host"), named(c, "alpha")}}
	for g, want := range map[id.GUID]string{a: "host (65a1fc00)", b: "host (d13da300)", c: "alpha"} {
		if got := v.Called(g); got != want {
			t.Errorf("%s is called %q, want %q", g.Short(), got, want)
		}
	}
}
