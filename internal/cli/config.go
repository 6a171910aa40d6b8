package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"atoll.example/atoll/internal/api"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ConfigName is the name of the optional file of settings in DIR.
const ConfigName = "atoll.toml"

// maxConfig bounds that file, in bytes: it is read whole. Chosen by us.
const maxConfig = 1 << 20

// value is a flag of any kind: checked text. It implements pflag.Value.
type value struct {
	s    setting
	text string
}

var _ pflag.Value = (*value)(nil)

func (v *value) String() string { return v.text }

// Type is what help shows behind the flag.
func (v *value) Type() string {
	switch v.s.kind {
	case kindTruth:
		return "bool" // pflag shows nothing behind these
	case kindText:
		return "text"
	}
	return string(v.s.kind)
}

func (v *value) Set(text string) error {
	if err := v.s.check(text); err != nil {
		return err
	}
	v.text = text
	return nil
}

func (s setting) check(text string) error {
	if text == "" && s.least == 0 {
		return nil
	}
	var err error
	switch s.kind {
	case kindNumber:
		most := s.most
		if most == 0 {
			most = math.MaxInt64
		}
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err == nil && n >= s.least && n <= most:
		case s.most == 0:
			return fmt.Errorf("%q is not a whole number from %d up", text, s.least)
		default:
			return fmt.Errorf("%q is not a whole number from %d to %d", text, s.least, most)
		}
	case kindShare:
		if f, err := strconv.ParseFloat(text, 64); err != nil || math.IsNaN(f) || f < 0 {
			return fmt.Errorf("%q is not a number from 0 up", text)
		}
	case kindTruth:
		if _, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case kindSize:
		_, err = parseSize(text)
	case kindDuration:
		_, err = parseDuration(text)
	}
	return err
}

// parseSize reads 500000000, 500MB, 466MiB and the like.
func parseSize(s string) (int64, error) {
	bad := fmt.Errorf("%q is not a size: write 500MB, 20GiB or a number of bytes", s)
	number := strings.TrimRightFunc(s, func(r rune) bool { return r > '9' || r == ' ' })
	unit := strings.ToLower(strings.TrimSpace(s[len(number):]))
	factor := float64(1)
	if unit != "" && unit != "b" {
		i := strings.IndexByte("kmgtp", unit[0])
		if i < 0 {
			return 0, bad
		}
		switch unit[1:] {
		case "", "b":
			factor = math.Pow(1000, float64(i+1))
		case "ib", "i":
			factor = math.Pow(1024, float64(i+1))
		default:
			return 0, bad
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || math.IsNaN(f) || f*factor >= math.MaxInt64 {
		return 0, bad
	}
	return int64(f * factor), nil
}

// maxDays is what a time.Duration can hold.
const maxDays = uint64(math.MaxInt64 / (24 * time.Hour))

// parseDuration reads Go's durations, and days: 90s, 24h, 30d.
func parseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: write 90s, 24h or 30d", s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && n > maxDays:
			return 0, fmt.Errorf("%q is too long: %dd at most", s, maxDays)
		case err != nil:
			return 0, bad
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, bad
	}
	return d, nil
}

// addFlags gives a command and those below it the flags of the table.
func (a *app) addFlags(cmd *cobra.Command) {
	name := opOf(cmd)
	for _, s := range settings {
		flags := cmd.Flags()
		switch {
		case s.commands == "" && cmd.HasParent():
			continue
		case s.commands == "":
			flags = cmd.PersistentFlags()
		case !s.of(name):
			continue
		}
		f := flags.VarPF(&value{s: s, text: s.def}, s.flag, s.short, s.meaning)
		if s.kind == kindTruth {
			f.NoOptDefVal = "true"
		}
		f.Hidden = s.later
	}
	for _, c := range cmd.Commands() {
		a.addFlags(c)
	}
}

// configure gives every flag of cmd its value: from the command line, else from
// the environment, else from DIR/atoll.toml, else its default.
func (a *app) configure(cmd *cobra.Command) error {
	a.dir = str(cmd, "dir")
	if !cmd.Flags().Changed("dir") {
		a.dir = os.Getenv("ATOLL_DIR")
	}
	if a.dir == "" {
		dir, err := dataDir()
		if err != nil {
			return ranError{api.Errorf(api.BadDir, "", "", "%w", err)}
		}
		a.dir = dir
	}
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return ranError{api.Errorf(api.BadDir, "", a.dir, "%w", err)}
	}
	a.dir = dir

	path := filepath.Join(dir, ConfigName)
	k, from, err := loadConfig(path)
	if err != nil {
		return ranError{api.Errorf(api.BadRequest, "", path, "%w", err)}
	}
	op := opOf(cmd)
	for _, s := range settings {
		if !s.of(op) || s.key == "dir" {
			continue
		}
		f := cmd.Flags().Lookup(s.flag)
		if f.Changed {
			if s.later {
				return ranError{notBuilt("--" + s.flag)}
			}
			continue
		}
		if where := from[s.key]; where != "" {
			if s.later {
				return ranError{notBuilt(where)}
			}
			if err := f.Value.Set(plainText(k.Get(s.key))); err != nil {
				return ranError{api.Errorf(api.BadRequest, "", where, "%w", err)}
			}
		}
	}
	a.json, a.quiet, a.timeout = truth(cmd, "json"), truth(cmd, "quiet"), duration(cmd, "timeout")
	return nil
}

