package api_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
)

func TestJobs(t *testing.T) {
	n := apitest.New()
	n.Hold = make(chan struct{})
	c, _ := serve(t, n)
	ctx := t.Context()

	followed := make(chan error, 1)
	var mu sync.Mutex
	var seen []api.Progress
	go func() { // before the job begins
		followed <- c.Follow(ctx, "job-1", func(p api.Progress) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, p)
		})
	}()
	done := make(chan error, 1)
	go func() {
		_, err := c.Verify(ctx, api.VerifyRequest{All: true, Job: "job-1"}, nil)
		done <- err
	}()
	<-n.Held
	js, err := c.Jobs(ctx)
	if err != nil || len(js.Jobs) != 1 || js.Jobs[0].ID != "job-1" || js.Jobs[0].Op != "verify" || js.Jobs[0].State != "running" || js.Jobs[0].Progress.Phase != "checking" {
		t.Errorf("jobs: %+v, %v", js, err)
	}
	if _, err := c.Repair(ctx, api.VerifyRequest{All: true, Job: "job-1"}, nil); code(err) != api.Exists {
		t.Errorf("a second job of the id: %v", err)
	}
	wait(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) > 0
	})
	if err := c.Cancel(ctx, "job-1"); err != nil {
		t.Error(err)
	}
	if err := <-done; code(err) != api.Cancelled {
		t.Errorf("cancelled: %v", err)
	}
	if err := <-followed; code(err) != api.Cancelled {
		t.Errorf("followed: %v", err)
	}
	mu.Lock()
	if len(seen) == 0 || seen[len(seen)-1].Phase != "checking" {
		t.Errorf("progress: %+v", seen)
	}
	mu.Unlock()
	// What has ended is remembered, and its id may be used again.
	if err := c.Follow(ctx, "job-1", func(api.Progress) {}); code(err) != api.Cancelled {
		t.Errorf("followed late: %v", err)
	}
	close(n.Hold)
	reported := false
	if _, err := c.Repair(ctx, api.VerifyRequest{All: true, Job: "job-1"}, func(api.Progress) { reported = true }); err != nil {
		t.Error(err)
	}
	_ = reported // short jobs may end before the first event
	if err := c.Cancel(ctx, "nobody"); code(err) != api.NotFound {
		t.Errorf("cancel of nothing: %v", err)
	}
}

// A client that hangs up ends its job.
func TestHangUp(t *testing.T) {
	n := apitest.New()
	n.Hold = make(chan struct{})
	c, _ := serve(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(ctx, api.PutParams{Path: "/nowhere", Job: "p"}, nil, func(api.Progress) {})
		done <- err
	}()
	<-n.Held
	cancel()
	if err := <-done; code(err) != api.Cancelled {
		t.Errorf("the client got %v", err)
	}
	wait(t, func() bool {
		js, err := c.Jobs(t.Context())
		return err == nil && len(js.Jobs) == 1 && js.Jobs[0].State == "error"
	})
}

// Events come at most five times a second, whatever the operation reports.
func TestProgressRate(t *testing.T) {
	n := &reporter{Node: apitest.New(), stop: make(chan struct{})}
	dir := t.TempDir()
	l, err := api.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- api.NewServer(n).Serve(ctx, l) }()
	c := api.NewClient(dir)
	var times []time.Time
	_, err = c.Verify(t.Context(), api.VerifyRequest{All: true}, func(api.Progress) {
		times = append(times, time.Now())
		if len(times) == 4 {
			close(n.stop)
		}
	})
	if err != nil || len(times) < 4 {
		t.Fatalf("%d events, %v", len(times), err)
	}
	if d := times[3].Sub(times[0]); d < 400*time.Millisecond {
		t.Errorf("4 events in %v", d)
	}
	c.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// reporter reports as fast as it can.
type reporter struct {
	*apitest.Node
	stop chan struct{}
}

func (r *reporter) Verify(ctx context.Context, _ api.VerifyRequest, report api.Report) (api.VerifyResult, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := int64(0); ; i++ {
		report(api.Progress{Blocks: i})
		select {
		case <-r.stop:
			return api.VerifyResult{}, nil
		case <-ctx.Done():
			return api.VerifyResult{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// wait waits for a condition.
func wait(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	give := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-give:
			t.Fatal("waited 10 s")
		}
	}
}
