package api

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Events streams trace events.
func (c *Client) Events(ctx context.Context, emit func(TraceEvent) error) error {
	resp, err := c.request(ctx, "events", http.MethodGet, "/v1/events", "", nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // endless
	err = readEvents(resp.Body, func(name string, data []byte) error {
		switch name {
		case "trace":
			var ev TraceEvent
			if err := json.Unmarshal(data, &ev); err != nil {
				return err
			}
			return emit(ev)
		case "error":
			var e errorBody
			if err := json.Unmarshal(data, &e); err != nil || e.Error == nil {
				return errors.New("an error that is not understood")
			}
			return e.Error
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return Errorf(Unavailable, "events", "", "the node ended")
	default:
		return err
	}
}

// Follow calls report with the progress of a job until it ends, and returns
// its error. The job may begin up to jobWait later.
func (c *Client) Follow(ctx context.Context, job string, report Report) error {
	resp, err := c.request(ctx, "events", http.MethodGet, "/v1/jobs/"+url.PathEscape(job)+"/events", "", nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or given up
	ended := false
	err = readEvents(resp.Body, func(name string, data []byte) error {
		switch name {
		case "progress":
			var p Progress
			if err := json.Unmarshal(data, &p); err != nil {
				return err
			}
			report(p)
		case "done":
			ended = true
		case "error":
			var e errorBody
			if err := json.Unmarshal(data, &e); err != nil || e.Error == nil {
				return errors.New("an error that is not understood")
			}
			return e.Error
		}
		return nil
	})
	if err == nil && !ended {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return c.failure(ctx, "events", err)
	}
	return nil
}

// follow reports the progress of the job about to begin, to which it gives an
// id if it has none, until the returned function is called.
func (c *Client) follow(ctx context.Context, job *string, report Report) (stop func()) {
	if report == nil {
		return func() {}
	}
	if *job == "" {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails
		*job = hex.EncodeToString(b[:])
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func(id string) { // ends with ctx or the job, and stop waits for it
		defer close(done)
		_ = c.Follow(ctx, id, report) // the call itself tells the outcome
	}(*job)
	return func() {
		cancel()
		<-done
	}
}

// maxEvent is the longest event a client takes, in bytes.
const maxEvent = MaxBody

// readEvents calls f for each server-sent event.
func readEvents(r io.Reader, f func(name string, data []byte) error) error {
	var name string
	var data []byte
	sc := newLines(r)
	for sc.Scan() {
		line := sc.Bytes()
		if len(line) == 0 {
			if data != nil {
				if err := f(name, data); err != nil {
					return err
				}
			}
			name, data = "", nil
			continue
		}
		field, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			if len(data)+len(value) > maxEvent {
				return fmt.Errorf("an event has more than %d bytes", maxEvent)
			}
			data = append(data, value...)
		}
	}
	return sc.Err()
}

func newLines(r io.Reader) *bufio.Scanner {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4<<10), maxEvent+64)
	return sc
}
