package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/files"
	"atoll.example/atoll/internal/seal"

	"github.com/spf13/cobra"
)

// completionTime bounds what completion asks of a node.
const completionTime = 2 * time.Second

func (a *app) putCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "put FILE|-",
		Short: "Store a file and print its link",
		Args:  cobra.ExactArgs(1),
		Long: `
Put stores a file, or standard input, and prints its link: alone on standard
output. The file is cut into blocks and sealed on this machine; the link is the
only way to read it, so keep it ("atoll ls --long" shows it again). Put succeeds
when a write quorum of members has synced every block; the other copies follow.

Interrupted, it continues where it was when the same command is run again; of a
file that was written, renamed, linked or given other rights since it begins
anew. What is stored already is not sent twice, unless --unique is given. A file
that is written to meanwhile is refused if its size or times tell. What a
program writes through a mapping may not tell.`,
		Example: `
			atoll put report.pdf
			tar c photos | atoll put - --name photos.tar
			link=$(atoll put report.pdf --quiet)`,
		ValidArgsFunction: completeFiles,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		p := api.PutParams{
			Name: str(cmd, "name"), Size: -1, Unique: truth(cmd, "unique"), Clear: truth(cmd, "clear"),
			K: int(number(cmd, "k")), W: int(number(cmd, "w")), NoResume: truth(cmd, "no-resume"),
		}
		switch {
		case p.K > 0 && p.W > p.K:
			return usage(cmd, "--w asks for more copies than --k")
		case p.Unique && p.Clear:
			return usage(cmd, "--unique and --clear exclude each other")
		}
		if p.Name != "" {
			if err := api.CheckName(p.Name); err != nil {
				return wrong("--name: %w", err)
			}
		}
		body, err := a.source(ctx, cmd, args[0], &p)
		if err != nil {
			return err
		}
		if c, ok := body.(io.Closer); ok && body != a.in {
			defer func() { _ = c.Close() }() // opened for reading
		}
		pr := a.progress("reading")
		v, err := a.node().Put(ctx, p, body, pr.report())
		pr.done()
		if err != nil {
			return err
		}
		if v.Size == 0 && args[0] == "-" {
			a.remark("Standard input was empty: so is the file.")
		}
		a.remark("%s", putWords(p.Name, v))
		if n := len(v.Older); n == 1 {
			a.remark("An older file of this name stays beside it: atoll rm %s removes that one.", v.Older[0].Short())
		} else if n > 1 {
			a.remark("%s of this name stay beside it: atoll rm %s removes the oldest.", plural(int64(n), "older file"), v.Older[0].Short())
		}
		return a.show(v, func(w io.Writer) { fmt.Fprintln(w, v.Link) })
	})
}

// source says where the bytes of a put come from: the node reads regular files
// itself, so that it can continue an interrupted put; pipes and devices are
// streamed.
func (a *app) source(ctx context.Context, cmd *cobra.Command, arg string, p *api.PutParams) (io.Reader, error) {
	if arg == "-" {
		return a.in, nil
	}
	if arg == "" {
		return nil, usage(cmd, "FILE is empty: name a file, or - for standard input")
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return nil, wrong("%w", err)
	}
	if p.Name == "" {
		p.Name = filepath.Base(path)
		if err := api.CheckName(p.Name); err != nil {
			return nil, usage(cmd, "%s: give the file another name with --name: %s", escape(arg), err)
		}
	}
	f, err := open(ctx, arg)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, wrong("%w", err)
	}
	switch {
	case fi.IsDir():
		_ = f.Close()
		return nil, wrong("%s is a folder: put stores single files (tar c %s | atoll put - --name %s.tar)", escape(arg), escape(arg), escape(filepath.Base(path)))
	case fi.Mode().IsRegular():
		// Of the kernel's own files, such as those below /proc, some say that they
		// are empty, and are not: what they hold is told by reading alone.
		if fi.Size() == 0 {
			n, _ := waiting(ctx, func() (int, error) { return f.ReadAt(make([]byte, 1), 0) })
			if n > 0 {
				break
			}
		}
		_ = f.Close()
		p.Path = path
		return nil, nil
	}
	return f, nil
}

