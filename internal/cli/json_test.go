package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
)

// TestJSON: what --json prints is the API's object, no field more or less, on one
// line; an error is one on standard error, with its exit code.
func TestJSON(t *testing.T) {
	dir := t.TempDir()
	n := apitest.New()
	stop, err := apitest.Serve(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	link := n.Add("notes.txt", []byte("high tide"), false).Link
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("low tide"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	member := apitest.Others[0].String()
	for _, c := range []struct {
		args   string
		schema any // what is printed, decoded into it strictly, prints again as the same
		exit   int
	}{
		{"version", new(api.Version), 0},
		{"status", new(api.Status), 0},
		{"peers", new(api.Peers), 0},
		{"invite", new(api.InviteResult), 0},
		{"put " + file, new(api.PutResult), 0},
		{"get " + link + " -o " + out, new(api.GetResult), 0},
		{"stat " + link, new(api.StatResult), 0},
		{"ls", new(api.LsResult), 0},
		{"verify " + link, new(api.VerifyResult), 0},
		{"repair --all", new(api.VerifyResult), 0},
		{"dht put " + file, new(api.DHTPutResult), 0},
		{"lookup d46a", new(api.LookupResult), 0},
		{"route d46a", new(api.RouteResult), 0},
		{"table", new(api.Table), 0},
		{"doctor", new(api.DoctorResult), 0},
		{"revoke " + member + " --yes", new(api.RevokeResult), 0},
		{"rm notes.txt", new(api.RmResult), 0},
		{"get " + link + " -o " + filepath.Join(dir, "gone"), nil, 3},
		{"get nonsense", nil, 2},
		{"frobnicate", nil, 2},
		{"leave --yes", new(api.LeaveResult), 0},
	} {
		var stdout, stderr bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &stdout, err: &stderr}
		if exit := a.run(t.Context(), append([]string{"--dir", dir, "--json"}, strings.Fields(c.args)...)); exit != c.exit {
			t.Errorf("%s: exit %d: %s", c.args, exit, stderr.String())
			continue
		}
		got := stdout.Bytes()
		if c.exit != 0 {
			if stdout.Len() > 0 {
				t.Errorf("%s: failed, and printed %s", c.args, got)
			}
			got, c.schema = stderr.Bytes(), new(struct {
				Error *api.Error `json:"error"`
			})
		}
		d := json.NewDecoder(bytes.NewReader(got))
		d.DisallowUnknownFields()
		if err := d.Decode(c.schema); err != nil {
			t.Errorf("%s: %v in %s", c.args, err, got)
			continue
		}
		again, err := json.Marshal(c.schema)
		if err != nil || string(again)+"\n" != string(got) {
			t.Errorf("%s printed\n%swhich is, as %s,\n%s, %v", c.args, got, reflect.TypeOf(c.schema), again, err)
		}
	}
}

// TestJSONObeysNobody: no name drives the terminal that JSON is printed on, and the
// JSON is the same.
func TestJSONObeysNobody(t *testing.T) {
	const name = "bücher \x1b[2J\u009b2J\x7f\u202e\U000e0001 <&>"
	var b bytes.Buffer
	if err := printJSON(&b, api.File{Name: name}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(strings.TrimSuffix(b.String(), "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) || !strings.Contains(b.String(), "bücher") {
		t.Errorf("%q", b.String())
	}
	var f api.File
	if err := json.Unmarshal(b.Bytes(), &f); err != nil || f.Name != name {
		t.Errorf("%q, %v", f.Name, err)
	}
}

// TestStartedWarns: what a node that serves warns of is told on standard error, or
// stands in the JSON.
func TestStartedWarns(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out, errs bytes.Buffer
		a := &app{out: &out, err: &errs, json: asJSON}
		if err := a.started(Started{Warnings: []string{"this node's limit is 900.0 TiB"}}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "900.0 TiB") != asJSON || strings.Contains(errs.String(), "Warning: this node's limit is 900.0 TiB") == asJSON {
			t.Errorf("JSON %t: %q and %q", asJSON, out.String(), errs.String())
		}
	}
}
