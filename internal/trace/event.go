// Package trace tells what happened inside a machine, as values. Machines emit
// events; hosts turn them into logs, metrics and the dashboard, the simulator
// into its checkers and trace hash.
package trace

import "atoll.example/atoll/internal/id"

// Event is one thing that happened. What each field means depends on Kind; the
// package that emits a Kind documents it there. Names are "part.what", such as
// "pastry.deliver".
type Event struct {
	Kind string
	Peer id.GUID // the other node, if any
	Key  id.GUID // the key or object, if any
	N    int64   // a count, size or duration in µs
	Note string  // for people; never a link, token or key
}