// badPath is an argument that names no file that can be used.
func badPath(arg string, err error) *api.Error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return wrong("%s: %w", escape(arg), err)
}

// waiting does what may wait for somebody else for ever, such as the opening of a
// FIFO without a writer, until ctx ends: then the program is about to end, and do
// with it.
func waiting[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type done struct {
		v   T
		err error
	}
	ended := make(chan done, 1)
	go func() {
		v, err := do()
		ended <- done{v, err}
	}()
	select {
	case d := <-ended:
		return d.v, d.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// open opens the file that arg names for reading.
func open(ctx context.Context, arg string) (*os.File, error) {
	f, err := waiting(ctx, func() (*os.File, error) { return os.Open(arg) })
	if err != nil && ctx.Err() == nil {
		return nil, badPath(arg, err)
	}
	return f, err
}

// readAll reads r to its end, and no more than most bytes and one.
func readAll(ctx context.Context, r io.Reader, most int) ([]byte, error) {
	return waiting(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(r, int64(most)+1)) })
}

func putWords(name string, v api.PutResult) string {
	if name == "" {
		name = v.GUID.Short()
	}
	before := ""
	if v.Resumed > 0 {
		before = fmt.Sprintf(", %s from before", count(v.Resumed))
	}
	s := fmt.Sprintf("Stored %s: %s in %s (%s new%s), %s.", escape(name), size(v.Size), plural(v.Blocks, "block"), count(v.NewBlocks), before, seconds(float64(v.MS)/1000))
	switch {
	case v.Copies.Min < v.Copies.Target:
		verb := "are"
		if v.Copies.Min == 1 {
			verb = "is"
		}
		s += fmt.Sprintf(" %d of %d copies %s synced, the rest follow.", v.Copies.Min, v.Copies.Target, verb)
	case v.Copies.Target == 1:
		s += " The one copy is synced."
	default:
		s += fmt.Sprintf(" All %d copies are synced.", v.Copies.Target)
	}
	return s
}

func (a *app) getCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "get LINK",
		Short: "Get a file back by its link",
		Args:  cobra.ExactArgs(1),
		Long: `
Get fetches the file of a link from whichever members hold it, nearest first,
and checks every block against its name. The file appears under its name when
it is whole; until then its bytes are in NAME.atoll-part, from which the same
command continues after an interruption. A file that exists is not replaced
unless --force is given.

With -o - the bytes go to standard output in order, each block once it is
checked; a failure later on shows in the exit code. With - for LINK the link is
read from standard input.`,
		Example: `
			atoll get atoll:r1:aebagbaf…
			atoll get "$(atoll put report.pdf)" -o copy.pdf
			atoll put report.pdf > link.txt; atoll get - -o - < link.txt | wc -c`,
		ValidArgsFunction: a.completeLinks,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		link, err := a.link(ctx, cmd, args[0])
		if err != nil {
			return err
		}
		if strings.HasPrefix(link, "atoll:v1:") { // whatever else is wrong, nothing helps but another link
			return files.ErrForbidden
		}
		r := api.GetRequest{Link: link}
		out := str(cmd, "output")
		if out == "-" {
			return a.getStream(ctx, r)
		}
		if r.Out, err = a.target(ctx, cmd, out, link); err != nil {
			return err
		}
		r.Force = truth(cmd, "force")
		if _, err := os.Lstat(r.Out); err == nil && !r.Force {
			return api.Errorf(api.Exists, "", escape(shown(r.Out)), "the file exists: replace it with --force, or write elsewhere with -o")
		}
		pr := a.progress("fetching")
		v, err := a.node().Get(ctx, r, nil, pr.report())
		pr.done()
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			resumed := ""
			if v.Resumed > 0 {
				resumed = fmt.Sprintf(", %s of them from before", size(v.Resumed))
			}
			fmt.Fprintf(w, "%s: %s, verified (%s bytes%s, %s)\n", escape(shown(v.Path)), size(v.Size), count(v.Size), resumed, seconds(float64(v.MS)/1000))
		})
	})
}

