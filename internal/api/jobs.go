package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"
)

// jobs keeps what runs and what ended lately. Its Reports come from the
// goroutines of operations, its readers from those of requests.
type jobs struct {
	now func() time.Time

	mu      sync.Mutex // guards all below and the jobs' mutable fields
	byID    map[string]*job
	order   []*job // oldest first
	running int
	waiters map[string]chan struct{} // closed when the job of that id begins
}

// job is one long operation.
type job struct {
	id, op  string
	started time.Time
	cancel  context.CancelCauseFunc

	progress Progress
	state    string
	err      *Error
	result   any
	version  int           // raised by every change
	changed  chan struct{} // closed and replaced by every change
}

func newJobs(now func() time.Time) *jobs {
	return &jobs{now: now, byID: make(map[string]*job), waiters: make(map[string]chan struct{})}
}

// errCancelledJob is the cause of a context ended through the API.
var errCancelledJob = &Error{Code: Cancelled, Message: "cancelled on request"}

// errStopped is the cause of a context ended with the server.
var errStopped = &Error{Code: Unavailable, Message: "the node stopped meanwhile", Retry: true}

// begin registers an operation and returns its context and Report. end must be
// called with its outcome.
func (js *jobs) begin(ctx context.Context, op, jobID string) (*job, context.Context, error) {
	if jobID == "" {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		jobID = hex.EncodeToString(b[:])
	}
	if !goodJobID(jobID) {
		return nil, nil, Errorf(BadRequest, op, "", "a job id has 1 to 64 letters, digits, - or _")
	}
	js.mu.Lock()
	defer js.mu.Unlock()
	if old := js.byID[jobID]; old != nil {
		if old.state == "running" {
			return nil, nil, Errorf(Exists, op, jobID, "a job of this id is running")
		}
		js.forget(old)
	}
	if js.running >= maxJobs {
		e := Errorf(Busy, op, "", "%d jobs are running: wait for one to end", js.running)
		e.AfterMS = 1000
		return nil, nil, e
	}
	ctx, cancel := context.WithCancelCause(ctx)
	j := &job{
		id: jobID, op: op, started: js.now(), cancel: cancel, state: "running",
		progress: Progress{Total: -1, ETAS: -1}, changed: make(chan struct{}),
	}
	js.byID[jobID] = j
	js.order = append(js.order, j)
	js.running++
	if w := js.waiters[jobID]; w != nil {
		close(w)
		delete(js.waiters, jobID)
	}
	return j, ctx, nil
}

// report is the Report of j.
func (js *jobs) report(j *job) Report {
	return func(p Progress) {
		js.mu.Lock()
		defer js.mu.Unlock()
		if j.state == "running" {
			j.progress = p
			j.touch()
		}
	}
}

func (j *job) touch() {
	j.version++
	close(j.changed)
	j.changed = make(chan struct{})
}

// end records how j ended.
func (js *jobs) end(j *job, result any, err error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	j.cancel(nil)
	js.running--
	j.state, j.result = "done", result
	if err != nil {
		j.state, j.result, j.err = "error", nil, AsError(j.op, err)
	}
	j.touch()
	for ended := len(js.order) - js.running; ended > keptJobs; ended-- {
		for _, old := range js.order {
			if old.state != "running" {
				js.forget(old)
				break
			}
		}
	}
}

// forget drops an ended job. js.mu is held.
func (js *jobs) forget(j *job) {
	delete(js.byID, j.id)
	for i, o := range js.order {
		if o == j {
			js.order = append(js.order[:i], js.order[i+1:]...)
			return
		}
	}
}

// list returns all jobs, oldest first.
func (js *jobs) list() []Job {
	js.mu.Lock()
	defer js.mu.Unlock()
	out := make([]Job, len(js.order))
	for i, j := range js.order {
		out[i] = Job{ID: j.id, Op: j.op, State: j.state, Started: j.started, Progress: j.progress, Error: j.err}
	}
	return out
}

// stop cancels the job of that id. A job that has ended stays as it is.
func (js *jobs) stop(id string) error {
	js.mu.Lock()
	defer js.mu.Unlock()
	j := js.byID[id]
	if j == nil {
		return Errorf(NotFound, "cancel", "", "no such job")
	}
	j.cancel(errCancelledJob)
	return nil
}

// wait returns the job of that id, if need be once it begins.
func (js *jobs) wait(ctx context.Context, id string) (*job, error) {
	js.mu.Lock()
	if j := js.byID[id]; j != nil {
		js.mu.Unlock()
		return j, nil
	}
	w := js.waiters[id]
	if w == nil {
		if len(js.waiters) >= maxJobs {
			js.mu.Unlock()
			return nil, Errorf(Busy, "events", "", "too many wait for jobs that have not begun")
		}
		w = make(chan struct{})
		js.waiters[id] = w
	}
	js.mu.Unlock()
	t := time.NewTimer(jobWait)
	defer t.Stop()
	select {
	case <-w:
	case <-t.C:
	case <-ctx.Done():
	}
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.byID[id]; j != nil {
		return j, nil
	}
	if js.waiters[id] == w {
		close(w) // whoever else waits asks anew or gives up too
		delete(js.waiters, id)
	}
	return nil, Errorf(NotFound, "events", "", "no such job")
}

// snapshot returns what a watcher of j needs.
func (js *jobs) snapshot(j *job) (p Progress, state string, result any, err *Error, version int, changed <-chan struct{}) {
	js.mu.Lock()
	defer js.mu.Unlock()
	return j.progress, j.state, j.result, j.err, j.version, j.changed
}

func goodJobID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
