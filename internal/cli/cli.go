// Package cli is the command line of atoll: commands, their flags and settings,
// what they print and how they exit. It talks to a running node through package
// api; what starts nodes is handed in as Hooks, so that everything here can be
// tested without one. Chapter 20 §9 of the design is its contract.
//
// Results go to standard output, progress and remarks to standard error. With
// --json the result is the API's object on one line, streams are one object a
// line, and errors are JSON on standard error. Exit codes come from the one
// table in package api.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Hooks are what the command line needs beyond the API: to be a node. A nil
// hook's command says that it is not built yet and exits 1.
type Hooks struct {
	// Up runs a node, making folder and pool on first use, until ctx is done,
	// and calls started once when it serves. It returns nil after an orderly
	// end.
	Up func(ctx context.Context, o UpOptions, started func(Started)) error
	// Join makes this folder a member by an invite, then does as Up.
	Join func(ctx context.Context, o JoinOptions, started func(Started)) error
	// Demo tells on w what it does, in words or, with o.JSON, in one object a
	// line. With o.Exit it returns at its end, else when ctx is done.
	Demo func(ctx context.Context, o DemoOptions, w io.Writer) error
	// Doctor checks and mends a folder on which no node runs.
	Doctor func(ctx context.Context, o DoctorOptions) ([]api.Check, error)
	// Version is what this program is. Empty fields are filled from the build.
	Version api.Version
}

// NodeOptions are the settings of a node. Empty ones mean the node's default.
type NodeOptions struct {
	Dir       string
	Nodes     int // this many share the process, under DIR/node-i, when above 1
	Name      string
	Domain    string
	Listen    []string
	Announce  []string
	Loopback  bool
	QUIC      bool
	Relay     bool
	HolePunch bool
	MDNS      bool
	Limit     int64 // bytes of disk
	Memory    int64 // bytes, of the whole process
	Preset    string
	Grace     time.Duration
	Log       *slog.Logger

	ClockOffset time.Duration `json:",omitzero"` // see clockEnv
}

// UpOptions are those of up.
type UpOptions struct {
	NodeOptions
	Pool    string // name of a pool made on first use
	K       int    // copies, of a pool made on first use; 0: default
	Overlay string // of a pool made on first use: pastry
}

// JoinOptions are those of join.
type JoinOptions struct {
	NodeOptions
	Invite string
}

// Started is what up and join print.
type Started struct {
	Node   id.GUID   `json:"node"`
	Pool   id.GUID   `json:"pool"`
	Name   string    `json:"name"`   // of the pool
	Invite string    `json:"invite"` // empty but on first use
	Nodes  []id.GUID `json:"nodes"`  // all of this process, Node first

	Warnings []string `json:"warnings,omitempty"` // such as a limit that the disk has no room for
}

// DemoOptions are those of demo.
type DemoOptions struct {
	File  string // absolute; empty: the running program
	Exit  bool
	JSON  bool
	Quiet bool
}

// DoctorOptions are those of doctor where no node runs. Paths are absolute.
type DoctorOptions struct {
	Dir        string
	Backup     string
	Restore    string
	AcceptDisk bool
}

// Main runs the program and returns its exit code.
func Main(h Hooks) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	a := &app{hooks: h, in: os.Stdin, out: os.Stdout, err: os.Stderr}
	a.outTTY, a.errTTY = isTerminal(os.Stdout), isTerminal(os.Stderr)
	a.inTTY = isTerminal(os.Stdin)
	return profiled(os.Stderr, func() int { return a.run(ctx, os.Args[1:]) })
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// signalled is the cause of a context ended by a signal.
type signalled struct{ sig os.Signal }

func (s signalled) Error() string { return s.sig.String() }

// interruptible returns a context that SIGINT or SIGTERM ends. The second
// signal ends the process at once, as if nobody had asked for signals.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() { // ends with done, which stop closes
		select {
		case s := <-sigs:
			signal.Stop(sigs)
			cancel(signalled{s})
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(sigs)
		close(done)
		cancel(nil)
	}
}

// app is one run of the program.
type app struct {
	hooks                 Hooks
	in                    io.Reader
	out, err              io.Writer
	inTTY, outTTY, errTTY bool

	// Global settings, known once a command begins.
	dir     string
	json    bool
	quiet   bool
	timeout time.Duration

	client *api.Client
}

// exitError ends the program with a code and, if silent, without a word: the
// result has been printed already.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// run runs one command and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	// JSON errors are wanted even where the flags do not parse.
	for _, s := range args {
		if s == "--" {
			break
		}
		a.json = a.json || s == "--json" || s == "--json=true"
	}
	cmd, err := root.ExecuteContextC(ctx)
	if a.client != nil {
		a.client.Close()
	}
	var sig signalled
	if errors.As(context.Cause(ctx), &sig) {
		return a.signalExit(cmd, sig, err)
	}
	if err == nil {
		return api.ExitOK
	}
	var ended exitError
	if errors.As(err, &ended) {
		return ended.code
	}
	var ran ranError
	if !errors.As(err, &ran) { // cobra's own: unknown command, flag or number of arguments
		e := usage(cmd, "%s", err.Error())
		a.complain(e)
		return e.Exit()
	}
	e := *api.AsError(opOf(cmd), ran.err)
	e.Op = opOf(cmd) // what was asked for, whatever it needed
	if e.Code == api.Deadline && !strings.Contains(e.Message, "again") {
		e.Message += resume(e.Op)
	}
	a.complain(&e)
	return e.Exit()
}

