// Package wiretest holds formats and conversations against files that people
// have read: golden bytes and golden traces. `go test ./internal/PACKAGE
// -rewrite` writes the files anew; read the diff.
package wiretest

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files; then read the diff")

// Version of the formats whose bytes are under testdata/golden.
const Version = "v1"

// Sample is a value whose bytes are fixed.
type Sample struct {
	Name   string // unique in its table
	Value  any    // what Decode makes of Bytes
	Bytes  []byte // what the encoder makes of Value today
	Decode func([]byte) (any, error)
}

// Decoder makes a Sample's Decode of a decoder with a result of its own type.
func Decoder[T any](f func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return f(b) }
}

// Bytes compares samples with testdata/golden/v1/NAME.txt at the top of the
// repository, in both directions: today's encoder makes the bytes of the file,
// and today's decoder makes the values of them. A disk or a node of an earlier
// release has such bytes, so a difference needs a version step: a new number
// in the format, the old one still read, and a folder of its own beside v1.
func Bytes(t *testing.T, name string, samples []Sample) {
	t.Helper()
	var file strings.Builder
	fmt.Fprintf(&file, "Golden bytes of %s, format %s: a difference needs a version step.\n", name, Version)
	for _, s := range samples {
		fmt.Fprintf(&file, "\n%s\n%s", s.Name, show(s.Bytes))
	}
	path := filepath.Join(top(t), "testdata", "golden", Version, name+".txt")
	kept := parse(t, Text(t, path, file.String()))
	for _, s := range samples {
		b, ok := kept[s.Name]
		if !ok {
			continue // Text has said so
		}
		got, err := s.Decode(b)
		if err != nil {
			t.Errorf("%s: the golden bytes do not decode: %v", s.Name, err)
		} else if !reflect.DeepEqual(got, s.Value) {
			t.Errorf("%s: the golden bytes decode to\n%+v, want\n%+v", s.Name, got, s.Value)
		}
	}
}

// show renders bytes: text as a Go string, all else as hexadecimal digits, 48
// bytes a line.
func show(b []byte) string {
	if strings.IndexFunc(string(b), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) < 0 {
		return fmt.Sprintf("    %q\n", b)
	}
	var lines strings.Builder
	for part := range slices.Chunk(b, 48) {
		fmt.Fprintf(&lines, "    %x\n", part)
	}
	return lines.String()
}

// parse returns the bytes of each sample in a golden file.
func parse(t *testing.T, text string) map[string][]byte {
	t.Helper()
	kept := make(map[string][]byte)
	name := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		value, ok := strings.CutPrefix(line, "    ")
		if !ok {
			name = line
			continue
		}
		b, err := hex.DecodeString(value)
		if text, terr := strconv.Unquote(value); terr == nil {
			b, err = []byte(text), nil
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		kept[name] = append(kept[name], b...)
	}
	return kept
}

// Text compares got with a golden file, or writes the file if asked to. It
// returns what the file says.
func Text(t *testing.T, path, got string) string {
	t.Helper()
	if *rewrite {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return got
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (-rewrite writes it)", err)
	}
	want := string(b)
	if got != want {
		t.Errorf("%s: %s", path, difference(got, want))
	}
	return want
}

// difference shows the first line that differs, and the one before it.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	i := 0
	for i < min(len(g), len(w)) && g[i] == w[i] {
		i++
	}
	at := func(lines []string) string {
		if i < len(lines) {
			return lines[i]
		}
		return "(the end)"
	}
	before := ""
	if i > 0 {
		before = g[i-1]
	}
	return fmt.Sprintf("line %d differs (if it should, -rewrite, then read the diff)\nafter  %s\ngot    %s\nwanted %s",
		i+1, before, at(g), at(w))
}

// top is the folder with go.mod.
func top(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		switch _, err := os.Stat(filepath.Join(dir, "go.mod")); {
		case err == nil:
			return dir
		case !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir:
			t.Fatalf("no go.mod above the test: %v", err)
		}
		dir = filepath.Dir(dir)
	}
}
