package api_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
)

// What no honest client sends is refused by name and never reaches the node.
func TestHostileRequests(t *testing.T) {
	n := apitest.New()
	_, dir := serve(t, n)
	c := rawClient(t, dir)
	guid := strings.Repeat("ab", 32)
	const j, o = "application/json", "application/octet-stream"
	tests := []struct {
		name, method, path, ctype, body string
		status                          int
		code                            string
	}{
		{"unknown endpoint", "GET", "/v1/secrets", "", "", 404, "not_found"},
		{"no version", "GET", "/status", "", "", 404, "not_found"},
		{"next version", "GET", "/v2/status", "", "", 404, "not_found"},
		{"path climbing", "GET", "/v1/../v1/status", "", "", 404, "not_found"},
		{"double slash", "GET", "/v1//status", "", "", 404, "not_found"},
		{"GET that changes", "GET", "/v1/leave", "", "", 405, "bad_request"},
		{"GET that changes, with a query", "GET", "/v1/rm?link=atoll:r1:x", "", "", 405, "bad_request"},
		{"GET of put", "GET", "/v1/put?path=/etc/passwd", "", "", 405, "bad_request"},
		{"HEAD", "HEAD", "/v1/status", "", "", 405, ""},
		{"OPTIONS", "OPTIONS", "/v1/leave", "", "", 405, "bad_request"},
		{"DELETE", "DELETE", "/v1/rm", "", "", 405, "bad_request"},
		{"PUT", "PUT", "/v1/put", o, "x", 405, "bad_request"},
		{"POST to a reading endpoint", "POST", "/v1/status", j, "{}", 405, "bad_request"},
		{"GET with a body", "GET", "/v1/status", j, "{}", 400, "bad_request"},
		{"form", "POST", "/v1/leave", "application/x-www-form-urlencoded", "reason=x", 400, "bad_request"},
		{"multipart form", "POST", "/v1/put", "multipart/form-data; boundary=b", "--b--", 400, "bad_request"},
		{"plain text", "POST", "/v1/leave", "text/plain", "{}", 400, "bad_request"},
		{"no type", "POST", "/v1/leave", "", "{}", 400, "bad_request"},
		{"broken type", "POST", "/v1/leave", "application/json; charset", "{}", 400, "bad_request"},
		{"octets for JSON", "POST", "/v1/rm", o, "{}", 400, "bad_request"},
		{"JSON for octets", "POST", "/v1/put", j, "{}", 400, "bad_request"},
		{"unknown field", "POST", "/v1/stat", j, `{"link":"atoll:r1:x","path":"/etc/passwd"}`, 400, "bad_request"},
		{"unknown parameter", "GET", "/v1/status?verbose=1", "", "", 400, "bad_request"},
		{"parameter of a POST", "POST", "/v1/leave?force=1", j, "{}", 400, "bad_request"},
		{"unknown parameter of put", "POST", "/v1/put?link=atoll:r1:x", o, "", 400, "bad_request"},
		{"parameter twice", "POST", "/v1/put?k=1&k=3", o, "", 400, "bad_request"},
		{"query that does not parse", "GET", "/v1/ls?prefix=%zz", "", "", 400, "bad_request"},
		{"field twice", "POST", "/v1/stat", j, `{"link":"atoll:r1:x","link":"atoll:r1:y"}`, 400, "bad_request"},
		{"field twice by case", "POST", "/v1/stat", j, `{"link":"atoll:r1:x","LINK":"atoll:r1:y"}`, 400, "bad_request"},
		{"field twice, below", "POST", "/v1/dht/remove", j, `{"guid":"` + guid + `","sign":{"key":"/a","Key":"/b"}}`, 400, "bad_request"},
		{"no object", "POST", "/v1/leave", j, `[]`, 400, "bad_request"},
		{"null", "POST", "/v1/leave", j, `null`, 400, "bad_request"},
		{"nothing", "POST", "/v1/leave", j, ``, 400, "bad_request"},
		{"two objects", "POST", "/v1/leave", j, `{}{}`, 400, "bad_request"},
		{"object and rubbish", "POST", "/v1/leave", j, `{} x`, 400, "bad_request"},
		{"unfinished", "POST", "/v1/leave", j, `{"reason":"x`, 400, "bad_request"},
		{"wrong type", "POST", "/v1/invite", j, `{"uses":"many"}`, 400, "bad_request"},
		{"fraction", "POST", "/v1/invite", j, `{"uses":1.5}`, 400, "bad_request"},
		{"overflow", "POST", "/v1/invite", j, `{"uses":99999999999999999999}`, 400, "bad_request"},
		{"too many uses", "POST", "/v1/invite", j, `{"uses":100000}`, 400, "bad_request"},
		{"negative time", "POST", "/v1/invite", j, `{"ttl_s":-1}`, 400, "bad_request"},
		{"unknown role", "POST", "/v1/invite", j, `{"role":"root"}`, 400, "bad_request"},
		{"nested 10,000 deep", "POST", "/v1/leave", j, `{"reason":` + strings.Repeat("[", 10_000), 400, "bad_request"},
		{"nested objects", "POST", "/v1/leave", j, strings.Repeat(`{"a":`, 10_000), 400, "bad_request"},
		{"large body", "POST", "/v1/stat", j, `{"link":"` + strings.Repeat("x", 2<<20) + `"}`, 400, "bad_request"},
		{"large block", "POST", "/v1/dht/put", o, strings.Repeat("x", 1<<20+1), 400, "bad_request"},
		{"long link", "POST", "/v1/stat", j, `{"link":"` + strings.Repeat("x", 5000) + `"}`, 400, "bad_link"},
		{"no link", "POST", "/v1/get", j, `{}`, 400, "bad_request"},
		{"link and all", "POST", "/v1/verify", j, `{"link":"atoll:r1:x","all":true}`, 400, "bad_request"},
		{"short GUID", "POST", "/v1/route", j, `{"key":"abcd"}`, 400, "bad_request"},
		{"GUID of other letters", "POST", "/v1/route", j, `{"key":"` + strings.Repeat("xy", 32) + `"}`, 400, "bad_request"},
		{"revoke nobody", "POST", "/v1/revoke", j, `{"reason":"x"}`, 400, "bad_request"},
		{"negative offset", "POST", "/v1/get", j, `{"link":"atoll:r1:x","offset":-1}`, 400, "bad_request"},
		{"offset that overflows", "POST", "/v1/get", j, `{"link":"atoll:r1:x","offset":9223372036854775807,"length":1}`, 400, "bad_request"},
		{"relative output", "POST", "/v1/get", j, `{"link":"atoll:r1:x","out":"a/b"}`, 400, "bad_request"},
		{"climbing output", "POST", "/v1/get", j, `{"link":"atoll:r1:x","out":"/tmp/../etc/x"}`, 400, "bad_request"},
		{"part to a file", "POST", "/v1/get", j, `{"link":"atoll:r1:x","out":"/tmp/x","offset":1}`, 400, "bad_request"},
		{"relative source", "POST", "/v1/put?path=a", o, "", 400, "bad_request"},
		{"source with NUL", "POST", "/v1/put?path=/a%00b", o, "", 400, "bad_request"},
		{"source and body", "POST", "/v1/put?path=/a", o, "x", 400, "bad_request"},
		{"size that lies", "POST", "/v1/put?size=3", o, "x", 400, "bad_request"},
		{"size beyond numbers", "POST", "/v1/put?size=99999999999999999999", o, "", 400, "bad_request"},
		{"nine copies", "POST", "/v1/put?k=9", o, "", 400, "bad_request"},
		{"name with a slash", "POST", "/v1/put?name=a/b", o, "", 400, "bad_request"},
		{"name that climbs", "POST", "/v1/put?name=..", o, "", 400, "bad_request"},
		{"name with NUL", "POST", "/v1/put?name=a%00b", o, "", 400, "bad_request"},
		{"name that is no text", "POST", "/v1/put?name=%ff", o, "", 400, "bad_request"},
		{"long name", "POST", "/v1/put?name=" + strings.Repeat("n", 256), o, "", 400, "bad_request"},
		{"expiry", "POST", "/v1/put?ttl_s=60", o, "", 501, "not_built"},
		{"cdc", "POST", "/v1/put?chunk=cdc", o, "", 501, "not_built"},
		{"other chunks", "POST", "/v1/put?chunk=7", o, "", 400, "bad_request"},
		{"long salt", "POST", "/v1/dht/put", j, `{"salt":"` + strings.Repeat("AAAA", 30) + `"}`, 400, "bad_request"},
		{"large value", "POST", "/v1/dht/put", j, `{"value":"` + strings.Repeat("AAAA", 30_000) + `"}`, 400, "bad_request"},
		{"relative key", "POST", "/v1/dht/put", j, `{"key":"owner.key"}`, 400, "bad_request"},
		{"relative backup", "POST", "/v1/doctor", j, `{"backup":"x"}`, 400, "bad_request"},
		{"job with a strange id", "POST", "/v1/verify", j, `{"all":true,"job":"a/b"}`, 400, "bad_request"},
		{"events of a strange id", "GET", "/v1/jobs/a%2Fb/events", "", "", 404, "not_found"},
		{"cancel of nothing", "POST", "/v1/jobs/x/cancel", j, "{}", 404, "not_found"},
		{"cancel by GET", "GET", "/v1/jobs/x/cancel", "", "", 405, "bad_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, "http://atoll"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Path, req.URL.RawPath = strings.Split(tt.path, "?")[0], ""
			if tt.ctype != "" {
				req.Header.Set("Content-Type", tt.ctype)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Errorf("status %d: %s", resp.StatusCode, b)
			}
			if tt.code == "" {
				return
			}
			var got map[string]map[string]any
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
			e := got["error"]
			if e["code"] != tt.code {
				t.Errorf("code %v: %s", e["code"], b)
			}
			keys := []string{"code", "message", "op", "object", "retry", "after_ms", "detail"}
			for _, k := range keys {
				if _, ok := e[k]; !ok {
					t.Errorf("no %q in %s", k, b)
				}
			}
			if len(got) != 1 || len(e) != len(keys) {
				t.Errorf("more than the contract says: %s", b)
			}
		})
	}
	if calls := n.Calls(); len(calls) != 0 {
		t.Errorf("the node was asked: %v", calls)
	}
}

