package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"atoll.example/atoll/internal/id"
)

// Exit codes of the command line.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitUnavailable = 4 // unavailable, or no quorum
	ExitRefused     = 5
	ExitIntegrity   = 6
	ExitInterrupt   = 130 // Ctrl-C
)

// Codes of errors.
const (
	BadRequest    = "bad_request"
	BadLink       = "bad_link"
	BadInvite     = "bad_invite"
	WrongPool     = "wrong_pool"
	NotFound      = "not_found"
	Removed       = "removed"
	Expired       = "expired"
	Busy          = "busy"
	Unavailable   = "unavailable"
	NoQuorum      = "no_quorum"
	Deadline      = "deadline"
	NotRunning    = "not_running"
	NotMember     = "not_member"
	Forbidden     = "forbidden"
	Revoked       = "revoked"
	InviteUsed    = "invite_used"
	InviteExpired = "invite_expired"
	Changed       = "changed"
	Exists        = "exists"
	CAS           = "cas"
	StaleSeq      = "stale_seq"
	Clock         = "clock"
	Quota         = "quota"
	Full          = "full"
	Claims        = "claims"    // a member's files share a block as often as can be
	Cancelled     = "cancelled" // by POST /jobs/ID/cancel, or by the node's end
	Corrupt       = "corrupt"
	BadName       = "bad_name"
	BadSig        = "bad_sig"
	Equivocation  = "equivocation"
	Internal      = "internal"
	PortInUse     = "port_in_use"
	BadDir        = "bad_dir"
	DirInUse      = "dir_in_use"
	DiskFailed    = "disk_failed"
	NotBuilt      = "not_built"
)

// Class is what a code means to HTTP and to the shell.
type Class struct {
	Status int
	Exit   int
}

// Classes is the one table of codes. A code that is not here is Internal.
// One refusal has a status beside its code's: bad_request for a wrong method is
// 405, as HTTP has it with the header Allow.
var Classes = map[string]Class{
	BadRequest: {http.StatusBadRequest, ExitUsage},
	BadLink:    {http.StatusBadRequest, ExitUsage},
	BadInvite:  {http.StatusBadRequest, ExitUsage},
	WrongPool:  {http.StatusBadRequest, ExitUsage},

	NotFound: {http.StatusNotFound, ExitNotFound},
	Removed:  {http.StatusNotFound, ExitNotFound},
	Expired:  {http.StatusNotFound, ExitNotFound},

	Busy:        {http.StatusTooManyRequests, ExitUnavailable},
	Unavailable: {http.StatusServiceUnavailable, ExitUnavailable},
	NoQuorum:    {http.StatusServiceUnavailable, ExitUnavailable},
	NotRunning:  {http.StatusServiceUnavailable, ExitUnavailable},
	Deadline:    {http.StatusGatewayTimeout, ExitUnavailable},

	NotMember:     {http.StatusUnauthorized, ExitRefused},
	Forbidden:     {http.StatusForbidden, ExitRefused},
	Revoked:       {http.StatusForbidden, ExitRefused},
	InviteUsed:    {http.StatusForbidden, ExitRefused},
	InviteExpired: {http.StatusForbidden, ExitRefused},
	Changed:       {http.StatusConflict, ExitRefused},
	Exists:        {http.StatusConflict, ExitRefused},
	CAS:           {http.StatusConflict, ExitRefused},
	StaleSeq:      {http.StatusConflict, ExitRefused},
	Clock:         {http.StatusConflict, ExitRefused},
	Claims:        {http.StatusConflict, ExitRefused},
	Cancelled:     {http.StatusConflict, ExitRefused},
	Quota:         {http.StatusInsufficientStorage, ExitRefused},
	Full:          {http.StatusInsufficientStorage, ExitRefused},

	Corrupt:      {http.StatusUnprocessableEntity, ExitIntegrity},
	BadName:      {http.StatusUnprocessableEntity, ExitIntegrity},
	BadSig:       {http.StatusUnprocessableEntity, ExitIntegrity},
	Equivocation: {http.StatusUnprocessableEntity, ExitIntegrity},

	Internal:   {http.StatusInternalServerError, ExitFailure},
	PortInUse:  {http.StatusInternalServerError, ExitFailure},
	BadDir:     {http.StatusInternalServerError, ExitFailure},
	DirInUse:   {http.StatusInternalServerError, ExitFailure},
	DiskFailed: {http.StatusInternalServerError, ExitFailure},
	NotBuilt:   {http.StatusNotImplemented, ExitFailure},
}