// getStream writes a file to standard output; what else is to say goes to
// standard error.
func (a *app) getStream(ctx context.Context, r api.GetRequest) error {
	pr := a.progress("fetching")
	v, err := a.node().Get(ctx, r, func(api.GetHead) (io.Writer, error) { return a.out, nil }, pr.report())
	pr.done()
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.err, v)
	}
	a.remark("%s: %s, verified.", orDash(v.Name), size(v.Size))
	return nil
}

// target is the absolute path that get writes to: out, or the file's own name
// in the folder out or, without out, in this one.
func (a *app) target(ctx context.Context, cmd *cobra.Command, out, link string) (string, error) {
	if out != "" {
		path, err := filepath.Abs(out)
		if err != nil {
			return "", wrong("%w", err)
		}
		fi, err := os.Stat(path)
		if !strings.HasSuffix(out, string(filepath.Separator)) && (err != nil || !fi.IsDir()) {
			return path, nil
		}
		if err != nil || !fi.IsDir() {
			return "", wrong("%s is no folder", escape(out))
		}
		out = path
	} else {
		wd, err := os.Getwd()
		if err != nil {
			return "", api.Errorf(api.Internal, "", "", "%w", err)
		}
		out = wd
	}
	st, err := a.node().Stat(ctx, api.LinkRequest{Link: link})
	if err != nil {
		e := *api.AsError("get", err)
		if l, err := seal.ParseLink(link); err == nil && e.Code == api.Removed {
			files.DropParts(out, l.Root)
		}
		e.Op = "get"
		return "", &e
	}
	if st.Name == "" {
		return "", wrong("the file has no name of its own: name one with -o")
	}
	// The name was chosen by whoever made the link.
	if err := api.CheckName(st.Name); err != nil || strings.HasSuffix(st.Name, ".atoll-part") {
		return "", wrong("the file's own name, %s, cannot be used here: name another with -o", escape(st.Name))
	}
	return filepath.Join(out, st.Name), nil
}

// shown is a path as people like to see it: short where it is below here.
func shown(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return rel
}

// fileName is what a file goes by: its name, or the first digits of its GUID.
func fileName(f api.File) string {
	if f.Name == "" {
		return f.GUID.Short()
	}
	return escape(f.Name)
}

func (a *app) lsCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List what this member has put",
		Args:  cobra.MaximumNArgs(1),
		Long: `
Ls lists the catalogue: the files that were put through this node, by name, all
or those whose name begins with PREFIX. A file without a name is listed by the
first digits of its GUID, which "atoll rm" takes for it. The catalogue is kept
on this machine only ("atoll doctor --backup" saves it).

With --long it shows links: whoever sees them can read the files.`,
		Example: `
			atoll ls
			atoll ls --long photos`,
		ValidArgsFunction: a.completeNames,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		prefix := strings.Join(args, "")
		v, err := a.node().Ls(ctx, prefix)
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			if len(v.Files) == 0 {
				return
			}
			if !truth(cmd, "long") {
				for _, f := range v.Files {
					fmt.Fprintln(w, fileName(f))
				}
				return
			}
			t := newTable("NAME", "SIZE", "PUT AT", "LINK")
			right(t, 2)
			for _, f := range v.Files {
				t.AppendRow([]any{fileName(f), size(f.Size), date(f.PutAt), f.Link})
			}
			fmt.Fprintln(w, t.Render())
		})
	})
}

