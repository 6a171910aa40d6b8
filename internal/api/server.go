package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Server answers the API's requests out of a Node. It is an http.Handler, so
// that other doors (a dashboard with its own token, Host and Origin checks) can
// share the handlers; Serve is the door for the socket.
type Server struct {
	node   Node
	jobs   *jobs
	routes map[string]route
	flight atomic.Int64
	// ending is closed when Serve stops: event streams end then.
	ending chan struct{}
}

// route is one endpoint: one path has one method.
type route struct {
	method  string
	handler func(http.ResponseWriter, *http.Request) error
}

// NewServer returns a Server of node.
func NewServer(node Node) *Server {
	s := &Server{node: node, jobs: newJobs(time.Now), ending: make(chan struct{})}
	s.routes = map[string]route{
		"/v1/version": read(node.Version),
		"/v1/status":  read(node.Status),
		"/v1/peers":   read(node.Peers),
		"/v1/table":   read(node.Table),
		"/v1/ls":      {http.MethodGet, s.ls},
		"/v1/jobs":    {http.MethodGet, s.listJobs},
		"/v1/events":  {http.MethodGet, s.events},
		"/v1/metrics": {http.MethodGet, s.metrics},

		"/v1/invite": change("invite", node.Invite),
		"/v1/revoke": change("revoke", node.Revoke),
		"/v1/leave":  work(s, "leave", func(r LeaveRequest) string { return r.Job }, node.Leave),

		"/v1/put":    {http.MethodPost, s.put},
		"/v1/get":    {http.MethodPost, s.get},
		"/v1/stat":   change("stat", node.Stat),
		"/v1/rm":     change("rm", node.Rm),
		"/v1/verify": work(s, "verify", func(r VerifyRequest) string { return r.Job }, node.Verify),
		"/v1/repair": work(s, "repair", func(r VerifyRequest) string { return r.Job }, node.Repair),

		"/v1/dht/put":    {http.MethodPost, s.dhtPut},
		"/v1/dht/get":    {http.MethodPost, s.dhtGet},
		"/v1/dht/remove": change("dht remove", node.DHTRemove),

		"/v1/lookup": change("lookup", node.Lookup),
		"/v1/route":  change("route", node.Route),
		"/v1/doctor": change("doctor", node.Doctor),
	}
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if s.flight.Add(1) > maxFlight {
		s.flight.Add(-1)
		e := Errorf(Busy, "", "", "%d requests are being served", maxFlight)
		e.AfterMS = 1000
		writeError(w, e)
		return
	}
	defer s.flight.Add(-1)
	ctx, cancel, err := timed(r)
	if err == nil {
		defer cancel()
		err = s.handle(w, r.WithContext(ctx))
	}
	if err != nil {
		writeError(w, AsError(strings.TrimPrefix(r.URL.Path, "/v1/"), err))
	}
}

// timed is a request's context, which ends when its client waits no longer.
func timed(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Header.Get(HeaderTimeout)
	if text == "" {
		return r.Context(), func() {}, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 1 {
		return nil, nil, refuse("%s must be a number of milliseconds, 1 or more", HeaderTimeout)
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond)))*time.Millisecond)
	return ctx, cancel, nil
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request) error {
	rt, ok := s.routes[r.URL.Path]
	if !ok {
		rt, ok = s.jobRoute(r.URL.Path)
	}
	if !ok {
		return &Error{Code: NotFound, Op: r.Method, Message: "no such endpoint"}
	}
	if r.Method != rt.method {
		w.Header().Set("Allow", rt.method)
		e := refuse("this endpoint takes %s", rt.method)
		e.status = http.StatusMethodNotAllowed
		return e
	}
	if r.Method == http.MethodGet {
		if r.ContentLength != 0 {
			return refuse("GET has no body")
		}
		return rt.handler(w, r)
	}
	switch contentType(r) {
	case typeJSON:
	case typeOctets:
		if r.URL.Path != "/v1/put" && r.URL.Path != "/v1/dht/put" {
			return refuse("the body must be of type " + typeJSON)
		}
	default:
		return refuse("the body must be of type " + typeJSON + " or, where bytes are sent, " + typeOctets)
	}
	return rt.handler(w, r)
}

// refuse is bad_request, whatever is wrong with the form of a request (20-dht §8).
func refuse(format string, a ...any) *Error {
	return Errorf(BadRequest, "", "", format, a...)
}

func contentType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// read is a GET without parameters.
func read[T any](f func(context.Context) (T, error)) route {
	return route{http.MethodGet, func(w http.ResponseWriter, r *http.Request) error {
		if err := newQuery(r.URL.RawQuery).finish(); err != nil {
			return refuse("%w", err)
		}
		v, err := f(r.Context())
		if err != nil {
			return err
		}
		return writeJSON(w, v)
	}}
}

