package api

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a request must look like before a Node sees it.

// Wrong tells what is wrong with a request, nil if nothing is: for whoever calls a
// Node without a Server in between.
func Wrong(r interface{ check() error }) error { return r.check() }

func (r InviteRequest) check() error {
	switch {
	case r.Role != "" && r.Role != "member" && r.Role != "admin":
		return refuse("role must be member or admin")
	case r.Uses < 0 || r.Uses > 1000:
		return refuse("uses must be 1 to 1000")
	case r.TTLS < 0 || r.TTLS > 400*24*3600:
		return refuse("an invite lives up to 400 days")
	case r.Quota < 0:
		return refuse("quota is negative")
	}
	return nil
}

func (r RevokeRequest) check() error {
	if r.GUID.IsZero() {
		return refuse("guid is missing")
	}
	return checkReason(r.Reason)
}

func (r LeaveRequest) check() error { return checkReason(r.Reason) }

func checkReason(s string) error {
	if len(s) > MaxName || !utf8.ValidString(s) {
		return refuse("reason must be text of at most %d bytes", MaxName)
	}
	return nil
}

func (r LinkRequest) check() error { return checkLink(r.Link) }

func checkLink(s string) error {
	switch {
	case s == "":
		return refuse("link is missing")
	case len(s) > MaxLink:
		return Errorf(BadLink, "", "", "a link has at most %d bytes", MaxLink)
	}
	return nil
}

func (r VerifyRequest) check() error {
	if r.All {
		if r.Link != "" {
			return refuse("either a link or all")
		}
		return nil
	}
	return checkLink(r.Link)
}

func (r GetRequest) check() error {
	switch {
	case r.Offset < 0 || r.Length < 0 || r.Offset+r.Length < 0:
		return refuse("offset and length must not be negative, nor too large")
	case r.Out != "":
		if err := checkPath("out", r.Out); err != nil {
			return err
		}
		if r.Offset != 0 || r.Length != 0 {
			return refuse("a part is sent as a stream, not written to out")
		}
	case r.Force:
		return refuse("force goes with out")
	}
	return checkLink(r.Link)
}

func (p PutParams) check() error {
	if p.Name != "" {
		if err := CheckName(p.Name); err != nil {
			return refuse("%w", err)
		}
	}
	if p.Path != "" {
		return checkPath("path", p.Path)
	}
	return nil
}

// CheckName tells why s cannot name a file, nil if it can: an element of a
// path, at most MaxName bytes, which leads nowhere else and shows as what it is.
func CheckName(s string) error {
	switch {
	case s == "":
		return refuse("the name is empty")
	case len(s) > MaxName:
		return refuse("the name has %d bytes, more than %d", len(s), MaxName)
	case !utf8.ValidString(s):
		return refuse("the name is not UTF-8")
	case strings.ContainsFunc(s, deceptive):
		return refuse("the name has control characters")
	case s == "." || s == "..", strings.ContainsAny(s, "/\x00"), !filepath.IsLocal(s):
		return refuse("the name is not that of a plain file")
	}
	return nil
}

// deceptive: control characters, line and paragraph separators, and those that
// turn the direction of writing. Others that show nothing have their place in the
// names of some scripts.
func deceptive(r rune) bool {
	return unicode.IsControl(r) || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func checkPath(field, s string) error {
	switch {
	case len(s) > MaxPath || strings.ContainsRune(s, 0):
		return refuse("%s must be a path of at most %d bytes", field, MaxPath)
	case !filepath.IsAbs(s) || filepath.Clean(s) != s:
		return refuse("%s must be an absolute path in its shortest form", field)
	}
	return nil
}

func (r DHTRemoveRequest) check() error {
	if r.Sign == nil {
		return nil
	}
	if len(r.Sign.Value) != 0 {
		return refuse("a removal has no value")
	}
	return r.Sign.check()
}

func (v SignedValue) check() error {
	switch {
	case len(v.Salt) > 64:
		return refuse("salt has %d bytes, more than 64", len(v.Salt))
	case len(v.Value) > 64<<10:
		return refuse("value has %d bytes, more than 65536: store larger state by pointer", len(v.Value))
	case v.Key != "":
		return checkPath("key", v.Key)
	}
	return nil
}

func (r KeyRequest) check() error { return nil }

func (r DoctorRequest) check() error {
	if len(r.Checks) > 64 {
		return refuse("too many checks")
	}
	if r.Backup != "" {
		return checkPath("backup", r.Backup)
	}
	return nil
}