func (a *app) statCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "stat LINK",
		Short: "Tell what a link leads to",
		Args:  cobra.ExactArgs(1),
		Long: `
Stat tells name, size and time of a file, how it is stored, what its link
allows, and how many copies there are. With - for LINK the link is read from
standard input.`,
		Example: `
			atoll stat atoll:r1:aebagbaf…
			atoll put report.pdf > link.txt; atoll stat - < link.txt`,
		ValidArgsFunction: a.completeLinks,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		link, err := a.link(ctx, cmd, args[0])
		if err != nil {
			return err
		}
		v, err := a.node().Stat(ctx, api.LinkRequest{Link: link})
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			copies := fmt.Sprintf("%d to %d of %d", v.Copies.Min, v.Copies.Max, v.Copies.Target)
			if v.Copies.Min == v.Copies.Max {
				copies = fmt.Sprintf("%d of %d", v.Copies.Min, v.Copies.Target)
			}
			row := func(name, value string) { fmt.Fprintf(w, "%-11s %s\n", name, value) }
			row("name", orDash(v.Name))
			bytes, changed, chunks := "–", "–", ""
			if v.Size != nil {
				bytes = fmt.Sprintf("%s (%s bytes)", size(*v.Size), count(*v.Size))
			}
			if v.Mtime != nil {
				changed = date(*v.Mtime)
			}
			if v.Chunk != "" {
				chunks = fmt.Sprintf(", %s chunks", escape(v.Chunk))
			}
			row("size", bytes)
			row("changed", changed)
			row("link for", capabilityWords(v.Capability))
			row("root block", v.GUID.String())
			row("stored as", fmt.Sprintf("%s, depth %d%s", plural(v.Blocks, "block"), v.Depth, chunks))
			row("copies", copies)
		})
	})
}

func capabilityWords(c string) string {
	switch c {
	case "read":
		return "reading, checking and, by its owner, removing"
	case "verify":
		return "checking and repairing: it reads nothing"
	case "clear":
		return "everything: the file is not sealed"
	}
	return escape(c)
}

func (a *app) rmCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "rm LINK|NAME",
		Short: "Remove a file",
		Args:  cobra.ExactArgs(1),
		Long: `
Rm removes a file that this member has put: by its link, by its name in the
catalogue if one file only has it, or by the first digits of its GUID. Blocks
that other files or owners keep stay. A copy on a machine that is away may be
read there until it is back.`,
		Example: `
			atoll rm report.pdf
			atoll rm - < link.txt`,
		ValidArgsFunction: a.completeNames,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		link, err := a.secret(ctx, cmd, args[0], "a link or name")
		if err != nil {
			return err
		}
		v, err := a.node().Rm(ctx, api.LinkRequest{Link: link})
		if err != nil {
			return err
		}
		return a.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "Removed %s", plural(v.Removed-v.KeptByOthers, "block"))
			if v.KeptByOthers > 0 {
				fmt.Fprintf(w, "; %s kept for other files or owners", plural(v.KeptByOthers, "block"))
			}
			fmt.Fprintln(w, ".")
		})
	})
}

func completeFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// catalogue is what completion knows of the files that were put.
func (a *app) catalogue(cmd *cobra.Command, args []string, prefix string) []api.File {
	if len(args) > 0 || a.configure(cmd) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	v, err := a.node().Ls(ctx, prefix)
	if err != nil {
		return nil
	}
	return v.Files
}

// completeNames offers the names of files, but none that a shell or terminal
// would stumble over.
func (a *app) completeNames(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, f := range a.catalogue(cmd, args, prefix) {
		if f.Name != "" && escape(f.Name) == f.Name {
			out = append(out, cobra.CompletionWithDesc(f.Name, size(f.Size)))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeLinks offers links once the first letters say that one is wanted:
// nobody's terminal should show them by accident.
func (a *app) completeLinks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if strings.HasPrefix(prefix, "atoll:") {
		for _, f := range a.catalogue(cmd, args, "") {
			if strings.HasPrefix(f.Link, prefix) {
				out = append(out, cobra.CompletionWithDesc(f.Link, escape(f.Name)))
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
