// Package arch holds the rule of who may import whom, and of what the pure
// packages must not do, as tests. The table is in table_test.go. After Go's own
// go/build/deps_test.go.
package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "atoll.example/atoll"

type row struct {
	name     string
	pure     bool
	packages string // one a line, with the neighbours it may import
}

// place is where a package stands.
type place struct {
	depth  int // 0 is the top row
	pure   bool
	port   bool
	arrows []string
}

func words(s string) []string { return strings.Fields(s) }

// places reads the table.
func places() map[string]place {
	all := make(map[string]place)
	for depth, r := range rows {
		for line := range strings.Lines(r.packages) {
			name, arrows, _ := strings.Cut(line, "->")
			if name = strings.TrimSpace(name); name != "" {
				all[name] = place{depth, r.pure, slices.Contains(ports, name), words(arrows)}
			}
		}
	}
	return all
}

// kitOf returns the package that a test kit is for.
func kitOf(pkg string) (of string, ok bool) {
	dir, base := path.Split(pkg)
	dir = strings.TrimSuffix(dir, "/")
	return dir, strings.HasSuffix(base, kitSuffix) && base == path.Base(dir)+kitSuffix
}

// mayImport says why a package may not import another; empty if it may.
func mayImport(all map[string]place, from, to string) string {
	if of, ok := kitOf(to); ok {
		if _, kit := kitOf(from); !kit {
			return to + " is a test kit: tests alone import it"
		}
		to = of
	}
	kit := false
	if of, ok := kitOf(from); ok {
		if of == to {
			return ""
		}
		from, kit = of, true
	}
	a, ok := all[from]
	if !ok {
		return from + " has no place in the table"
	}
	b, ok := all[to]
	switch {
	case !ok:
		return to + " has no place in the table"
	case kit && b.depth >= a.depth:
		return ""
	case b.depth > a.depth || slices.Contains(a.arrows, to):
		return ""
	case b.depth == a.depth:
		return fmt.Sprintf("%s and %s are neighbours on the row %s, and no arrow joins them", from, to, rows[a.depth].name)
	}
	return fmt.Sprintf("%s (%s) is above %s (%s)", to, rows[b.depth].name, from, rows[a.depth].name)
}

// file is one source file that is no test.
type file struct {
	pkg    string // as in the table
	name   string
	syntax *ast.File
	set    *token.FileSet
}

func parse(t *testing.T, pkg, name string, src []byte) file {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file{pkg, name, f, set}
}

