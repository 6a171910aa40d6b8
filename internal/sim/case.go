package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Case is one run of a scenario, whole or in part. It is a file of JSON: what
// the shrinker leaves, and what replays.
type Case struct {
	Scenario  string   `json:"scenario"`
	Seed      uint64   `json:"seed"`
	Quick     bool     `json:"quick,omitempty"`
	NodeHours float64  `json:"node_hours,omitempty"` // 0: the scenario's own
	Bugs      []string `json:"bugs,omitempty"`       // planted, by name
	Only      *Subset  `json:"only,omitempty"`       // nil: all of it

	File string    `json:"-"` // where it was read from or will be, for the line that replays it
	Log  io.Writer `json:"-"` // see Options
}

// MaxCase bounds the file of a case, in bytes.
const MaxCase = 16 << 20

// DecodeCase reads the file of a case and checks it.
func DecodeCase(b []byte) (Case, error) {
	var c Case
	if len(b) > MaxCase {
		return c, fmt.Errorf("a case of %d bytes: %d at most", len(b), MaxCase)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Case{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Case{}, errors.New("more follows after the case")
	}
	if err := c.validate(); err != nil {
		return Case{}, err
	}
	return c, nil
}

// Encode is the file of c.
func (c Case) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	return append(b, '\n'), err
}

func (c *Case) validate() error {
	sc, err := ScenarioByName(c.Scenario)
	if err != nil || c.Only == nil {
		return err
	}
	if sc.Whole {
		return errWhole(sc.Name)
	}
	s := c.Only
	rises := func(ns []int) bool {
		last := 0
		return !slices.ContainsFunc(ns, func(n int) bool {
			falls := n <= last
			last = n
			return falls
		})
	}
	switch {
	case s.Finding == "":
		return errors.New("the finding is not named")
	case !rises(s.Nodes) || !rises(s.Ops):
		return errors.New("numbers of nodes and operations count from 1 and rise")
	case s.UntilMS < 0 || s.UntilMS > 1e11:
		return fmt.Errorf("until_ms of %d: 0 to 1e11", s.UntilMS)
	}
	for _, f := range s.Faults {
		if f.Kind == "" || f.N < 0 || f.Node < 0 || f.Draws > 1e8 {
			return fmt.Errorf("fault %q: it has a kind, n and node are not negative, draws 1e8 at most", f)
		}
	}
	return nil
}

func errWhole(scenario string) error {
	return fmt.Errorf("%s measures its whole run: no part of it can be left out", scenario)
}

// Run runs c, or the whole of it with so many seeds from its own on if seeds is
// above 1.
func (c Case) Run(ctx context.Context, seeds int, progress func(Progress)) (Report, error) {
	s, err := ScenarioByName(c.Scenario)
	if err != nil {
		return nil, err
	}
	o := Options{Seeds: seeds, Quick: c.Quick, NodeHours: c.NodeHours, Bugs: c.Bugs, Log: c.Log, only: c.Only, file: c.File}
	return s.Run(ctx, c.Seed, o, progress)
}

// replay is the command that runs c again.
func (c *Case) replay() string {
	return origin{c.Scenario, c.Quick, c.File}.replay(c.Seed)
}

func (f Episode) String() string {
	if f.N == 0 {
		return f.Kind
	}
	return fmt.Sprintf("%s %d", f.Kind, f.N)
}
