package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/files"
	"atoll.example/atoll/internal/id"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// printJSON prints v on one line. What a terminal would obey, and JSON leaves as it
// is, is escaped: names come from others.
func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	var out []byte
	for _, r := range b.String() { // beyond ASCII only in strings
		if r < 0x7f || unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, u)
		}
	}
	_, err := w.Write(out)
	return err
}

// show prints v: as JSON, or by words.
func (a *app) show(v any, words func(w io.Writer)) error {
	if a.json {
		return printJSON(a.out, v)
	}
	var sb strings.Builder
	words(&sb)
	_, err := io.WriteString(a.out, sb.String())
	return err
}

// remark tells people something beside the result.
func (a *app) remark(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}

// complain prints an error.
func (a *app) complain(e *api.Error) {
	if a.json {
		_ = printJSON(a.err, map[string]*api.Error{"error": e}) // nowhere else to tell
		return
	}
	fmt.Fprintf(a.err, "atoll: %s\n", escapeLines(e.Error()))
	if e.Detail != nil && len(e.Detail.Nodes) > 0 && !strings.Contains(e.Message, e.Detail.Nodes[0].Short()) {
		fmt.Fprintf(a.err, "  nodes: %s\n", shortGUIDs(e.Detail.Nodes))
	}
	if e.Detail != nil && e.Detail.Text != "" {
		fmt.Fprintf(a.err, "  %s\n", strings.ReplaceAll(escapeLines(e.Detail.Text), "\n", "\n  "))
	}
	switch {
	case e.Code == api.NoQuorum && e.Op == "put":
		fmt.Fprintf(a.err, "  Wait for the silent members, exclude those that will not return (atoll revoke GUID), or take the risk of fewer copies for this file (--w 1). Then the same put again goes on where it was.\n")
	case e.AfterMS > 0:
		fmt.Fprintf(a.err, "  Try again in %s.\n", seconds(float64(e.AfterMS)/1000))
	}
}

// escape makes what others chose safe for a terminal.
func escape(s string) string { return files.EscapeName(s) }

// escapeLines escapes each line of a message.
func escapeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.ReplaceAll(escape(l), `\\`, `\`)
	}
	return strings.Join(lines, "\n")
}

func shortGUIDs(gs []id.GUID) string {
	var ss []string
	for _, g := range gs {
		ss = append(ss, g.Short())
	}
	return strings.Join(ss, ", ")
}

// newTable is the look of all tables: columns, no lines.
func newTable(header ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	s := t.Style()
	s.Options = table.OptionsNoBordersAndSeparators
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	s.Format.Header = text.FormatDefault
	t.AppendHeader(header)
	t.SuppressTrailingSpaces()
	return t
}

// right aligns columns by number, from 1.
func right(t table.Writer, columns ...int) { t.SetColumnConfigs(configs(columns, nil)) }

func configs(right, hidden []int) (cs []table.ColumnConfig) {
	for _, c := range right {
		cs = append(cs, table.ColumnConfig{Number: c, Align: text.AlignRight, AlignHeader: text.AlignRight, Hidden: slices.Contains(hidden, c)})
	}
	for _, c := range hidden {
		if !slices.Contains(right, c) {
			cs = append(cs, table.ColumnConfig{Number: c, Hidden: true})
		}
	}
	return cs
}

// narrowed renders a table and leaves out as many of the columns in spare, in that
// order, as it takes to fit the terminal.
func (a *app) narrowed(t table.Writer, right, spare []int) string {
	for n := 0; ; n++ {
		t.SetColumnConfigs(configs(right, spare[:n]))
		s := t.Render()
		if n == len(spare) || text.LongestLineLen(s) <= a.width() {
			return s
		}
	}
}

// fold breaks lines at spaces so that they fit the width; what is broken off is
// indented. Terminal attributes take no room.
func fold(s string, width int) string {
	const indent = "  "
	var b strings.Builder
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		column := 0
		for j, word := range strings.Split(line, " ") {
			n := text.StringWidthWithoutEscSequences(word)
			switch {
			case j == 0:
			case column+1+n > width && word != "":
				b.WriteString("\n" + indent)
				column = len(indent)
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return b.String()
}

// size words a number of bytes: in a binary unit, with one decimal, as the node
// does in its warnings.
func size(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		f /= 1024
		if f < 1023.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// count writes a number with separators for thousands.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		s = "-" + s
	}
	return s
}

// plural is "1 block", "2 blocks".
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if of, ok := strings.CutSuffix(noun, "copy"); ok {
		return count(n) + " " + of + "copies"
	}
	return count(n) + " " + noun + "s"
}

// seconds words a stretch of time.
func seconds(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 9.95:
		return strconv.FormatFloat(float64(int(s*10+0.5))/10, 'f', -1, 64) + " s"
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s < 120*60:
		return fmt.Sprintf("%.0f min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%.0f h", s/3600)
	default:
		return plural(int64(s/86400+0.5), "day")
	}
}

// rtt words a round-trip time, nil if it is not known.
func rtt(ms *float64) string {
	switch {
	case ms == nil:
		return "–"
	case *ms < 10:
		return fmt.Sprintf("%.2f ms", *ms)
	default:
		return fmt.Sprintf("%.0f ms", *ms)
	}
}

// date words a time for people, in their zone.
func date(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// orDash is s, escaped, or a dash.
func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return escape(s)
}

// styled wraps s in a terminal attribute where the output is a terminal.
func (a *app) styled(attr, s string) string {
	if !a.outTTY || s == "" {
		return s
	}
	return "\x1b[" + attr + "m" + s + "\x1b[0m"
}

// markPrefix shows a GUID with its first n digits marked: in bold on a
// terminal, else set off by a bar.
func (a *app) markPrefix(g id.GUID, n int) string {
	s := g.String()
	n = min(max(n, 0), len(s))
	if a.outTTY {
		return a.styled("1;4", s[:n]) + s[n:]
	}
	return s[:n] + "|" + s[n:]
}