// checker is a request that knows its own bounds.
type checker interface{ check() error }

// change is a POST of JSON that is answered with JSON.
func change[R checker, T any](op string, f func(context.Context, R) (T, error)) route {
	return route{http.MethodPost, func(w http.ResponseWriter, r *http.Request) error {
		var req R
		if err := readJSON(r, &req); err != nil {
			return err
		}
		if err := req.check(); err != nil {
			return AsError(op, err)
		}
		v, err := f(r.Context(), req)
		if err != nil {
			return AsError(op, err)
		}
		return writeJSON(w, v)
	}}
}

// work is a change that takes long, and so is a job.
func work[R checker, T any](s *Server, op string, jobOf func(R) string, f func(context.Context, R, Report) (T, error)) route {
	return route{http.MethodPost, func(w http.ResponseWriter, r *http.Request) error {
		var req R
		if err := readJSON(r, &req); err != nil {
			return err
		}
		if err := req.check(); err != nil {
			return AsError(op, err)
		}
		v, err := runJob(r.Context(), s.jobs, op, jobOf(req), func(ctx context.Context, report Report) (T, error) {
			return f(ctx, req, report)
		})
		if err != nil {
			return AsError(op, err)
		}
		return writeJSON(w, v)
	}}
}

// runJob runs f as a job.
func runJob[T any](ctx context.Context, js *jobs, op, jobID string, f func(context.Context, Report) (T, error)) (T, error) {
	var none T
	j, ctx, err := js.begin(ctx, op, jobID)
	if err != nil {
		return none, err
	}
	v, err := f(ctx, js.report(j))
	if cause := new(Error); err != nil && ctx.Err() != nil && errors.As(context.Cause(ctx), &cause) {
		err = cause
	}
	js.end(j, v, err)
	return v, err
}

// readJSON reads a body of at most MaxBody bytes into v.
func readJSON(r *http.Request, v any) error {
	if contentType(r) != typeJSON {
		return refuse("the body must be of type " + typeJSON)
	}
	if err := newQuery(r.URL.RawQuery).finish(); err != nil {
		return refuse("%w", err)
	}
	b, err := readBody(r, MaxBody)
	if err != nil {
		return err
	}
	if err := decodeStrict(b, v); err != nil {
		return refuse("%w", err)
	}
	return nil
}

// readBody reads a whole body of at most most bytes; what it allocates grows
// with what arrives, not with what is announced.
func readBody(r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength > most {
		return nil, refuse("the body has %d bytes, more than %d", r.ContentLength, most)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	if err != nil {
		return nil, refuse("the body ended early: %w", err)
	}
	if int64(len(b)) > most {
		return nil, refuse("the body has more than %d bytes", most)
	}
	return b, nil
}

// writeJSON answers with v. An error of writing is the client's absence, and
// there is nobody left to tell.
func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(append(b, '\n'))
	return nil
}

func writeError(w http.ResponseWriter, e *Error) {
	b, err := json.Marshal(errorBody{e})
	if err != nil {
		panic("api: an error does not marshal: " + err.Error())
	}
	w.Header().Set("Content-Type", typeJSON)
	w.WriteHeader(e.Status())
	_, _ = w.Write(append(b, '\n')) // as in writeJSON
}

func (s *Server) ls(w http.ResponseWriter, r *http.Request) error {
	q := newQuery(r.URL.RawQuery)
	prefix := q.text("prefix", MaxName)
	if err := q.finish(); err != nil {
		return refuse("%w", err)
	}
	v, err := s.node.Ls(r.Context(), prefix)
	if err != nil {
		return err
	}
	if v.Files == nil {
		v.Files = []File{}
	}
	return writeJSON(w, v)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	promhttp.HandlerFor(s.node.Metrics(), promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(w, r)
	return nil
}

// Serve answers on l until ctx is done or l fails. Then it takes no more
// requests, ends the event streams, gives the others drainTime to finish and
// cancels what is left. It returns nil after an orderly end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	hs := &http.Server{
		Handler:           http.HandlerFunc(s.socketDoor),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	close(s.ending)
	drain, stop := context.WithTimeout(base, drainTime)
	defer stop()
	if err := hs.Shutdown(drain); err != nil {
		cancel(errStopped) // operations see their context end …
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		if err := hs.Shutdown(last); err != nil {
			_ = hs.Close() // … and those that do not look lose their connection
		}
	}
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// socketDoor refuses what only a browser sends: nothing on a web page has
// business here, however it found the way.
func (s *Server) socketDoor(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		writeError(w, &Error{Code: Forbidden, Op: strings.TrimPrefix(r.URL.Path, "/v1/"), Message: "web pages are not served here"})
		return
	}
	s.ServeHTTP(w, r)
}
