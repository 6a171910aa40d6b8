package api

import (
	"context"
	"io"

	"github.com/prometheus/client_golang/prometheus"
)

// Report is called with the progress of a long operation, as often as the
// operation likes: the server passes on at most five a second. It is never nil
// when the server calls a Node, may be called by several goroutines, and does
// not block.
type Report func(Progress)

// Service is everything a node does for its user. Node adds what only a server
// needs; Client is a Service over the socket. Errors carry a code of the table
// in error.go: an *Error, or any error in whose chain is one with a method
// Code() string and, if it likes, AfterMS() int64, Nodes() []id.GUID and
// Detail() string. Other errors are "internal".
//
// A cancelled context ends every operation early: put and get keep their
// journals, so that the same call continues later.
type Service interface {
	Version(ctx context.Context) (Version, error)
	Status(ctx context.Context) (Status, error)
	Peers(ctx context.Context) (Peers, error)

	Invite(ctx context.Context, r InviteRequest) (InviteResult, error)
	Revoke(ctx context.Context, r RevokeRequest) (RevokeResult, error)
	// Leave hands everything over and signs off. The node ends after it.
	Leave(ctx context.Context, r LeaveRequest, report Report) (LeaveResult, error)

	// Put stores a file: the one at p.Path, or else what body yields.
	Put(ctx context.Context, p PutParams, body io.Reader, report Report) (PutResult, error)
	// Get fetches a file, or the part [Offset, Offset+Length) of it. With r.Out
	// it writes that file and does not call begin. Otherwise it calls begin
	// once, when the head is known and verified, and writes verified bytes to
	// the writer begin returns, in order.
	Get(ctx context.Context, r GetRequest, begin func(GetHead) (io.Writer, error), report Report) (GetResult, error)
	Stat(ctx context.Context, r LinkRequest) (StatResult, error)
	Rm(ctx context.Context, r LinkRequest) (RmResult, error)
	Ls(ctx context.Context, prefix string) (LsResult, error)
	Verify(ctx context.Context, r VerifyRequest, report Report) (VerifyResult, error)
	// Repair is Verify, and restores what can be restored.
	Repair(ctx context.Context, r VerifyRequest, report Report) (VerifyResult, error)

	DHTPut(ctx context.Context, r DHTPutRequest) (DHTPutResult, error)
	DHTGet(ctx context.Context, r DHTGetRequest) (DHTGetResult, error)
	DHTRemove(ctx context.Context, r DHTRemoveRequest) (DHTRemoveResult, error)

	Lookup(ctx context.Context, r KeyRequest) (LookupResult, error)
	Route(ctx context.Context, r KeyRequest) (RouteResult, error)
	Table(ctx context.Context) (Table, error)
	Doctor(ctx context.Context, r DoctorRequest) (DoctorResult, error)

	// Events calls emit for each trace event from now on, until ctx is done
	// (then it returns ctx's error) or emit fails. One that is too slow for a
	// queue loses events.
	Events(ctx context.Context, emit func(TraceEvent) error) error
}

// Node is what a Server serves.
type Node interface {
	Service
	// Metrics is gathered for GET /v1/metrics.
	Metrics() prometheus.Gatherer
}
