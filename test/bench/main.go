package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/test/bench/result"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
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

// benchmark measures rows that belong together.
type benchmark struct {
	ids     string // separated by spaces
	measure func(context.Context, options) ([]result.Row, error)
}

// is says whether one of the benchmark's rows has that id, or an id that begins so.
func (b benchmark) is(id string) bool {
	return slices.ContainsFunc(strings.Fields(b.ids), func(own string) bool { return strings.HasPrefix(own, id) })
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	rows := set.String("rows", "", "rows to measure, by id or the beginning of one, separated by commas (default all)")
	rounds := set.Int("rounds", 15, "rounds of each comparison")
	path := set.String("json", "", "file to write the report to as well")
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
		begin := time.Now()
		found, err := b.measure(ctx, o)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.ids, err))
		}
		report.Rows = append(report.Rows, found...)
		o.log.Info("measured", "benchmark", b.ids, "rows", len(found), "took", time.Since(begin).Round(time.Millisecond))
		if ctx.Err() != nil {
			break
		}
	}
	if *path != "" {
		errs = append(errs, result.Write(*path, report))
	}
	return errors.Join(append(errs, result.Render(stdout, report))...)
}

// choose keeps the benchmarks that measure one of the rows named. A name that fits none is an error.
func choose(all []benchmark, names string) ([]benchmark, error) {
	if names == "" {
		return all, nil
	}
	var out []benchmark
	for _, b := range all {
		if slices.ContainsFunc(strings.Split(names, ","), b.is) {
			out = append(out, b)
		}
	}
	for _, n := range strings.Split(names, ",") {
		if !slices.ContainsFunc(all, func(b benchmark) bool { return b.is(n) }) {
			return nil, fmt.Errorf("no benchmark %q", n)
		}
	}
	return out, nil
}

func benchmarks() []benchmark {
	return []benchmark{
		{"P1", packetCost},
		{"P2", packetGrowth},
		{"P3 P4", lists},
		{"P5", antiSpoof},
		{"P6", throughput},
		{"R1 R2 R3", replacement},
		{"R4", change},
		{"R5", loss},
		{"R6", load},
	}
}
