// Package api is the local control API of a node: HTTP/1.1 and JSON on the
// Unix socket DIR/atoll.sock. It holds the types that travel, the one table of
// error codes, the server's handlers over the interface Node, and a client
// with the same methods. Chapter 20 §8 of the design is its contract.
//
// # Rules
//
// GET changes nothing; a change is a POST with a body of type application/json
// or application/octet-stream, so that no browser form can make one. Bodies are
// at most MaxBody bytes, except the octets of put. Unknown and repeated fields
// are refused, in bodies and in queries. Links travel in bodies only, since
// URLs end up in logs. GUIDs are 64 hexadecimal digits, times RFC 3339, sizes
// bytes.
//
// # Who may connect
//
// The socket has mode 0600, and the kernel tells each side who the other is:
// the server serves its own user and root, and the client talks to its own
// user's or root's server.
//
// # Files on disk
//
// Put takes the query "path" and get the field "out": absolute paths that the
// node opens itself, which it may since client and node are one user. So the
// node can journal inode, size and time of the source and the state of a
// half-written target, and an interrupted transfer continues. Streams travel
// as octets instead.
//
// # Jobs
//
// Put, get, verify, repair and leave take a job id of the client's choosing.
// While they run, GET /v1/jobs/ID/events tells how far they are, and POST
// /v1/jobs/ID/cancel ends them; so does the client that hangs up. Events may be
// asked for shortly before the job begins.
package api

import "time"

// SocketName is the name of the socket in the node's folder.
const SocketName = "atoll.sock"

// Bounds.
const (
	MaxBody    = 1 << 20 // of a request, in bytes, but for the octets of put
	MaxLink    = 4 << 10 // of a link or invite, in bytes
	MaxName    = 255     // of a file's name, in bytes
	MaxPath    = 4096    // of a path, in bytes
	maxHeader  = 16 << 10
	maxFlight  = 256 // requests served at once
	maxJobs    = 64  // jobs running at once
	keptJobs   = 64  // ended jobs remembered
	maxDepth   = 16  // nesting of a JSON body
	eventEvery = 200 * time.Millisecond
	jobWait    = 5 * time.Second        // how long events wait for a job to begin
	drainTime  = 3 * time.Second        // how long Serve lets requests finish
	headerTime = 10 * time.Second       // for a request's header to arrive
	answerTime = 250 * time.Millisecond // of a client's timeout, for the node's answer that time is up
	idleTime   = 2 * time.Minute
)

// HeaderTimeout of a request is how long the client waits for the answer, in
// milliseconds above 0: the node gives up then and says what it knows.
const HeaderTimeout = "Atoll-Timeout"

// Headers and trailers of get.
const (
	HeaderSize      = "Atoll-Size"     // decimal bytes of the whole file
	HeaderName      = "Atoll-Name"     // the file's name, percent-encoded
	HeaderGUID      = "Atoll-Guid"     // root block
	TrailerVerified = "Atoll-Verified" // "ok" when every byte sent was verified and sent
	TrailerError    = "Atoll-Error"    // the error body, in ASCII, when not
)

const (
	typeJSON   = "application/json"
	typeOctets = "application/octet-stream"
	typeEvents = "text/event-stream"
)