// loadConfig reads file and environment. from tells where each value that is
// no default comes from, in words.
func loadConfig(path string) (k *koanf.Koanf, from map[string]string, err error) {
	from = make(map[string]string)
	byEnv := make(map[string]setting)
	defaults := make(map[string]any)
	for _, s := range settings {
		byEnv[s.env()] = s
		defaults[s.key] = s.def
	}
	k = koanf.New(".")
	if err := k.Load(confmap.Provider(defaults, "."), nil); err != nil {
		return nil, nil, err
	}
	if info, err := os.Stat(path); err == nil {
		switch {
		case !info.Mode().IsRegular(): // to read a FIFO may take for ever
			return nil, nil, errors.New("not a regular file")
		case info.Size() > maxConfig:
			return nil, nil, fmt.Errorf("%d bytes, more than %d", info.Size(), maxConfig)
		}
	}
	own := koanf.New(".")
	switch err := own.Load(file.Provider(path), once{toml.Parser()}); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // not ours: another user's node says so itself
	case errors.Is(err, syscall.ENOTDIR): // no folder: who needs one says so
	case err != nil:
		var at interface{ Position() (line, column int) }
		if errors.As(err, &at) {
			line, _ := at.Position()
			err = fmt.Errorf("line %d: %w", line, err)
		}
		return nil, nil, err
	}
	known := make(map[string]setting)
	for _, s := range settings {
		known[s.key] = s
	}
	for _, key := range own.Keys() { // of all commands: a mistake shows at the first start, not at the first put
		s, ok := known[key]
		if !ok || key == "dir" {
			return nil, nil, fmt.Errorf("unknown setting %q%s", key, nearest(key))
		}
		list, isList := own.Get(key).([]any)
		if isList && s.kind != kindList {
			return nil, nil, fmt.Errorf("%s: a list, where one value belongs", key)
		}
		if isTable(own.Get(key)) || slices.ContainsFunc(list, isTable) {
			return nil, nil, fmt.Errorf("%s: a table, where a value belongs", key)
		}
		if err := s.check(plainText(own.Get(key))); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", key, err)
		}
		from[key] = path + ": " + key
	}
	if err := k.Merge(own); err != nil {
		return nil, nil, err
	}
	environment := env.Provider(".", env.Opt{Prefix: "ATOLL_", TransformFunc: func(name, v string) (string, any) {
		s, ok := byEnv[name]
		if !ok || v == "" {
			return "", nil
		}
		from[s.key] = name
		return s.key, v
	}})
	return k, from, k.Load(environment, nil)
}

// once refuses a file that sets one key in two ways: of put.k = 3 and "put.k" = 4
// chance would choose.
type once struct{ koanf.Parser }

func (p once) Unmarshal(b []byte) (map[string]any, error) {
	m, err := p.Parser.Unmarshal(b)
	if err != nil {
		return nil, err
	}
	return m, distinct(m, "", make(map[string]bool))
}

func distinct(m map[string]any, prefix string, seen map[string]bool) error {
	for name, v := range m {
		key := prefix + name
		if inner, ok := v.(map[string]any); ok && len(inner) > 0 {
			if err := distinct(inner, key+".", seen); err != nil {
				return err
			}
			continue
		}
		if seen[key] {
			return fmt.Errorf("%s is set twice", key)
		}
		seen[key] = true
	}
	return nil
}

func isTable(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// nearest suggests the key that was meant.
func nearest(key string) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	var found []string
	for _, s := range settings {
		if s.key != "dir" && s.key[strings.LastIndexByte(s.key, '.')+1:] == last {
			found = append(found, strconv.Quote(s.key))
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return ": did you mean " + strings.Join(found, " or ") + "?"
}

// plainText is a value of a file as one would write it on the command line.
func plainText(v any) string {
	if list, ok := v.([]any); ok {
		var ss []string
		for _, e := range list {
			ss = append(ss, fmt.Sprint(e))
		}
		return strings.Join(ss, ",")
	}
	return fmt.Sprint(v)
}

// dataDir is the folder of a node nobody has named.
func dataDir() (string, error) {
	if runtime.GOOS == "linux" || strings.HasSuffix(runtime.GOOS, "bsd") {
		if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
			return filepath.Join(d, "atoll"), nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home directory (%w): name the node's folder with --dir", err)
	}
	switch runtime.GOOS {
	case "darwin":
		return filepath.Join(home, "Library", "Application Support", "atoll"), nil
	case "windows":
		if d := os.Getenv("LocalAppData"); d != "" {
			return filepath.Join(d, "atoll"), nil
		}
	}
	return filepath.Join(home, ".local", "share", "atoll"), nil
}

// Values of flags, which have been checked when they were set.

func str(cmd *cobra.Command, flag string) string { return cmd.Flags().Lookup(flag).Value.String() }

func truth(cmd *cobra.Command, flag string) bool {
	b, err := strconv.ParseBool(str(cmd, flag))
	return err == nil && b
}

func number(cmd *cobra.Command, flag string) int64 {
	n, _ := strconv.ParseInt(str(cmd, flag), 10, 64) // empty is 0
	return n
}

func share(cmd *cobra.Command, flag string) float64 {
	f, _ := strconv.ParseFloat(str(cmd, flag), 64) // empty is 0
	return f
}

func bytesOf(cmd *cobra.Command, flag string) int64 {
	n, _ := parseSize(str(cmd, flag)) // empty is 0
	return n
}

func duration(cmd *cobra.Command, flag string) time.Duration {
	d, _ := parseDuration(str(cmd, flag)) // empty is 0
	return d
}

func list(cmd *cobra.Command, flag string) []string {
	var out []string
	for s := range strings.SplitSeq(str(cmd, flag), ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
