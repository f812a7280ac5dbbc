package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/test/bench/result"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	do := run
	if part := parts()[os.Getenv(partVariable)]; part != nil {
		do = part
	}
	if err := do(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// options are what every benchmark is told.
type options struct {
	rounds int
	log    *slog.Logger
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	rows := set.String("rows", "", "rows to measure, by id or the beginning of one, separated by commas (default all)")
	rounds := set.Int("rounds", 15, "rounds of each comparison")
	path := set.String("json", "", "file to write the report to as well")
	page := set.String("markdown", "", "file to write the rows to as a page's table")
	machine := set.String("lab", "", "the lab's command, to start one for the rows that need a blade's kernel (default: leave them out)")
	inside := set.Bool("inside", false, "measure only the rows that need a blade's kernel, here, and write the report as JSON")
	if err := set.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(benchmarks(), *rows)
	if err != nil {
		return err
	}
	o := options{rounds: *rounds, log: slog.New(slog.NewTextHandler(stderr, nil))}
	report := result.Report{When: time.Now().UTC().Truncate(time.Second), Machine: result.ThisMachine()}
	var errs []error
	for _, b := range chosen {
		if b.lab == *inside && ctx.Err() == nil {
			found, err := o.measure(ctx, b)
			report.Rows, errs = append(report.Rows, found...), append(errs, err)
		}
	}
	if *inside {
		return errors.Join(append(errs, result.Encode(stdout, report))...)
	}
	if *machine != "" && ctx.Err() == nil {
		errs = append(errs, o.inLab(ctx, *machine, chosen, &report, stderr))
	}
	if *path != "" {
		errs = append(errs, result.Write(*path, report))
	}
	if *page != "" {
		errs = append(errs, writeTable(*page, report))
	}
	return errors.Join(append(errs, result.Render(stdout, report))...)
}

func writeTable(path string, report result.Report) error {
	var b bytes.Buffer
	if err := result.Markdown(&b, report); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func (o options) measure(ctx context.Context, b benchmark) ([]result.Row, error) {
	begin := time.Now()
	found, err := b.measure(ctx, o)
	o.log.Info("measured", "rows", b.ids, "found", len(found), "took", time.Since(begin).Round(time.Millisecond))
	if err != nil {
		err = fmt.Errorf("%s: %w", b.ids, err)
	}
	return found, err
}