// A page in a browser that has found a way to the socket is refused.
func TestBrowserRefused(t *testing.T) {
	n := apitest.New()
	_, dir := serve(t, n)
	c := rawClient(t, dir)
	for header, value := range map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"} {
		req, err := http.NewRequest("POST", "http://localhost/v1/leave", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(header, value)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", header, resp.StatusCode, resp.Header)
		}
	}
	if calls := n.Calls(); len(calls) != 0 {
		t.Errorf("the node was asked: %v", calls)
	}
}

// Bytes that are no request are answered or dropped, and the next client is
// served.
func TestBrokenHTTP(t *testing.T) {
	n := apitest.New()
	c, dir := serve(t, n)
	for name, bytes := range map[string]string{
		"rubbish":          "\x00\x01\x02\r\n\r\n",
		"no host":          "GET /v1/status HTTP/1.1\r\n\r\n",
		"large header":     "GET /v1/status HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"two lengths":      "POST /v1/leave HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"negative length":  "POST /v1/leave HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: -2\r\n\r\n{}",
		"length and chunk": "POST /v1/leave HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: gzip\r\n\r\n{}",
		"4 GiB announced":  "POST /v1/stat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 4294967296\r\n\r\n{}",
	} {
		conn, err := net.Dial("unix", filepath.Join(dir, api.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, bytes) // the server may hang up early
		_ = conn.(*net.UnixConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			if resp.StatusCode < 400 {
				t.Errorf("%s: %s", name, resp.Status)
			}
			_ = resp.Body.Close()
		}
		_ = conn.Close()
	}
	if calls := n.Calls(); len(calls) != 0 {
		t.Errorf("the node was asked: %v", calls)
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Error(err)
	}
}

// The table of codes is the contract's.
func TestClasses(t *testing.T) {
	want := []struct {
		codes    string
		statuses []int
		exit     int
	}{
		{"bad_request bad_link bad_invite wrong_pool", []int{400}, 2},
		{"not_found removed expired", []int{404}, 3},
		{"busy unavailable no_quorum deadline not_running", []int{429, 503, 504}, 4},
		{"not_member forbidden revoked invite_used invite_expired changed exists cas stale_seq clock quota full", []int{401, 403, 409, 507}, 5},
		{"corrupt bad_name bad_sig equivocation", []int{422}, 6},
		{"internal port_in_use bad_dir dir_in_use disk_failed", []int{500}, 1},
		{"not_built", []int{501}, 1}, // ours: what comes later
		{"cancelled", []int{409}, 5}, // ours: jobs ended on request
		{"claims", []int{409}, 5},    // ours: full is of disks
	}
	n := 0
	for _, w := range want {
		for _, code := range strings.Fields(w.codes) {
			n++
			c, ok := api.Classes[code]
			if !ok || c.Exit != w.exit || !slices.Contains(w.statuses, c.Status) {
				t.Errorf("%s: %+v, want exit %d, status in %v", code, c, w.exit, w.statuses)
			}
		}
	}
	if n != len(api.Classes) {
		t.Errorf("the table has %d codes, want %d", len(api.Classes), n)
	}
}

type coded struct{ code string }

func (c coded) Error() string        { return "why" }
func (c coded) Code() string         { return c.code }
func (c coded) AfterMS() int64       { return 70 }
func (c coded) Nodes() []apitestGUID { return nil }
func (c coded) Detail() string       { return "more" }

type apitestGUID = [0]byte

func TestAsError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want api.Error
	}{
		{coded{"busy"}, api.Error{Code: "busy", Message: "why", Op: "put", Retry: true, AfterMS: 70, Detail: &api.Detail{Text: "more"}}},
		{coded{"not_replica"}, api.Error{Code: "internal", Message: "why", Op: "put", AfterMS: 70, Detail: &api.Detail{Text: "more"}}},
		{io.EOF, api.Error{Code: "internal", Message: "EOF", Op: "put"}},
		{&api.Error{Code: "made_up", Message: "x"}, api.Error{Code: "internal", Message: "x", Op: "put"}},
		{&api.Error{Code: "full", Message: "x", Op: "get"}, api.Error{Code: "full", Message: "x", Op: "get"}},
	} {
		got := api.AsError("put", tt.err)
		if got.Code != tt.want.Code || got.Message != tt.want.Message || got.Op != tt.want.Op || got.Retry != tt.want.Retry ||
			got.AfterMS != tt.want.AfterMS || !reflect.DeepEqual(got.Detail, tt.want.Detail) {
			t.Errorf("%v: got %+v, want %+v", tt.err, got, tt.want)
		}
	}
}
