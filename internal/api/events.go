package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// keepAlive is how often an idle stream says so, to find out who has gone.
const keepAlive = 15 * time.Second

func (s *Server) listJobs(w http.ResponseWriter, r *http.Request) error {
	if err := newQuery(r.URL.RawQuery).finish(); err != nil {
		return refuse("%w", err)
	}
	return writeJSON(w, Jobs{Jobs: s.jobs.list()})
}

// jobRoute finds /v1/jobs/ID/events and /v1/jobs/ID/cancel.
func (s *Server) jobRoute(path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, "/v1/jobs/")
	if !ok {
		return route{}, false
	}
	id, what, _ := strings.Cut(rest, "/")
	if !goodJobID(id) {
		return route{}, false
	}
	switch what {
	case "events":
		return route{http.MethodGet, func(w http.ResponseWriter, r *http.Request) error { return s.jobEvents(w, r, id) }}, true
	case "cancel":
		return change("cancel", func(_ context.Context, _ cancelRequest) (cancelResult, error) {
			return cancelResult{}, s.jobs.stop(id)
		}), true
	}
	return route{}, false
}

type (
	cancelRequest struct{}
	cancelResult  struct{}
)

func (cancelRequest) check() error { return nil }

// stream is an answer of server-sent events.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) (*stream, error) {
	w.Header().Set("Content-Type", typeEvents)
	w.WriteHeader(http.StatusOK)
	s := &stream{w, http.NewResponseController(w)}
	return s, s.rc.Flush()
}

// send writes one event. JSON has no line breaks of its own.
func (s *stream) send(event string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, b); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s *stream) alive() error {
	if _, err := s.w.Write([]byte(":\n\n")); err != nil {
		return err
	}
	return s.rc.Flush()
}

// jobEvents tells a job's progress at most five times a second, and at last
// how it ended.
func (s *Server) jobEvents(w http.ResponseWriter, r *http.Request, id string) error {
	if err := newQuery(r.URL.RawQuery).finish(); err != nil {
		return refuse("%w", err)
	}
	j, err := s.jobs.wait(r.Context(), id)
	if err != nil {
		return err
	}
	st, err := newStream(w)
	if err != nil {
		return nil // the client has gone: nobody to tell
	}
	pause := time.NewTicker(eventEvery)
	defer pause.Stop()
	idle := time.NewTicker(keepAlive)
	defer idle.Stop()
	last := 0 // nothing was reported yet
	for {
		p, state, result, failure, version, changed := s.jobs.snapshot(j)
		switch {
		case state == "done":
			_ = st.send("done", result) // the last word: heard or not
			return nil
		case state == "error":
			_ = st.send("error", errorBody{failure})
			return nil
		case version != last:
			last = version
			if err := st.send("progress", p); err != nil {
				return nil
			}
			idle.Reset(keepAlive)
			// The next report waits for the tick, but the end does not wait long.
			select {
			case <-pause.C:
			case <-r.Context().Done():
				return nil
			}
		}
		select {
		case <-changed:
		case <-idle.C:
			if err := st.alive(); err != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// events streams trace events until the client or the server ends.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	if err := newQuery(r.URL.RawQuery).finish(); err != nil {
		return refuse("%w", err)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go s.cancelAtEnd(ctx, cancel)
	st, err := newStream(w)
	if err != nil {
		return nil
	}
	err = s.node.Events(ctx, func(ev TraceEvent) error { return st.send("trace", ev) })
	if err != nil && ctx.Err() == nil {
		_ = st.send("error", errorBody{AsError("events", err)}) // the last word
	}
	return nil
}

// cancelAtEnd cancels ctx when the server ends; it returns when ctx is done.
func (s *Server) cancelAtEnd(ctx context.Context, cancel context.CancelFunc) {
	select {
	case <-s.ending:
		cancel()
	case <-ctx.Done():
	}
}
