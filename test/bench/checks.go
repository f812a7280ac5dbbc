package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/result"
)

// How much is checked, and for how long.
const (
	checksASecond = 2000
	checkInterval = time.Second
	checkFor      = 20 * time.Second
	checkPort     = 8000
)

// punctuality is what one run of checks found. Lateness is what lies between two probes of a check beyond the interval, in intervals.
type punctuality struct {
	Probes  int     `json:"probes"`
	Failed  int     `json:"failed"`
	Why     string  `json:"why,omitempty"` // the first one did
	Late50  float64 `json:"late_50"`
	Late999 float64 `json:"late_999"`
	Worst   float64 `json:"worst"`
	Cores   float64 `json:"cores"` // processor time by time
}

// manyChecks is D2: so many health checks a second by a director's checker that has one core, in namespaces.
func manyChecks(ctx context.Context, _ options) ([]result.Row, error) {
	ns, err := newCheckedServers()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	servers, err := part(ctx, "answer")
	if err != nil {
		return nil, err
	}
	ready, err := servers.StdoutPipe()
	if err != nil {
		return nil, err
	}
	hold, err := servers.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := ns.servers.Do(servers.Start); err != nil {
		return nil, err
	}
	defer func() {
		hold.Close()
		_ = servers.Wait()
	}()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("start servers: %w", err)
	}
	var rows []result.Row
	var errs []error
	for _, x := range []struct{ id, kind string }{{"D2", "tcp"}, {"D2.http", "http"}} {
		checker, err := part(ctx, "check", x.kind)
		if err != nil {
			return nil, err
		}
		p, err := punctual(ns, checker)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", x.kind, err))
			continue
		}
		what := fmt.Sprintf("%d %s checks a second on one core, lateness of the latest in a thousand", checksASecond, x.kind)
		row := result.Count(x.id, what, "", "of the interval", p.Late999, 0).Judged(result.AtMost, 0.05)
		rows = append(rows, row.Noted(fmt.Sprintf("%d probes, %d failed; median %.4f, worst %.4f of %s; %.2f of the core", p.Probes, p.Failed, p.Late50, p.Worst, checkInterval, p.Cores)))
	}
	return rows, errors.Join(errs...)
}

func punctual(ns *checkedServers, checker *exec.Cmd) (punctuality, error) {
	var out bytes.Buffer
	checker.Stdout = &out
	if err := ns.checker.Do(checker.Start); err != nil {
		return punctuality{}, err
	}
	if err := checker.Wait(); err != nil {
		return punctuality{}, fmt.Errorf("check: %w", err)
	}
	var p punctuality
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		return punctuality{}, fmt.Errorf("check: %w", err)
	}
	if want := checksASecond * int(checkFor/checkInterval) * 9 / 10; p.Probes < want || p.Failed*1000 > p.Probes {
		return punctuality{}, fmt.Errorf("check: %d probes of at least %d, %d failed, the first by %q", p.Probes, want, p.Failed, p.Why)
	}
	return p, nil
}

// beServers is a part: every real server, on another core than who checks them. It says a byte when it listens and ends with its input.
func beServers(_ context.Context, _ []string, stdout, _ io.Writer) error {
	if err := pin(1); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", ":"+strconv.Itoa(checkPort))
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if n, _ := conn.Read(make([]byte, 1024)); n > 0 {
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nup\n")
				}
			}()
		}
	}()
	if _, err := stdout.Write([]byte{'.'}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Close())
}

// beChecker is a part: a director's checker on one core, with one thread that runs Go. Its argument is the kind of check.
func beChecker(ctx context.Context, args []string, stdout, _ io.Writer) error {
	if err := pin(0); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	var checks []policy.Check
	index := map[string]int{}
	for i := range checksASecond * int(checkInterval/time.Second) {
		c := policy.Check{
			ID: strconv.Itoa(i), Kind: args[0], Address: server(i), Port: checkPort, Path: "/", Status: 200,
			Interval: checkInterval, Timeout: checkInterval, Rise: 2, Fall: 3,
		}
		index[c.ID] = i
		checks = append(checks, c)
	}
	var mu sync.Mutex
	begins, failed, why := make([][]time.Time, len(checks)), 0, ""
	ctx, cancel := context.WithTimeout(ctx, checkFor+health.FirstWithin)
	defer cancel()
	sets, results := make(chan []policy.Check, 1), make(chan health.Result, len(checks))
	sets <- checks
	began := time.Now()
	health.Run(ctx, sets, results, func(ctx context.Context, c policy.Check) (health.Answer, error) {
		mu.Lock()
		at := &begins[index[c.ID]]
		*at = append(*at, time.Now())
		mu.Unlock()
		a, err := health.Try(ctx, c)
		if err != nil && ctx.Err() != context.Canceled && time.Since(began) < checkFor {
			mu.Lock()
			if failed++; failed == 1 {
				why = fmt.Sprintf("%v after %s", err, time.Since(began).Round(time.Millisecond))
			}
			mu.Unlock()
		}
		return a, err
	})
	p := judgePunctuality(begins, time.Since(began))
	p.Failed, p.Why = failed, why
	return json.NewEncoder(stdout).Encode(p)
}

// judgePunctuality compares what lies between two probes of a check with the interval.
func judgePunctuality(begins [][]time.Time, took time.Duration) punctuality {
	var p punctuality
	var late []float64
	for _, at := range begins {
		p.Probes += len(at)
		for i := 1; i < len(at); i++ {
			late = append(late, float64(at[i].Sub(at[i-1])-checkInterval)/float64(checkInterval))
		}
	}
	slices.Sort(late)
	if n := len(late); n > 0 {
		p.Late50, p.Late999, p.Worst = late[n/2], late[n*999/1000], late[n-1]
	}
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		p.Cores = time.Duration(use.Utime.Nano()+use.Stime.Nano()).Seconds() / took.Seconds()
	}
	return p
}
