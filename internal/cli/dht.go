package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"atoll.example/atoll/internal/api"

	"github.com/spf13/cobra"
)

func (a *app) dhtCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "dht",
		Short: "Put, get and remove single blocks by GUID",
		Long: `The distributed hash table below the files: put, get and remove of Figure 10.4
of Coulouris et al. A content block is named by the hash of its bytes, which
nobody can change. A signed block is named by a key and a salt, and its owner
replaces its value.`,
		Example: `  atoll dht put note.txt
  atoll dht get $(echo hello | atoll dht put -)`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.dhtPutCmd(), a.dhtGetCmd(), a.dhtRemoveCmd())
	return c
}

// signed reads what names a signed block, nil if none is meant.
func (a *app) signed(cmd *cobra.Command) (*api.SignedValue, error) {
	key, salt, cas := str(cmd, "sign"), str(cmd, "salt"), str(cmd, "cas")
	seq := uint64(number(cmd, "seq"))
	if key == "" {
		if salt != "" || cas != "" || seq != 0 {
			return nil, usage(cmd, "--salt, --seq and --cas are for signed blocks: name the key with --sign")
		}
		return nil, nil
	}
	path, err := filepath.Abs(key)
	if err != nil {
		return nil, badPath("--sign "+key, err)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, badPath("--sign "+key, err)
	}
	if len(salt) > 64 {
		return nil, usage(cmd, "--salt has %d bytes, more than 64", len(salt))
	}
	v := &api.SignedValue{Key: path, Salt: []byte(salt), Seq: seq}
	if cas != "" {
		n, err := strconv.ParseUint(cas, 10, 64)
		if err != nil {
			return nil, usage(cmd, "--cas: %q is not a whole number from 0 up", cas)
		}
		v.CAS = &n
	}
	return v, nil
}

func (a *app) dhtPutCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "put FILE|-",
		Short: "Store a block and print its GUID",
		Args:  cobra.ExactArgs(1),
		Long: `
Put stores up to 1 MiB as a content block, unsealed, and prints its GUID. With
--sign it stores up to 64 KiB as the next value of the signed block that the key
and --salt name; --cas makes that depend on the number of the value that is
there, so that two writers cannot overwrite each other unseen.`,
		Example: `
			atoll dht put note.txt
			echo hello | atoll dht put -
			echo v1 | atoll dht put - --sign ~/.local/share/atoll/owner.key --salt greeting
			echo v2 | atoll dht put - --sign ~/.local/share/atoll/owner.key --salt greeting --cas 1`,
		ValidArgsFunction: completeFiles,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		sv, err := a.signed(cmd)
		if err != nil {
			return err
		}
		most := api.MaxBody
		if sv != nil {
			most = 64 << 10
		}
		in := a.in
		if args[0] != "-" {
			f, err := open(ctx, args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // opened for reading
			in = f
		}
		b, err := readAll(ctx, in, most)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return api.Errorf(api.Internal, "", "", "reading the input: %w", err)
		}
		if len(b) > most {
			return wrong("the block has more than %s: \"atoll put\" stores files of any size", size(int64(most)))
		}
		r := api.DHTPutRequest{Raw: b, Signed: sv}
		if sv != nil {
			r.Raw, sv.Value = nil, b
		}
		v, err := a.node().DHTPut(ctx, r)
		if err != nil {
			return err
		}
		number := ""
		if sv != nil {
			number = fmt.Sprintf(" as value %d", v.Seq)
		}
		a.remark("Stored%s: %s synced it.", number, plural(int64(len(v.Receipts)), "node"))
		return a.show(v, func(w io.Writer) { fmt.Fprintln(w, v.GUID) })
	})
}

func (a *app) dhtGetCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "get GUID",
		Short: "Write a block's bytes to standard output",
		Args:  cobra.ExactArgs(1),
		Long: `
Get writes the value of a block to standard output, checked against its name or
signature. Of a signed block it is the newest value that a read quorum knows of,
or with --any the first valid one that is found.`,
		Example: `
			atoll dht get $(echo hello | atoll dht put -)
			atoll dht get 1f3a… --any --json`,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		g, err := parseGUID(cmd, args[0])
		if err != nil {
			return err
		}
		v, err := a.node().DHTGet(ctx, api.DHTGetRequest{GUID: g, Any: truth(cmd, "any")})
		if err != nil {
			return err
		}
		if v.Seq != nil {
			a.remark("Value %d.", *v.Seq)
		}
		if a.json {
			return printJSON(a.out, v)
		}
		_, err = a.out.Write(v.Value)
		return err
	})
}

func (a *app) dhtRemoveCmd() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "remove GUID",
		Short: "Remove a block that this member has put",
		Args:  cobra.ExactArgs(1),
		Long: `
Remove takes back this member's own reason to keep a content block: its bytes go
when nobody else has one. A signed block is removed with the key and salt that
name it. Prints the nodes that have synced the removal.`,
		Example: `
			atoll dht remove $(echo hello | atoll dht put -)
			atoll dht remove 1f3a… --sign ~/.local/share/atoll/owner.key --salt greeting`,
	}, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		g, err := parseGUID(cmd, args[0])
		if err != nil {
			return err
		}
		sv, err := a.signed(cmd)
		if err != nil {
			return err
		}
		v, err := a.node().DHTRemove(ctx, api.DHTRemoveRequest{GUID: g, Sign: sv})
		if err != nil {
			return err
		}
		if v.KeptByOthers {
			a.remark("Other files or owners keep the block, so its bytes stay; this member keeps it no longer, if it ever put it.")
		}
		return a.show(v, func(w io.Writer) {
			for _, r := range v.Receipts {
				fmt.Fprintf(w, "%s  %s\n", r.Node, escape(r.Role))
			}
		})
	})
}
