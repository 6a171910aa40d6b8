package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"atoll.example/atoll/internal/id"
)

// Client talks to the node of a folder. It connects when first used, and may be
// used by several goroutines.
type Client struct {
	dir       string
	transport *http.Transport
	http      *http.Client
}

var _ Service = (*Client)(nil)

// NewClient returns a client of the node that runs on the folder dir. Without
// one, every call fails with not_running.
func NewClient(dir string) *Client {
	c := &Client{dir: dir}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialSocket(ctx, filepath.Join(dir, SocketName))
		},
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        idleTime,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
	c.http = &http.Client{Transport: c.transport}
	return c
}

// Close lets go of idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// request sends one request and returns an answer of status 200.
func (c *Client) request(ctx context.Context, op, method, path, contentType string, body io.Reader, length int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://atoll"+path, body)
	if err != nil {
		return nil, Errorf(Internal, op, "", "%w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if end, ok := ctx.Deadline(); ok { // the node's answer has to arrive before
		left := time.Until(end)
		left -= min(left/10, answerTime)
		req.Header.Set(HeaderTimeout, strconv.FormatInt(max(left.Milliseconds(), 1), 10))
	}
	if body != nil {
		// No "Expect: 100-continue": net/http's server then closes at once when
		// it has refused a body, and the refusal is lost with the connection.
		req.ContentLength = length
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failure(ctx, op, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // read as far as it matters
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err != nil {
		return nil, c.failure(ctx, op, err)
	}
	var e errorBody
	if err := json.Unmarshal(b, &e); err != nil || e.Error == nil || e.Error.Code == "" {
		return nil, Errorf(Internal, op, "", "the node answered %s", resp.Status)
	}
	return nil, e.Error
}

// failure words what kept a request from being answered.
func (c *Client) failure(ctx context.Context, op string, err error) error {
	var own *Error
	var u *url.Error
	switch {
	case ctx.Err() != nil:
		return AsError(op, ctx.Err())
	case errors.As(err, &own):
		return own
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return Errorf(NotRunning, op, "", "no node is running on %s: start one with \"atoll up\", or name its folder with --dir", c.dir)
	case errors.Is(err, fs.ErrPermission):
		return Errorf(Forbidden, op, "", "the node on %s is another user's", c.dir)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Errorf(Unavailable, op, "", "the node ended before it answered")
	case errors.As(err, &u):
		err = u.Err
	}
	return Errorf(Unavailable, op, "", "cannot talk to the node on %s: %w", c.dir, err)
}

// decode reads a JSON answer and closes it.
func decode[T any](ctx context.Context, c *Client, op string, resp *http.Response, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return v, Errorf(Internal, op, "", "the node's answer is not understood: %w", err)
		}
		return v, c.failure(ctx, op, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // so that the connection can be used again
	return v, nil
}

func fetch[T any](ctx context.Context, c *Client, op, path string) (T, error) {
	resp, err := c.request(ctx, op, http.MethodGet, path, "", nil, 0)
	return decode[T](ctx, c, op, resp, err)
}

func post[T any](ctx context.Context, c *Client, op, path string, r any) (T, error) {
	b, err := json.Marshal(r)
	if err != nil {
		var none T
		return none, Errorf(Internal, op, "", "%w", err)
	}
	resp, err := c.request(ctx, op, http.MethodPost, path, typeJSON, bytes.NewReader(b), int64(len(b)))
	return decode[T](ctx, c, op, resp, err)
}

// Version asks what the node runs.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return fetch[Version](ctx, c, "version", "/v1/version")
}

// Status asks how pool and node are.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return fetch[Status](ctx, c, "status", "/v1/status")
}

// Peers lists the members.
func (c *Client) Peers(ctx context.Context) (Peers, error) {
	return fetch[Peers](ctx, c, "peers", "/v1/peers")
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, r InviteRequest) (InviteResult, error) {
	return post[InviteResult](ctx, c, "invite", "/v1/invite", r)
}

// Revoke excludes a member.
func (c *Client) Revoke(ctx context.Context, r RevokeRequest) (RevokeResult, error) {
	return post[RevokeResult](ctx, c, "revoke", "/v1/revoke", r)
}

// Stat describes a file.
func (c *Client) Stat(ctx context.Context, r LinkRequest) (StatResult, error) {
	return post[StatResult](ctx, c, "stat", "/v1/stat", r)
}

// Rm removes a file.
func (c *Client) Rm(ctx context.Context, r LinkRequest) (RmResult, error) {
	return post[RmResult](ctx, c, "rm", "/v1/rm", r)
}

// Ls lists the catalogue.
func (c *Client) Ls(ctx context.Context, prefix string) (LsResult, error) {
	path := "/v1/ls"
	if prefix != "" {
		path += "?prefix=" + url.QueryEscape(prefix)
	}
	return fetch[LsResult](ctx, c, "ls", path)
}

// DHTRemove removes a block.
func (c *Client) DHTRemove(ctx context.Context, r DHTRemoveRequest) (DHTRemoveResult, error) {
	return post[DHTRemoveResult](ctx, c, "dht remove", "/v1/dht/remove", r)
}

// Lookup finds the nodes responsible for a key.
func (c *Client) Lookup(ctx context.Context, r KeyRequest) (LookupResult, error) {
	return post[LookupResult](ctx, c, "lookup", "/v1/lookup", r)
}

// Route traces the way to a key.
func (c *Client) Route(ctx context.Context, r KeyRequest) (RouteResult, error) {
	return post[RouteResult](ctx, c, "route", "/v1/route", r)
}

// Table asks for the routing state.
func (c *Client) Table(ctx context.Context) (Table, error) {
	return fetch[Table](ctx, c, "table", "/v1/table")
}

// Doctor runs checks.
func (c *Client) Doctor(ctx context.Context, r DoctorRequest) (DoctorResult, error) {
	return post[DoctorResult](ctx, c, "doctor", "/v1/doctor", r)
}

// Jobs lists what runs and what ended lately.
func (c *Client) Jobs(ctx context.Context) (Jobs, error) {
	return fetch[Jobs](ctx, c, "jobs", "/v1/jobs")
}

// Cancel ends a job.
func (c *Client) Cancel(ctx context.Context, job string) error {
	_, err := post[cancelResult](ctx, c, "cancel", "/v1/jobs/"+url.PathEscape(job)+"/cancel", cancelRequest{})
	return err
}

// WriteMetrics copies the metrics, in Prometheus' text form, to w.
func (c *Client) WriteMetrics(ctx context.Context, w io.Writer) error {
	resp, err := c.request(ctx, "metrics", http.MethodGet, "/v1/metrics", "", nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if _, err := io.Copy(w, resp.Body); err != nil {
		return c.failure(ctx, "metrics", err)
	}
	return nil
}

// Leave hands everything over and signs off.
func (c *Client) Leave(ctx context.Context, r LeaveRequest, report Report) (LeaveResult, error) {
	defer c.follow(ctx, &r.Job, report)()
	return post[LeaveResult](ctx, c, "leave", "/v1/leave", r)
}

// Verify checks blocks.
func (c *Client) Verify(ctx context.Context, r VerifyRequest, report Report) (VerifyResult, error) {
	defer c.follow(ctx, &r.Job, report)()
	return post[VerifyResult](ctx, c, "verify", "/v1/verify", r)
}

// Repair checks blocks and restores copies.
func (c *Client) Repair(ctx context.Context, r VerifyRequest, report Report) (VerifyResult, error) {
	defer c.follow(ctx, &r.Job, report)()
	return post[VerifyResult](ctx, c, "repair", "/v1/repair", r)
}

// Put stores the file at p.Path, which the node opens, or what body yields.
func (c *Client) Put(ctx context.Context, p PutParams, body io.Reader, report Report) (PutResult, error) {
	defer c.follow(ctx, &p.Job, report)()
	path := "/v1/put?" + p.query().Encode()
	if p.Path != "" {
		resp, err := c.request(ctx, "put", http.MethodPost, path, typeOctets, http.NoBody, 0)
		return decode[PutResult](ctx, c, "put", resp, err)
	}
	src := newSource(body)
	stop := context.AfterFunc(ctx, src.abandon)
	defer stop()
	resp, err := c.request(ctx, "put", http.MethodPost, path, typeOctets, src, p.Size)
	if failed := src.failed(); err != nil && failed != nil && ctx.Err() == nil {
		return PutResult{}, Errorf(Internal, "put", p.Name, "reading the input: %w", failed)
	}
	return decode[PutResult](ctx, c, "put", resp, err)
}

// Get fetches a file to r.Out, which the node writes, or to the writer that
// begin returns.
func (c *Client) Get(ctx context.Context, r GetRequest, begin func(GetHead) (io.Writer, error), report Report) (GetResult, error) {
	defer c.follow(ctx, &r.Job, report)()
	start := time.Now()
	b, err := json.Marshal(r)
	if err != nil {
		return GetResult{}, Errorf(Internal, "get", "", "%w", err)
	}
	resp, err := c.request(ctx, "get", http.MethodPost, "/v1/get", typeJSON, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return GetResult{}, err
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == typeJSON {
		return decode[GetResult](ctx, c, "get", resp, nil)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or given up
	head, err := readHead(resp.Header)
	if err != nil {
		return GetResult{}, Errorf(Internal, "get", "", "the node's answer is not understood: %w", err)
	}
	if begin == nil {
		return GetResult{}, Errorf(Internal, "get", r.Out, "the node sent the bytes instead of writing them")
	}
	w, err := begin(head)
	if err != nil {
		return GetResult{}, err
	}
	n, werr, rerr := copyBytes(w, resp.Body)
	switch {
	case werr != nil:
		return GetResult{}, Errorf(Internal, "get", "", "writing the output: %w", werr)
	case rerr != nil:
		return GetResult{}, c.failure(ctx, "get", rerr)
	}
	if t := resp.Trailer.Get(TrailerError); t != "" {
		var e errorBody
		if err := json.Unmarshal([]byte(t), &e); err != nil || e.Error == nil {
			return GetResult{}, Errorf(Internal, "get", "", "the node failed after %d bytes, without a reason", n)
		}
		return GetResult{}, e.Error
	}
	if resp.Trailer.Get(TrailerVerified) != "ok" {
		return GetResult{}, Errorf(Unavailable, "get", "", "the node ended after %d bytes", n)
	}
	return GetResult{Name: head.Name, Size: n, GUID: head.GUID, Verified: true, MS: time.Since(start).Milliseconds()}, nil
}

func readHead(h http.Header) (head GetHead, err error) {
	if head.Size, err = strconv.ParseInt(h.Get(HeaderSize), 10, 64); err != nil {
		return head, err
	}
	if head.Name, err = url.PathUnescape(h.Get(HeaderName)); err != nil {
		return head, err
	}
	head.GUID, err = id.Parse(h.Get(HeaderGUID))
	return head, err
}

// copyBytes copies r to w and tells errors of writing from those of reading.
func copyBytes(w io.Writer, r io.Reader) (n int64, werr, rerr error) {
	buf := make([]byte, 256<<10)
	for {
		k, err := r.Read(buf)
		if k > 0 {
			if _, werr := w.Write(buf[:k]); werr != nil {
				return n, werr, nil
			}
			n += int64(k)
		}
		if errors.Is(err, io.EOF) {
			return n, nil, nil
		}
		if err != nil {
			return n, nil, err
		}
	}
}

// DHTPut stores a block.
func (c *Client) DHTPut(ctx context.Context, r DHTPutRequest) (DHTPutResult, error) {
	if r.Signed != nil {
		return post[DHTPutResult](ctx, c, "dht put", "/v1/dht/put", r.Signed)
	}
	resp, err := c.request(ctx, "dht put", http.MethodPost, "/v1/dht/put", typeOctets, bytes.NewReader(r.Raw), int64(len(r.Raw)))
	return decode[DHTPutResult](ctx, c, "dht put", resp, err)
}

// DHTGet fetches a block.
func (c *Client) DHTGet(ctx context.Context, r DHTGetRequest) (DHTGetResult, error) {
	const op = "dht get"
	b, err := json.Marshal(r)
	if err != nil {
		return DHTGetResult{}, Errorf(Internal, op, "", "%w", err)
	}
	resp, err := c.request(ctx, op, http.MethodPost, "/v1/dht/get", typeJSON, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return DHTGetResult{}, err
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == typeJSON {
		v, err := decode[signedAnswer](ctx, c, op, resp, nil)
		if err != nil {
			return DHTGetResult{}, err
		}
		return DHTGetResult{Value: v.Value, Seq: &v.Seq}, nil
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	value, err := io.ReadAll(io.LimitReader(resp.Body, 2*MaxBody))
	if err != nil {
		return DHTGetResult{}, c.failure(ctx, op, err)
	}
	return DHTGetResult{Value: value}, nil
}
