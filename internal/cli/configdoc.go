package cli

import (
	"fmt"
	"strings"
)

// ConfigDoc is docs/config.md, made from the table of settings. A test keeps
// the file equal to it.
func ConfigDoc() string {
	var b strings.Builder
	b.WriteString(`# Settings

Every flag is also an environment variable and a key of the optional file
` + "`DIR/" + ConfigName + "`" + `; a flag outweighs the variable, the variable the file. Times are
written 90s, 15m, 24h or 30d; sizes 500MB, 20GiB or as a number of bytes; lists
with commas, or in the file as TOML arrays. Unknown keys in the file are
errors.

` + "```toml" + `
# DIR/` + ConfigName + `
limit = "200GiB"
listen = ["0.0.0.0:4001"]

[put]
w = 3
` + "```" + `

This page is made from the table in ` + "`internal/cli/settings.go`" + `: change it there, then
run ` + "`go test ./internal/cli -run ConfigDoc -rewrite`" + `.
`)
	section := "\x00"
	for _, s := range settings {
		if s.later {
			continue
		}
		if s.commands != section {
			section = s.commands
			title := "Everywhere"
			if section != "" {
				title = "`atoll " + strings.ReplaceAll(section, ",", "`, `atoll ") + "`"
			}
			fmt.Fprintf(&b, "\n## %s\n\n| Key | Flag | Variable | Default | Unit | Meaning |\n| --- | --- | --- | --- | --- | --- |\n", title)
		}
		flag := "`--" + s.flag + "`"
		if s.short != "" {
			flag = "`-" + s.short + "`, " + flag
		}
		key := "`" + s.key + "`"
		if s.key == "dir" {
			key = "–"
		}
		def := "–"
		if s.def != "" {
			def = "`" + s.def + "`"
		}
		unit := s.unit
		if unit == "" {
			unit = string(s.kind)
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s | %s |\n", key, flag, s.env(), def, unit, s.meaning)
	}
	b.WriteString(`
## Diagnostics

| Variable | Meaning |
| --- | --- |
| ` + "`" + profileEnv + "`" + ` | file to which the process, of any command, writes its CPU profile at its end, for ` + "`go tool pprof`" + ` |
| ` + "`" + clockEnv + "`" + ` | how far off the node of up and join takes the time to be, such as -1h: shows what a wrong clock does |
`)
	return b.String()
}
