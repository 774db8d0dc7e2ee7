package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/internal/report"
)

// reportFlags are the flags of every command that ends with a report.
type reportFlags struct{ format, lang string }

func (f *reportFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.format, "format", "text", "output: text or json")
	fs.StringVar(&f.lang, "lang", "", "language: en or zh (default en, or the configuration's)")
	fs.String("config", "", "the configuration `file` (default "+config.DefaultPath+", if there is one)")
}

// load checks the flags and reads the configuration, which has the language
// unless a flag says it.
func (f *reportFlags) load(c *cobra.Command) (*config.Config, error) {
	if f.format != "text" && f.format != "json" {
		return nil, fmt.Errorf("format %q: want text or json", f.format)
	}
	cfg, err := loadOptional(c)
	if err != nil {
		return nil, err
	}
	if f.lang == "" {
		f.lang = cfg.Lang
	}
	return cfg, checkLang(f.lang)
}

func checkLang(lang string) error {
	if lang != "en" && lang != "zh" {
		return fmt.Errorf("language %q: want en or zh", lang)
	}
	return nil
}

// write writes a report as the flags say.
func (f reportFlags) write(w io.Writer, r *diagnosis.Report) error {
	if f.format == "json" {
		b, err := report.JSON(r, f.lang)
		if err != nil {
			return err
		}
		_, err = w.Write(append(bytes.TrimRight(b, "\n"), '\n'))
		return err
	}
	o := report.Options{Lang: f.lang}
	if file, ok := w.(*os.File); ok {
		o = report.ForFile(file, f.lang)
	}
	return report.Text(w, r, o)
}

// verdict turns a report into the exit status that scripts read.
func verdict(r *diagnosis.Report) error {
	switch {
	case r.Diagnosis() == diagnosis.Undecided:
		return status(exitUndecided)
	case r.Severity() == diagnosis.Info:
		return nil
	}
	return status(exitProblem)
}
