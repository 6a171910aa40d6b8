package ident

import (
	"errors"
	"fmt"
)

// Sentinels. Errors of this package wrap one of them and say what was wrong in
// words for the person at the keyboard.
var (
	ErrBadInvite     = errors.New("not a valid invite")
	ErrTyping        = fmt.Errorf("%w: mistyped or cut off (checksum differs)", ErrBadInvite)
	ErrWrongPool     = errors.New("belongs to another pool")
	ErrInviteExpired = errors.New("invite has expired")
	ErrInviteUsed    = errors.New("invite has been used up")
	ErrRevoked       = errors.New("membership was revoked")
	ErrNotMember     = errors.New("not a member of the pool")
	ErrExpired       = fmt.Errorf("%w: certificate has expired", ErrNotMember)
	ErrForbidden     = errors.New("not allowed for this role")
	ErrClock         = errors.New("clocks disagree")
	ErrVersion       = errors.New("no common protocol version")
	ErrUnavailable   = errors.New("cannot be reached now")
	ErrBadKey        = errors.New("not a key file")
	ErrBadLabel      = errors.New("label not allowed")
	ErrInternal      = errors.New("the node that was asked failed")
)

// codes pairs sentinels with the error codes of the API (20-dht §8), the more
// special first.
var codes = []struct {
	err  error
	code string
}{
	{ErrBadInvite, "bad_invite"},
	{ErrWrongPool, "wrong_pool"},
	{ErrInviteExpired, "invite_expired"},
	{ErrInviteUsed, "invite_used"},
	{ErrRevoked, "revoked"},
	{ErrNotMember, "not_member"},
	{ErrForbidden, "forbidden"},
	{ErrClock, "clock"},
	{ErrUnavailable, "unavailable"},
	{ErrVersion, "bad_request"},
	{ErrBadLabel, "bad_request"},
	{ErrBadKey, "bad_request"},
	{ErrInternal, "internal"},
}

// Code returns the API's code for err; "internal" for errors of other packages.
func Code(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return "internal"
}

// Refusal is an error that another node sent.
type Refusal struct {
	Code string // one of those of Code
	Text string // for people, as the other node put it
}

// Error is Text without what could confuse a terminal.
func (r *Refusal) Error() string { return printable(r.Text) }

// Unwrap returns the sentinel that Code stands for.
func (r *Refusal) Unwrap() error {
	for _, c := range codes {
		if c.code == r.Code {
			return c.err
		}
	}
	return ErrInternal
}