// sources parses all files of the module, tests and other modules left out.
func sources(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var all []file
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			if base := d.Name(); name != root && (nested == nil || base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if pkg == "." {
			pkg = "atoll"
		}
		all = append(all, parse(t, pkg, name, src))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ours returns the table's name for an import path of the module.
func ours(importPath string) (pkg string, ok bool) {
	if importPath == module {
		return "atoll", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// importPaths maps the name by which a file knows an import to its path.
func (f file) importPaths() map[string]string {
	m := make(map[string]string)
	for _, i := range f.syntax.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if name == "v2" {
			name = path.Base(path.Dir(p))
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		m[name] = p
	}
	return m
}

// faults lists what is wrong with a file.
func (f file) faults(all map[string]place) (faults []string) {
	if _, kit := kitOf(f.pkg); !kit && all[f.pkg].pure {
		faults = f.impurities(all[f.pkg])
	}
	for _, p := range f.importPaths() {
		if to, ok := ours(p); ok {
			if why := mayImport(all, f.pkg, to); why != "" {
				faults = append(faults, "imports "+to+": "+why)
			}
		}
	}
	if _, ok := all[f.pkg]; !ok {
		if _, kit := kitOf(f.pkg); !kit {
			faults = append(faults, f.pkg+" has no place in the table")
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults)
}

func (f file) impurities(at place) (faults []string) {
	fault := func(n ast.Node, what string) {
		faults = append(faults, fmt.Sprintf("line %d: %s", f.set.Position(n.Pos()).Line, what))
	}
	imports := f.importPaths()
	for name, p := range imports {
		_, mine := ours(p)
		switch {
		case mine || slices.Contains(pureImports, p) || at.port && p == "context":
		default:
			fault(f.syntax, "imports "+p+", which pure packages do not")
		}
		if name == "." && !mine {
			fault(f.syntax, "imports "+p+" by the name .")
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			fault(n, "go statement")
		case *ast.SelectStmt:
			fault(n, "select statement")
		case *ast.SendStmt:
			fault(n, "send to a channel")
		case *ast.ChanType:
			if !at.port {
				fault(n, "channel")
			}
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				fault(n, "receive from a channel")
			}
		case *ast.Ident:
			if n.Name == "float32" || n.Name == "float64" {
				fault(n, "floating point")
			}
		case *ast.BasicLit:
			if n.Kind == token.FLOAT {
				fault(n, "floating point")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			p, ok := imports[x.Name]
			if !ok {
				break
			}
			if rule, ok := pureUse[p]; ok {
				rest, except := strings.CutPrefix(rule, "-")
				if slices.Contains(words(rest), n.Sel.Name) == except {
					fault(n, p+"."+n.Sel.Name)
				}
			}
		}
		return true
	})
	return faults
}

// TestArchitecture reads the whole tree.
func TestArchitecture(t *testing.T) {
	all := places()
	files := sources(t)
	if len(files) < 20 {
		t.Fatalf("only %d files found", len(files))
	}
	for _, f := range files {
		for _, fault := range f.faults(all) {
			t.Errorf("%s: %s", f.name, fault)
		}
	}
}

// TestTable checks the table itself: each arrow stays on its row and leads to a
// package of the table, and no arrows go in a circle.
func TestTable(t *testing.T) {
	all := places()
	for name, p := range all {
		for _, to := range p.arrows {
			q, ok := all[to]
			if !ok || q.depth != p.depth {
				t.Errorf("the arrow from %s to %s leaves its row", name, to)
			}
		}
		seen := map[string]bool{}
		var walk func(string)
		walk = func(at string) {
			for _, to := range all[at].arrows {
				if to == name {
					t.Errorf("%s imports itself by way of %s", name, at)
					return
				}
				if !seen[to] {
					seen[to] = true
					walk(to)
				}
			}
		}
		walk(name)
	}
	for _, p := range ports {
		if !all[p].pure {
			t.Errorf("port %s is not among the pure packages", p)
		}
	}
}

// TestRulesBite plants one breach of each rule.
func TestRulesBite(t *testing.T) {
	all := places()
	for _, tc := range []struct {
		pkg, src string
		want     string // part of the only fault; empty: none
	}{
		{"internal/dht", `import _ "atoll.example/atoll/internal/kbr"`, ""},
		{"internal/dht", `import _ "atoll.example/atoll/internal/overlay/pastry"`, "neighbours on the row services"},
		{"internal/overlay/pastry", `import _ "atoll.example/atoll/internal/overlay/ring"`, ""},
		{"internal/overlay/ring", `import _ "atoll.example/atoll/internal/overlay/pastry"`, "no arrow"},
		{"internal/id", `import _ "atoll.example/atoll/internal/wire"`, "no arrow"},
		{"internal/kbr", `import _ "atoll.example/atoll/internal/dht"`, "is above"},
		{"internal/stack", `import _ "atoll.example/atoll/internal/node"`, "is above"},
		{"internal/node", `import _ "atoll.example/atoll/internal/sim"`, "neighbours"},
		{"internal/node", `import _ "atoll.example/atoll"`, "is above"},
		{"internal/api", `import _ "atoll.example/atoll/internal/cli"`, "no arrow"},
		{"internal/node", `import _ "atoll.example/atoll/internal/machine/machinetest"`, "test kit"},
		{"internal/kbr/kbrtest", `import _ "atoll.example/atoll/internal/machine/machinetest"`, ""},
		{"internal/kbr/kbrtest", `import ("sync"; _ "atoll.example/atoll/internal/kbr"); var _ sync.Mutex`, ""},
		{"internal/kbr/kbrtest", `import _ "atoll.example/atoll/internal/dht"`, "is above"},
		{"internal/util", `import _ "os"`, "no place in the table"},
		{"internal/dht", `import _ "atoll.example/atoll/internal/util"`, "no place in the table"},

		{"internal/dht", `import _ "os"`, "imports os"},
		{"internal/dht", `import _ "net"`, "imports net"},
		{"internal/dht", `import _ "sync"`, "imports sync"},
		{"internal/dht", `import _ "sync/atomic"`, "imports sync/atomic"},
		{"internal/dht", `import _ "math/rand"`, "imports math/rand,"},
		{"internal/dht", `import _ "crypto/rand"`, "imports crypto/rand"},
		{"internal/dht", `import _ "context"`, "imports context"},
		{"internal/transport", `import _ "context"`, ""},
		{"internal/dht", `func f() { go f() }`, "go statement"},
		{"internal/dht", `func f() { select {} }`, "select statement"},
		{"internal/dht", `var c chan int`, "channel"},
		{"internal/store", `var c <-chan struct{}`, ""},
		{"internal/store", `func f(c interface{ C() int }) { <-c.C() }`, "receive from a channel"},
		{"internal/dht", `import "time"; var t = time.Now()`, "time.Now"},
		{"internal/dht", `import clock "time"; var t = clock.Now`, "time.Now"},
		{"internal/dht", `import "time"; var t = time.UnixMilli(1).UTC()`, ""},
		{"internal/dht", `import "math/rand/v2"; var n = rand.IntN(3)`, "math/rand/v2.IntN"},
		{"internal/dht", `import "math/rand/v2"; var r *rand.Rand = rand.New(rand.NewPCG(1, 2))`, ""},
		{"internal/dht", `import "fmt"; func f() { fmt.Println() }`, "fmt.Println"},
		{"internal/dht", `var x = 0.5`, "floating point"},
		{"internal/dht", `var x float64`, "floating point"},
		{"internal/node", `import ("os"; "time"); var x = 0.5; var t = time.Now(); var c chan os.File; func f() { go f() }`, ""},
	} {
		src := new(bytes.Buffer)
		fmt.Fprintf(src, "package p\n\n%s\n", tc.src)
		f := parse(t, tc.pkg, "planted.go", src.Bytes())
		faults := f.faults(all)
		if tc.want == "" && len(faults) > 0 || tc.want != "" && (len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), tc.want)) {
			t.Errorf("%s: %s\nfaults %q, want %q", tc.pkg, tc.src, faults, tc.want)
		}
	}
}
