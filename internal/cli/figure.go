package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) tableCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "table",
		Short: "Print this node's routing table, as in Figure 10.7",
		Args:  cobra.NoArgs,
		Long: `
Table prints the routing table in the form of Figure 10.7 of Coulouris et al.:
for each row p, the prefixes of columns 0 to F, which share p digits with this
node's GUID, and below each the first digits of the node known there. This
node's own cells are grey. The leaf set and the neighbourhood set follow.

Rows 0 to 3 are printed unless --rows says otherwise; with a pool of N nodes,
about log16 N rows have entries.`,
		Example: `
			atoll table
			atoll table --rows 8`,
	}, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		rows := int(number(cmd, "rows"))
		v, err := a.node().Table(ctx)
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) { a.figure107(w, v, rows, a.width()) })
	})
}

// width is the width of the terminal, or more than enough without one.
func (a *app) width() int {
	f, ok := a.out.(interface{ Fd() uintptr })
	if !ok || !a.outTTY {
		return 1 << 10
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 {
		return 80
	}
	return w
}

// figure107 prints the first rows of a routing table. Where 16 columns do not
// fit, each row is printed in two halves.
func (a *app) figure107(w io.Writer, t api.Table, rows, width int) {
	digits := min(max(6, rows+1), id.Digits) // of a handle: one more than the longest prefix
	columns := 16
	if 4+16*(digits+1) > width {
		columns = 8
	}
	fmt.Fprintf(w, "Routing table of %s: GUID prefixes, and below each the node known there\n\n", short(t.GUID, digits))
	fmt.Fprintln(w, "p")
	for p := range rows {
		var cells []*api.Cell
		if p < len(t.Rows) {
			cells = t.Rows[p]
		}
		for from := 0; from < 16; from += columns {
			label := fmt.Sprintf("%-3d", p)
			if from > 0 {
				label = "   "
			}
			a.figureLine(w, label, func(d int) (string, bool) {
				return short(t.GUID.WithDigit(p, d), p+1), t.GUID.Digit(p) == d
			}, from, columns, digits)
			a.figureLine(w, "   ", func(d int) (string, bool) {
				switch {
				case t.GUID.Digit(p) == d && a.outTTY:
					return "", true
				case t.GUID.Digit(p) == d:
					return strings.Repeat("░", digits), true
				case d < len(cells) && cells[d] != nil && !cells[d].Self:
					return short(cells[d].GUID, digits), false
				}
				return "", false
			}, from, columns, digits)
		}
	}
	line := func(name string, cells []api.Cell) {
		fmt.Fprintf(w, "%-20s", name)
		for _, c := range cells {
			fmt.Fprintf(w, " %s", short(c.GUID, digits))
		}
		if len(cells) == 0 {
			fmt.Fprint(w, " –")
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	line("leaf set, smaller", t.Leaf.Left)
	line("leaf set, larger", t.Leaf.Right)
	line("neighbourhood set", t.Neighbourhood)
}

// figureLine prints one line of a row; cell returns a column's text and
// whether it is grey.
func (a *app) figureLine(w io.Writer, label string, cell func(d int) (string, bool), from, columns, digits int) {
	var b strings.Builder
	b.WriteString(label)
	for d := from; d < from+columns; d++ {
		text, grey := cell(d)
		text += strings.Repeat(" ", digits-len([]rune(text)))
		if grey {
			text = a.styled("100", text)
		}
		b.WriteString(" " + text)
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// short is the first digits of a GUID as the chapter writes them.
func short(g id.GUID, digits int) string { return strings.ToUpper(g.String()[:digits]) }
