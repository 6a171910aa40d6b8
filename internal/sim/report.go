package sim

import "io"

// Report is the outcome of a scenario: it marshals to JSON and prints itself
// as a table.
type Report interface {
	Print(w io.Writer)
	// OK reports whether every checker passed.
	OK() bool
	// Stopped reports whether the run was ended before its time.
	Stopped() bool
}

func (r *Result) OK() bool      { return r.Passed }
func (r *Result) Stopped() bool { return r.Partial }

var _ Report = (*Result)(nil)
