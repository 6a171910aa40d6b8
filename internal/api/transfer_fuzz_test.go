package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
)

// taker is a Node that notes what reaches it of put and get.
type taker struct {
	Node
	put   *PutParams
	get   *GetRequest
	timed bool
	head  GetHead
	fails string // with which a get ends after its head
}

func (n *taker) Put(ctx context.Context, p PutParams, _ io.Reader, _ Report) (PutResult, error) {
	n.put = &p
	_, n.timed = ctx.Deadline()
	return PutResult{}, ctx.Err()
}

func (n *taker) Get(_ context.Context, r GetRequest, begin func(GetHead) (io.Writer, error), _ Report) (GetResult, error) {
	n.get = &r
	if _, err := begin(n.head); err != nil || n.fails == "" {
		return GetResult{}, err
	}
	return GetResult{}, Errorf(Internal, "get", n.fails, "%w", errors.New(n.fails))
}

// ask lets s answer a POST, whose parts need not be what an HTTP client would send.
func ask(s *Server, path, query, ctype, body string, length int64, timeout string) answer {
	h := http.Header{"Content-Type": {ctype}, HeaderTimeout: {timeout}}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: path, RawQuery: query}, Header: h,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: length,
	})
	resp := w.Result()
	defer func() { _ = resp.Body.Close() }() // of memory
	return answer{resp.StatusCode, resp.Header, resp.Trailer}
}

// answer is a response without its body.
type answer struct {
	status        int
	head, trailer http.Header
}

// FuzzPut: parameters that reach the node are within their bounds, and written by
// a client reach it as the same; the rest is refused as the client's mistake.
func FuzzPut(f *testing.F) {
	f.Add("name=a&size=5&unique=true&k=3&w=2&job=j-1", typeOctets, int64(5), "1000000")
	f.Add("path=/a/b&no_resume=1&clear=t", typeOctets, int64(0), "")
	f.Add("path=/a/../b", typeOctets, int64(0), "")
	f.Add("size=9223372036854775808&k=9&k=1", typeOctets, int64(-1), "-1")
	f.Add("size=-1", typeOctets+"; charset=x", int64(-1), "9223372036854775807")
	f.Add("chunk=cdc&ttl_s=1", typeOctets, int64(0), "0")
	f.Add("name=%2e%2e", "", int64(0), "")
	f.Fuzz(func(t *testing.T, query, ctype string, length int64, timeout string) {
		n := new(taker)
		s := NewServer(n)
		status := ask(s, "/v1/put", query, ctype, "", length, timeout).status
		if n.put == nil {
			if status < 400 || status >= 500 && status != http.StatusNotImplemented {
				t.Errorf("%q: status %d", query, status)
			}
			return
		}
		p := *n.put
		if p.Size < -1 || p.K < 0 || p.K > 8 || p.W < 0 || p.W > 8 || p.Job != "" && !goodJobID(p.Job) || p.check() != nil ||
			p.Path != "" && length != 0 || p.Path == "" && p.Size >= 0 && length >= 0 && p.Size != length {
			t.Errorf("%q, %d bytes: %+v", query, length, p)
		}
		if n.timed != (timeout != "") {
			t.Errorf("timeout %q: a deadline %v", timeout, n.timed)
		}
		n.put = nil
		ask(s, "/v1/put", p.query().Encode(), typeOctets, "", length, "")
		if n.put == nil || *n.put != p {
			t.Errorf("%q is %+v, then %+v", query, p, n.put)
		}
	})
}

// FuzzGet: the same of get; and what the node says of a file, or of its failure,
// comes over whole in headers and trailers.
func FuzzGet(f *testing.F) {
	f.Add(`{"link":"atoll:r1:x","offset":1,"length":2,"job":"j"}`, "a b\r\nX: y", int64(5), "")
	f.Add(`{"link":"atoll:r1:x","out":"/a","force":true}`, "ü", int64(0), "damaged \x7f\U0001f41a\r\n\xff")
	f.Add(`{"link":"atoll:r1:x","offset":9223372036854775807,"length":1}`, "", int64(0), "")
	f.Add(`{"link":"","offset":-1}`, "", int64(0), "")
	f.Fuzz(func(t *testing.T, body, name string, size int64, fails string) {
		n := &taker{head: GetHead{Name: name, Size: size, GUID: id.GUID{1}}, fails: fails}
		resp := ask(NewServer(n), "/v1/get", "", typeJSON, body, int64(len(body)), "")
		if n.get == nil {
			if resp.status < 400 || resp.status >= 500 {
				t.Errorf("%q: status %d", body, resp.status)
			}
			return
		}
		if r := *n.get; r.Offset < 0 || r.Length < 0 || r.Offset+r.Length < 0 || len(r.Link) > MaxLink || r.check() != nil {
			t.Errorf("%q: %+v", body, r)
		}
		if head, err := readHead(resp.head); err != nil || head != n.head {
			t.Errorf("%+v is read as %+v, %v", n.head, head, err)
		}
		for _, all := range []http.Header{resp.head, resp.trailer} {
			for key, v := range all {
				if strings.ContainsFunc(strings.Join(v, ""), func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("%s: %q", key, v)
				}
			}
		}
		text := resp.trailer.Get(TrailerError)
		if fails == "" {
			if text != "" || resp.trailer.Get(TrailerVerified) != "ok" {
				t.Errorf("trailers %v", resp.trailer)
			}
			return
		}
		var e errorBody
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Error == nil || e.Error.Object != strings.ToValidUTF8(fails, "\ufffd") && !strings.Contains(e.Error.Object, "\ufffd") {
			t.Errorf("%q is told as %q, %v", fails, text, err)
		}
	})
}