// Error is the one form in which failures reach a user: what went wrong, in
// words a user can act on, and the code programs look at. It never holds a
// link, token or key.
type Error struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Op      string  `json:"op"`     // put, get, join …
	Object  string  `json:"object"` // a GUID, name or path
	Retry   bool    `json:"retry"`  // the same call may succeed later
	AfterMS int64   `json:"after_ms"`
	Detail  *Detail `json:"detail"`

	status int // HTTP's own, when not the code's
	err    error
}

// Detail is what a code has to say beyond its message.
type Detail struct {
	Nodes []id.GUID `json:"nodes,omitempty"` // who is silent, full or behind
	Text  string    `json:"text,omitempty"`
}

// Errorf makes an Error. %w keeps the cause in its chain.
func Errorf(code, op, object, format string, a ...any) *Error {
	err := fmt.Errorf(format, a...)
	return &Error{Code: code, Message: err.Error(), Op: op, Object: object, Retry: retryable(code), err: errors.Unwrap(err)}
}

func retryable(code string) bool {
	switch code {
	case Busy, Unavailable, NoQuorum, Deadline, NotRunning, Clock:
		return true
	}
	return false
}

func (e *Error) Error() string {
	switch {
	case e.Op == "":
		return e.Message
	case e.Object == "":
		return e.Op + ": " + e.Message
	default:
		return e.Op + " " + e.Object + ": " + e.Message
	}
}

// Unwrap returns the cause, where it is of this process.
func (e *Error) Unwrap() error { return e.err }

// Is matches Errors by code, so that errors.Is(err, &Error{Code: NotFound})
// holds for every error of that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// Status is the HTTP status of the error.
func (e *Error) Status() int {
	if e.status != 0 {
		return e.status
	}
	if c, ok := Classes[e.Code]; ok {
		return c.Status
	}
	return http.StatusInternalServerError
}

// Exit is the exit code of the error.
func (e *Error) Exit() int {
	if c, ok := Classes[e.Code]; ok {
		return c.Exit
	}
	return ExitFailure
}

// AsError finds or makes the Error of err, which must not be nil: an *Error in
// its chain, else one made from a Code() in its chain, else deadline or
// cancelled for a context's errors, else internal. Unknown codes are internal.
func AsError(op string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if _, ok := Classes[e.Code]; ok {
			if e.Op == "" {
				c := *e
				c.Op = op
				return &c
			}
			return e
		}
		return Errorf(Internal, op, e.Object, "%w", err)
	}
	var c interface {
		error
		Code() string
	}
	if errors.As(err, &c) {
		e := Errorf(c.Code(), op, "", "%w", err)
		if _, ok := Classes[e.Code]; !ok {
			e = Errorf(Internal, op, "", "%w", err)
		}
		e.Message = strings.TrimPrefix(e.Message, op+": ") // Error says it again
		if a, ok := c.(interface{ AfterMS() int64 }); ok {
			e.AfterMS = a.AfterMS()
		}
		var d Detail
		if n, ok := c.(interface{ Nodes() []id.GUID }); ok {
			d.Nodes = n.Nodes()
		}
		if t, ok := c.(interface{ Detail() string }); ok {
			d.Text = t.Detail()
		}
		if d.Nodes != nil || d.Text != "" {
			e.Detail = &d
		}
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(Deadline, op, "", "not done in time")
	case errors.Is(err, context.Canceled):
		return Errorf(Cancelled, op, "", "cancelled")
	}
	return Errorf(Internal, op, "", "%w", err)
}

// errorBody is what an error looks like on the wire.
type errorBody struct {
	Error *Error `json:"error"`
}
