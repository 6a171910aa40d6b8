package cli

import (
	"fmt"
	"strings"
	"sync"

	"atoll.example/atoll/internal/api"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows on standard error how far a job is: on a terminal only, and
// not where silence was asked for. The zero progress is silent.
type progress struct {
	p   *mpb.Progress
	bar *mpb.Bar

	mu   sync.Mutex // guards last: reports come from the client's goroutine, reads from mpb's
	last api.Progress
}

// progress begins to show; the caller ends it with done.
func (a *app) progress(what string) *progress {
	if a.quiet || a.json || !a.errTTY {
		return &progress{}
	}
	pr := &progress{last: api.Progress{Phase: what, Total: -1, ETAS: -1}}
	pr.p = mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(28), mpb.WithAutoRefresh())
	pr.bar = pr.p.New(0,
		mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░"),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return pr.get().Phase + " " }, decor.WC{C: decor.DindentRight, W: 12})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + progressWords(pr.get()) })),
	)
	return pr
}

func (pr *progress) get() api.Progress {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.last
}

// report is the api.Report of a job; nil when nothing is shown, so that none is
// asked for.
func (pr *progress) report() api.Report {
	if pr.p == nil {
		return nil
	}
	return func(p api.Progress) {
		pr.mu.Lock()
		pr.last = p
		pr.mu.Unlock()
		if p.Total > 0 {
			pr.bar.SetTotal(p.Total, false)
			pr.bar.SetCurrent(min(p.Bytes, p.Total))
		}
	}
}

// done takes the bar away.
func (pr *progress) done() {
	if pr.p == nil {
		return
	}
	pr.bar.Abort(true)
	pr.p.Wait()
}

// progressWords tells progress in a line: what is done of what, how fast, how
// long still, and what it waits for.
func progressWords(p api.Progress) string {
	var parts []string
	switch {
	case p.Total > 0:
		parts = append(parts, fmt.Sprintf("%s of %s", size(p.Bytes), size(p.Total)))
	case p.Bytes > 0:
		parts = append(parts, size(p.Bytes))
	case p.Blocks > 0:
		parts = append(parts, plural(p.Blocks, "block"))
	}
	if p.Rate > 0 {
		parts = append(parts, size(p.Rate)+"/s")
	}
	switch {
	case p.StalledOn != "":
		parts = append(parts, "waiting: "+escape(p.StalledOn))
	case p.ETAS >= 0 && p.Total > 0:
		parts = append(parts, seconds(float64(p.ETAS))+" left")
	}
	return strings.Join(parts, " · ")
}
