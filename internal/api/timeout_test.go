package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
)

// timedNode tells how long a dht put may take; a doctor it has wait.
type timedNode struct {
	*apitest.Node
	end chan time.Time
}

func (n timedNode) DHTPut(ctx context.Context, _ api.DHTPutRequest) (api.DHTPutResult, error) {
	end, _ := ctx.Deadline()
	n.end <- end
	return api.DHTPutResult{}, nil
}

func (timedNode) Doctor(ctx context.Context, _ api.DoctorRequest) (api.DoctorResult, error) {
	<-ctx.Done()
	return api.DoctorResult{}, ctx.Err()
}

// TestTimeout: a node knows how long its client waits, and answers before.
func TestTimeout(t *testing.T) {
	n := timedNode{apitest.New(), make(chan time.Time, 2)}
	dir := t.TempDir()
	stop, err := apitest.Serve(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	c := api.NewClient(dir)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, ctx := range []context.Context{ctx, context.Background()} {
		if _, err := c.DHTPut(ctx, api.DHTPutRequest{Raw: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		got := <-n.end
		if want, ok := ctx.Deadline(); got.IsZero() == ok || ok && !got.Before(want) {
			t.Errorf("the node may take until %v, the client waits until %v", got, want)
		}
	}
	for text, want := range map[string]int{
		"1": http.StatusGatewayTimeout, "0": http.StatusBadRequest, "-1": http.StatusBadRequest,
		"x": http.StatusBadRequest, "99999999999999999999": http.StatusBadRequest,
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://atoll/v1/doctor", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(api.HeaderTimeout, text)
		resp, err := rawClient(t, dir).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%q: %s", text, resp.Status)
		}
	}
}

// TestNames: what would deceive on a terminal or in a list is no name.
func TestNames(t *testing.T) {
	for _, bad := range []string{"\x1b[2J", "a\nb", "a\rb", "a\x7f", "a\u009bb", "red\u202etxt.exe", "a\u2066b", "a\u2028b", "a/b", "..", ""} {
		if api.CheckName(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
	for _, good := range []string{"report.pdf", "a b", "na\u00efve", "\u0645\u06cc\u200c\u062e", "\U0001f468\u200d\U0001f469.png", "\u2764\ufe0f", `back\slash`} {
		if err := api.CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