// signalExit tells how a command ended that a signal ended.
func (a *app) signalExit(cmd *cobra.Command, sig signalled, err error) int {
	var said exitError // by what the command has printed
	if err != nil && !errors.As(err, &said) {
		e := api.AsError(opOf(cmd), err)
		if errors.Is(err, context.Canceled) || e.Code == api.Cancelled {
			e = &api.Error{Code: api.Cancelled, Op: e.Op, Message: "interrupted" + resume(e.Op)}
		}
		a.complain(e)
	}
	if sig.sig == os.Interrupt {
		return api.ExitInterrupt
	}
	if err == nil { // up and join end so every day
		return api.ExitOK
	}
	return 128 + int(syscall.SIGTERM)
}

// resume says of what was cut short that it can be continued.
func resume(op string) string {
	switch op {
	case "put", "get", "rm":
		return ": run the same command again to continue"
	}
	return ""
}

// opOf is the command's path without the program's name: "dht put".
func opOf(cmd *cobra.Command) string {
	_, op, _ := strings.Cut(cmd.CommandPath(), " ")
	return op
}

// ranError marks errors of a command's work, as against those of its flags.
type ranError struct{ err error }

func (e ranError) Error() string { return e.err.Error() }
func (e ranError) Unwrap() error { return e.err }

// usage is an error in how a command was called.
func usage(cmd *cobra.Command, format string, a ...any) *api.Error {
	e := api.Errorf(api.BadRequest, "", "", format, a...)
	e.Message += fmt.Sprintf("\nRun '%s --help' for usage.", cmd.CommandPath())
	return e
}

// wrong is an argument that cannot be used, although the call was well formed.
func wrong(format string, a ...any) *api.Error {
	return api.Errorf(api.BadRequest, "", "", format, a...)
}

func notBuilt(what string) *api.Error {
	return api.Errorf(api.NotBuilt, "", "", "%s is not built yet", what)
}

// root makes the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "atoll",
		Short: "Peer-to-peer storage: what one machine puts, every member gets back",
		Long: `Atoll pools the disks of a group of machines into one store without a server.
A file put by one member is found again from any other, survives the loss of
members, and is checked against its own name whenever it is read.

On the first machine run "atoll up": it prints an invite. On the others run
"atoll join INVITE". Then "atoll put FILE" prints a link, and "atoll get LINK"
gives the file back on any member. "atoll demo" shows all of it on this machine.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 unavailable or no quorum,
5 refused, 6 integrity, 130 Ctrl-C.`,
		Example: `  atoll demo --exit
  atoll up
  atoll put report.pdf`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              unknownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddGroup(
		&cobra.Group{ID: "pool", Title: "Be a member:"},
		&cobra.Group{ID: "files", Title: "Files:"},
		&cobra.Group{ID: "look", Title: "Look inside:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("pool", a.upCmd(), a.joinCmd(), a.inviteCmd(), a.statusCmd(), a.peersCmd(), a.revokeCmd(), a.leaveCmd())
	add("files", a.putCmd(), a.getCmd(), a.lsCmd(), a.statCmd(), a.rmCmd(), a.verifyCmd(), a.repairCmd())
	add("look", a.lookupCmd(), a.routeCmd(), a.tableCmd(), a.dhtCmd(), a.simCmd())
	add("more", a.demoCmd(), a.doctorCmd(), a.completionCmd(), a.versionCmd())
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Explain a command", GroupID: "more",
		Long: "Help prints what --help prints.", Example: "  atoll help put",
		Run: func(_ *cobra.Command, args []string) {
			c, _, err := root.Find(args)
			if err != nil {
				c = root
			}
			_ = c.Help() // writes to our own output
		},
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return err })
	a.addFlags(root)
	return root
}

// unknownCommand refuses what is no command, and says what may have been meant.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
	}
	return err
}

// command finishes a command: its settings are read before run, and errors of
// run are marked as such.
func (a *app) command(c *cobra.Command, run func(ctx context.Context, cmd *cobra.Command, args []string) error) *cobra.Command {
	c.Long = strings.TrimSpace(c.Long)
	c.Example = indent(c.Example)
	c.Args = argsOf(c)
	if c.ValidArgsFunction == nil && c.ValidArgs == nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.configure(cmd); err != nil {
			return err
		}
		ctx := cmd.Context()
		// Serving has no end to wait for: a timeout set for all commands in the
		// environment must not stop the node.
		if serves := c.Name() == "up" || c.Name() == "join"; a.timeout > 0 && !serves {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, a.timeout)
			defer cancel()
		}
		if err := run(ctx, cmd, args); err != nil {
			return ranError{err}
		}
		return nil
	}
	return c
}

// argsOf words what is wrong with the number of arguments.
func argsOf(c *cobra.Command) cobra.PositionalArgs {
	fit := c.Args
	if fit == nil {
		return nil
	}
	_, names, _ := strings.Cut(c.Use, " ")
	return func(cmd *cobra.Command, args []string) error {
		err := fit(cmd, args)
		switch {
		case err == nil || cmd.HasSubCommands():
			return err
		case names == "":
			return fmt.Errorf("%s takes no argument, not %q", opOf(cmd), args[0])
		case len(args) == 0:
			return fmt.Errorf("%s is missing", names)
		}
		return fmt.Errorf("one argument, %s, not %d", names, len(args))
	}
}

// indent sets off the lines of an example.
func indent(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = "  " + strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}

// node returns a client of the node on DIR.
func (a *app) node() *api.Client {
	if a.client == nil {
		a.client = api.NewClient(a.dir)
	}
	return a.client
}
