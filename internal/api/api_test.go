package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/id"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves n in a fresh folder.
func serve(t *testing.T, n *apitest.Node) (*api.Client, string) {
	t.Helper()
	dir := t.TempDir()
	stop, err := apitest.Serve(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := api.NewClient(dir)
	t.Cleanup(func() {
		c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return c, dir
}

// rawClient sends whatever a test makes up.
func rawClient(t *testing.T, dir string) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, api.SocketName))
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return api.AsError("", err).Code
}

// Every call gives over the socket what it gives directly.
func TestClientEqualsNode(t *testing.T) {
	n := apitest.New()
	far, _ := serve(t, n)
	near := apitest.New() // of the same contents, so that counters agree
	ctx := t.Context()
	no := func(api.Progress) {}

	calls := map[string]func(s api.Service) (any, error){
		"version": func(s api.Service) (any, error) { return s.Version(ctx) },
		"status":  func(s api.Service) (any, error) { return s.Status(ctx) },
		"peers":   func(s api.Service) (any, error) { return s.Peers(ctx) },
		"table":   func(s api.Service) (any, error) { return s.Table(ctx) },
		"invite":  func(s api.Service) (any, error) { return s.Invite(ctx, api.InviteRequest{TTLS: 60, Uses: 2}) },
		"revoke": func(s api.Service) (any, error) {
			return s.Revoke(ctx, api.RevokeRequest{GUID: apitest.Others[0], Reason: "gone"})
		},
		"leave":  func(s api.Service) (any, error) { return s.Leave(ctx, api.LeaveRequest{}, no) },
		"lookup": func(s api.Service) (any, error) { return s.Lookup(ctx, api.KeyRequest{Key: apitest.Others[3]}) },
		"route":  func(s api.Service) (any, error) { return s.Route(ctx, api.KeyRequest{Key: apitest.Others[3]}) },
		"doctor": func(s api.Service) (any, error) { return s.Doctor(ctx, api.DoctorRequest{Checks: []string{"disk"}}) },
		"put stat ls verify repair rm": func(s api.Service) (any, error) {
			put, err := s.Put(ctx, api.PutParams{Name: "a file", Size: 5}, strings.NewReader("hello"), no)
			if err != nil {
				return nil, err
			}
			link := api.LinkRequest{Link: put.Link}
			st, err1 := s.Stat(ctx, link)
			ls, err2 := s.Ls(ctx, "a ")
			v, err3 := s.Verify(ctx, api.VerifyRequest{Link: put.Link, Deep: true}, no)
			r, err4 := s.Repair(ctx, api.VerifyRequest{All: true}, no)
			rm, err5 := s.Rm(ctx, link)
			return []any{put, st, ls, v, r, rm}, errors.Join(err1, err2, err3, err4, err5)
		},
		"put of unknown size": func(s api.Service) (any, error) {
			return s.Put(ctx, api.PutParams{Size: -1}, iotest{strings.NewReader("hello")}, no)
		},
		"empty put": func(s api.Service) (any, error) {
			return s.Put(ctx, api.PutParams{Name: "empty", Size: 0}, strings.NewReader(""), no)
		},
		"dht": func(s api.Service) (any, error) {
			put, err := s.DHTPut(ctx, api.DHTPutRequest{Raw: []byte("raw")})
			if err != nil {
				return nil, err
			}
			get, err1 := s.DHTGet(ctx, api.DHTGetRequest{GUID: put.GUID})
			rm, err2 := s.DHTRemove(ctx, api.DHTRemoveRequest{GUID: put.GUID})
			zero := uint64(0)
			sp, err3 := s.DHTPut(ctx, api.DHTPutRequest{Signed: &api.SignedValue{Salt: []byte{1, 2}, CAS: &zero, Value: []byte("v")}})
			sg, err4 := s.DHTGet(ctx, api.DHTGetRequest{GUID: sp.GUID, Any: true})
			return []any{put, get, rm, sp, sg}, errors.Join(err1, err2, err3, err4)
		},
	}
	for name, f := range calls {
		want, err := f(near)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := f(far)
		if err != nil {
			t.Errorf("%s over the socket: %v", name, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s over the socket:\n got %+v\nwant %+v", name, got, want)
		}
	}
}

// iotest hides what a Reader is beyond a Reader.
type iotest struct{ io.Reader }

func TestGetStream(t *testing.T) {
	n := apitest.New()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	f := n.Add("grün & weiß.txt", data, false)
	c, _ := serve(t, n)
	var out bytes.Buffer
	var head api.GetHead
	begin := func(h api.GetHead) (io.Writer, error) { head = h; return &out, nil }
	res, err := c.Get(t.Context(), api.GetRequest{Link: f.Link}, begin, nil)
	if err != nil || !res.Verified || !bytes.Equal(out.Bytes(), data) {
		t.Fatalf("got %d bytes, %+v, %v", out.Len(), res, err)
	}
	if head.Name != f.Name || head.Size != f.Size {
		t.Errorf("head %+v", head)
	}
	out.Reset()
	if _, err := c.Get(t.Context(), api.GetRequest{Link: f.Link, Offset: 3, Length: 5}, begin, nil); err != nil || out.String() != "34567" {
		t.Errorf("a part: %q, %v", out.String(), err)
	}
	path := filepath.Join(t.TempDir(), "out")
	if res, err = c.Get(t.Context(), api.GetRequest{Link: f.Link, Out: path}, nil, nil); err != nil || res.Path != path || res.Size != f.Size {
		t.Errorf("to a file: %+v, %v", res, err)
	}
	if _, err = c.Get(t.Context(), api.GetRequest{Link: f.Link, Out: path}, nil, nil); code(err) != api.Exists {
		t.Errorf("over a file: %v", err)
	}
}

// An error after the first byte travels in the trailer, whole.
func TestGetFailsMidway(t *testing.T) {
	n := apitest.New()
	f := n.Add("x", bytes.Repeat([]byte("x"), 1<<20), false)
	n.FailAfter = 100_000
	n.Fail["get"] = &api.Error{
		Code: api.Unavailable, Message: "zwei Halter schweigen: 𝄞 „ü“\n", Op: "get", Object: "x", AfterMS: 5,
		Detail: &api.Detail{Nodes: apitest.Others[:2]},
	}
	c, _ := serve(t, n)
	var out bytes.Buffer
	_, err := c.Get(t.Context(), api.GetRequest{Link: f.Link}, func(api.GetHead) (io.Writer, error) { return &out, nil }, nil)
	var e *api.Error
	if !errors.As(err, &e) || !reflect.DeepEqual(e, n.Fail["get"]) {
		t.Errorf("got %#v", err)
	}
	if out.Len() != 100_000 {
		t.Errorf("%d bytes came before", out.Len())
	}
}

// A put that fails while bytes still flow is told why.
func TestPutFailsMidway(t *testing.T) {
	for range 20 {
		n := apitest.New()
		n.FailAfter = 1 << 20
		n.Fail["put"] = api.Errorf(api.Full, "put", "", "no member has room")
		c, _ := serve(t, n)
		for _, size := range []int64{64 << 20, -1} {
			_, err := c.Put(t.Context(), api.PutParams{Size: size}, io.LimitReader(zeros{}, 64<<20), nil)
			if code(err) != api.Full {
				t.Fatalf("size %d: %v", size, err)
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A source that fails is named, and so is one that blocks past the deadline.
func TestPutSource(t *testing.T) {
	c, _ := serve(t, apitest.New())
	broken := io.MultiReader(strings.NewReader("some"), errReader{})
	if _, err := c.Put(t.Context(), api.PutParams{Size: -1}, broken, nil); err == nil || !strings.Contains(err.Error(), "reading the input: cable pulled") {
		t.Errorf("got %v", err)
	}
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Put(ctx, api.PutParams{Size: -1}, r, nil); code(err) != api.Deadline {
		t.Errorf("got %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("cable pulled") }

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	c := api.NewClient(dir)
	_, err := c.Status(t.Context())
	if code(err) != api.NotRunning || !strings.Contains(err.Error(), "atoll up") || !strings.Contains(err.Error(), dir) {
		t.Errorf("no socket: %v", err)
	}
	// A socket nobody listens on any more.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, api.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := c.Status(t.Context()); code(err) != api.NotRunning {
		t.Errorf("stale socket: %v", err)
	}
	stop, err := apitest.Serve(apitest.New(), dir)
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	defer func() { _ = stop() }()
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	c.Close()
}

func TestSocket(t *testing.T) {
	for name, dir := range map[string]string{
		"short": t.TempDir(),
		"long":  filepath.Join(t.TempDir(), strings.Repeat("d", 60), strings.Repeat("e", 60), strings.Repeat("f", 60)),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			stop, err := apitest.Serve(apitest.New(), dir)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, api.SocketName)
			fi, err := os.Lstat(path)
			if err != nil || fi.Mode() != os.ModeSocket|0o600 {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
			c := api.NewClient(dir)
			if _, err := c.Version(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := api.Listen(dir); code(err) != api.DirInUse {
				t.Errorf("second listener: %v", err)
			}
			c.Close()
			if err := stop(); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	if _, err := api.Listen(filepath.Join(t.TempDir(), "missing")); code(err) != api.BadDir {
		t.Errorf("missing folder: %v", err)
	}
}

// Serve ends although a stream is open and an operation hangs, and both are
// told.
func TestServeEnds(t *testing.T) {
	n := apitest.New()
	n.Hold = make(chan struct{}) // for ever
	dir := t.TempDir()
	stop, err := apitest.Serve(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := api.NewClient(dir)
	defer c.Close()
	events, verify := make(chan error, 1), make(chan error, 1)
	go func() {
		events <- c.Events(t.Context(), func(api.TraceEvent) error { return nil })
	}()
	go func() {
		_, err := c.Verify(t.Context(), api.VerifyRequest{All: true}, nil)
		verify <- err
	}()
	select {
	case <-n.Held:
	case err := <-verify:
		t.Fatalf("verify did not begin: %v", err)
	}
	begin := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
	if err := <-events; err == nil {
		t.Error("the event stream ended well")
	}
	if err := <-verify; code(err) != api.Unavailable || !strings.Contains(err.Error(), "the node stopped") {
		t.Errorf("verify: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	c, _ := serve(t, apitest.New())
	var b bytes.Buffer
	if err := c.WriteMetrics(t.Context(), &b); err != nil || !strings.Contains(b.String(), "# TYPE atoll_puts_total counter\natoll_puts_total 0\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestEvents(t *testing.T) {
	n := apitest.New()
	c, _ := serve(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan api.TraceEvent, 1)
	done := make(chan error, 1)
	go func() {
		done <- c.Events(ctx, func(ev api.TraceEvent) error { got <- ev; return nil })
	}()
	want := api.TraceEvent{Time: apitest.Epoch, Kind: "pastry.deliver", Peer: apitest.Self, Key: id.FromPrefix("d46a1c"), N: 3, Note: "line\nbreak"}
	for !n.Watched() {
		if len(done) > 0 {
			t.Fatal(<-done)
		}
	}
	n.Trace <- want
	if ev := <-got; ev != want {
		t.Errorf("got %+v", ev)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for n.Watched() { // the server notices that the client has gone
	}
}
