package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"vpnprobe/diagnosis"
)

func explainCommand() *cobra.Command {
	var lang string
	c := &cobra.Command{
		Use:   "explain [LABEL]",
		Short: "say what a diagnosis means and what to do",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkLang(lang); err != nil {
				return err
			}
			var out strings.Builder
			if err := explain(&out, args, lang); err != nil {
				return err
			}
			_, err := io.WriteString(c.OutOrStdout(), out.String())
			return err
		},
	}
	c.Flags().StringVar(&lang, "lang", "en", "language: en or zh")
	return c
}

// explain writes one rule in full, or all of them in a line each.
func explain(w io.Writer, args []string, lang string) error {
	rules := diagnosis.Rules()
	if len(args) == 0 {
		for _, r := range rules {
			fmt.Fprintf(w, "%-26s %-9s %s\n", r.Label, r.Severity, r.Summary.In(lang))
		}
		return nil
	}
	for _, r := range []diagnosis.Label{diagnosis.OK, diagnosis.Undecided} {
		if string(r) == args[0] {
			fmt.Fprintf(w, "%s\n\n%s\n", r, diagnosis.SummaryOf(r).In(lang))
			return nil
		}
	}
	for _, r := range rules {
		if string(r.Label) != args[0] {
			continue
		}
		fmt.Fprintf(w, "%s (%s)\n\n%s\n\n%s\n", r.Label, r.Severity, r.Summary.In(lang), r.Remedy.In(lang))
		if len(r.Needs) > 0 {
			fmt.Fprintf(w, "\ndecided from: %s\n", strings.Join(sources(r.Needs), ", "))
		}
		if len(r.Explains) > 0 {
			fmt.Fprintf(w, "explains: %s\n", join(r.Explains))
		}
		return nil
	}
	return fmt.Errorf("no diagnosis is called %q: agent explain lists them all", args[0])
}

// sources says what a rule's observations come from.
func sources(needs []diagnosis.Need) []string {
	var out []string
	for _, n := range needs {
		switch n {
		case diagnosis.NeedLadder:
			out = append(out, "what the peer's IKE answers to the probe ladder (agent probe)")
		case diagnosis.NeedAuth:
			out = append(out, "a negotiation with the key (agent probe --authenticate)")
		case diagnosis.NeedSizes:
			out = append(out, "which sizes of packets pass, outside and inside the tunnel")
		case diagnosis.NeedSiblings:
			out = append(out, "the traffic of another declared tunnel to the same site")
		default:
			out = append(out, string(n))
		}
	}
	return out
}

func join[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}
