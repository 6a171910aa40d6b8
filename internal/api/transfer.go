package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// put is POST /v1/put. What it cannot do yet it refuses by name.
func (s *Server) put(w http.ResponseWriter, r *http.Request) error {
	if contentType(r) != typeOctets {
		return refuse("the body must be of type " + typeOctets)
	}
	q := newQuery(r.URL.RawQuery)
	chunk, ttl := q.text("chunk", 16), q.number("ttl_s", 0, math.MaxInt64)
	p := PutParams{
		Name: q.text("name", MaxName), Size: q.number("size", -1, math.MaxInt64),
		Unique: q.truth("unique"), Clear: q.truth("clear"),
		K: int(q.number("k", 0, 8)), W: int(q.number("w", 0, 8)), Job: q.text("job", 64),
		Path: q.text("path", MaxPath), NoResume: q.truth("no_resume"),
	}
	if err := q.finish(); err != nil {
		return refuse("%w", err)
	}
	switch chunk {
	case "", "fixed":
	case "cdc":
		return Errorf(NotBuilt, "put", "", "chunk=cdc is not built yet")
	default:
		return refuse("chunk must be fixed")
	}
	if ttl != 0 {
		return Errorf(NotBuilt, "put", "", "ttl_s is not built yet")
	}
	if err := p.check(); err != nil {
		return err
	}
	switch {
	case p.Path != "" && r.ContentLength != 0:
		return refuse("either path or a body")
	case p.Path == "" && p.Size >= 0 && r.ContentLength >= 0 && p.Size != r.ContentLength:
		return refuse("size is %d, but the body has %d bytes", p.Size, r.ContentLength)
	}
	v, err := runJob(r.Context(), s.jobs, "put", p.Job, func(ctx context.Context, report Report) (PutResult, error) {
		return s.node.Put(ctx, p, r.Body, report)
	})
	if err != nil {
		return AsError("put", err)
	}
	return writeJSON(w, v)
}

func (p PutParams) query() url.Values {
	q := make(url.Values)
	set := func(name, v string, when bool) {
		if when {
			q.Set(name, v)
		}
	}
	set("name", p.Name, p.Name != "")
	set("size", strconv.FormatInt(p.Size, 10), p.Size >= 0)
	set("unique", "true", p.Unique)
	set("clear", "true", p.Clear)
	set("k", strconv.Itoa(p.K), p.K != 0)
	set("w", strconv.Itoa(p.W), p.W != 0)
	set("job", p.Job, p.Job != "")
	set("path", p.Path, p.Path != "")
	set("no_resume", "true", p.NoResume)
	return q
}

// get is POST /v1/get. Until the head is known an error is an answer of its
// own; later it is a trailer, and the lack of "Atoll-Verified: ok" says that
// what was sent is not all.
func (s *Server) get(w http.ResponseWriter, r *http.Request) error {
	var req GetRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if err := req.check(); err != nil {
		return AsError("get", err)
	}
	begun := false
	begin := func(head GetHead) (io.Writer, error) {
		begun = true
		h := w.Header()
		h.Set("Content-Type", typeOctets)
		h.Set("Trailer", TrailerVerified+", "+TrailerError)
		h.Set(HeaderSize, strconv.FormatInt(head.Size, 10))
		h.Set(HeaderName, url.PathEscape(head.Name))
		h.Set(HeaderGUID, head.GUID.String())
		w.WriteHeader(http.StatusOK)
		return w, http.NewResponseController(w).Flush()
	}
	v, err := runJob(r.Context(), s.jobs, "get", req.Job, func(ctx context.Context, report Report) (GetResult, error) {
		return s.node.Get(ctx, req, begin, report)
	})
	switch {
	case err != nil && !begun:
		return AsError("get", err)
	case err != nil:
		w.Header().Set(TrailerError, asciiJSON(errorBody{AsError("get", err)}))
		return nil
	case begun:
		w.Header().Set(TrailerVerified, "ok")
		return nil
	default:
		return writeJSON(w, v)
	}
}

// asciiJSON is JSON fit for a header.
func asciiJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("api: an error does not marshal: " + err.Error())
	}
	var sb strings.Builder
	for _, r := range string(b) {
		switch {
		case r < 0x7f:
			sb.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			writeEscape(&sb, 0xd800+(r>>10)&0x3ff)
			writeEscape(&sb, 0xdc00+r&0x3ff)
		default:
			writeEscape(&sb, r)
		}
	}
	return sb.String()
}

func writeEscape(sb *strings.Builder, r rune) {
	const digits = "0123456789abcdef"
	sb.WriteString(`\u`)
	for shift := 12; shift >= 0; shift -= 4 {
		sb.WriteByte(digits[r>>shift&15])
	}
}

// dhtPut is POST /v1/dht/put: octets make a content block, JSON a signed one.
func (s *Server) dhtPut(w http.ResponseWriter, r *http.Request) error {
	var req DHTPutRequest
	if contentType(r) == typeOctets {
		if err := newQuery(r.URL.RawQuery).finish(); err != nil {
			return refuse("%w", err)
		}
		b, err := readBody(r, MaxBody)
		if err != nil {
			return err
		}
		req.Raw = b
	} else {
		req.Signed = new(SignedValue)
		if err := readJSON(r, req.Signed); err != nil {
			return err
		}
		if err := req.Signed.check(); err != nil {
			return AsError("dht put", err)
		}
	}
	v, err := s.node.DHTPut(r.Context(), req)
	if err != nil {
		return AsError("dht put", err)
	}
	return writeJSON(w, v)
}

// signedAnswer is the value of a signed block on the wire.
type signedAnswer struct {
	Value []byte `json:"value"`
	Seq   uint64 `json:"seq"`
}

// dhtGet is POST /v1/dht/get: octets for a content block, JSON for a signed one.
func (s *Server) dhtGet(w http.ResponseWriter, r *http.Request) error {
	var req DHTGetRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	v, err := s.node.DHTGet(r.Context(), req)
	if err != nil {
		return AsError("dht get", err)
	}
	if v.Seq != nil {
		return writeJSON(w, signedAnswer{v.Value, *v.Seq})
	}
	w.Header().Set("Content-Type", typeOctets)
	w.Header().Set("Content-Length", strconv.Itoa(len(v.Value)))
	_, _ = io.Copy(w, bytes.NewReader(v.Value)) // as in writeJSON
	return nil
}
