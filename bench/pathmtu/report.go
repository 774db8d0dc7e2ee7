package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report prints versions and a table in Markdown.
func report(w io.Writer, cells []cell) {
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		fmt.Fprintf(w, "Linux %s", unix.ByteSliceToString(u.Release[:]))
	}
	for _, t := range tools {
		if v := versionOf(context.Background(), t); v != "" {
			fmt.Fprintf(w, "; %s", v)
		}
	}
	fmt.Fprint(w, "\n\n| Path | Tool | Packets sent | Time | Path MTU found | Right |\n| --- | --- | --: | --: | --: | --: |\n")
	for _, c := range cells {
		fmt.Fprintln(w, c.row())
	}
}

// row is a line of the table: medians, and every verdict that there was.
func (c cell) row() string {
	if c.missing != "" {
		return fmt.Sprintf("| %s | %s | | | %s | |", c.path.name, c.tool.name, c.missing)
	}
	var packets []uint64
	var took []time.Duration
	var verdicts []string
	right, cut := 0, ""
	for _, r := range c.runs {
		packets = append(packets, r.packets)
		took = append(took, r.took)
		verdict := "none"
		if r.mtu > 0 {
			verdict = strconv.Itoa(r.mtu)
		}
		if !slices.Contains(verdicts, verdict) {
			verdicts = append(verdicts, verdict)
		}
		if r.mtu == c.path.mtu {
			right++
		}
		if !r.ended {
			cut = ", ended by the limit"
		}
	}
	return fmt.Sprintf("| %s | %s | %d | %.2f s | %s%s | %d of %d |", c.path.name, c.tool.name,
		median(packets), median(took).Seconds(), strings.Join(verdicts, ", "), cut, right, len(c.runs))
}

// median of at least one value; of an even number, the upper one in the middle.
func median[T uint64 | time.Duration](values []T) T {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
