package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/test/bench/result"
)

const (
	labName    = "bench"
	labSources = "/lab/src" // the repository, where the lab shows it
)

// inLab starts a lab, has this program measure there what it cannot measure here, and takes the lab down.
func (o options) inLab(ctx context.Context, lab string, chosen []benchmark, report *result.Report, progress io.Writer) error {
	var rows []string
	for _, b := range chosen {
		if b.lab {
			rows = append(rows, strings.Fields(b.ids)...)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	program, err := insideLab()
	if err != nil {
		return err
	}
	command := func(stdout io.Writer, args ...string) error {
		c := exec.CommandContext(ctx, lab, args...)
		c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
		c.Stdout, c.Stderr = stdout, progress
		if err := c.Run(); err != nil {
			return fmt.Errorf("lab %s: %w", args[0], err)
		}
		return nil
	}
	if err := command(progress, "up", "--name", labName); err != nil {
		return err
	}
	defer func() {
		down := exec.Command(lab, "down", "--name", labName)
		down.Stdout, down.Stderr = progress, progress
		if err := down.Run(); err != nil {
			o.log.Error("the lab is still up", "name", labName, "error", err)
		}
	}()
	modules := []string{"exec", "--name", labName, "--", "modprobe", "-a", "ifb", "ip_vs", "ip_vs_wlc", "nf_conntrack_bridge", "nft_meta_bridge"}
	if err := command(progress, modules...); err != nil {
		return err
	}
	var out bytes.Buffer
	failed := command(&out, "exec", "--name", labName, "--", program, "--inside", "--rows", strings.Join(rows, ","), "--rounds", fmt.Sprint(o.rounds))
	var there result.Report
	if err := json.Unmarshal(out.Bytes(), &there); err != nil {
		return errors.Join(failed, fmt.Errorf("read the lab's report: %w", err))
	}
	report.Lab, report.Rows = &there.Machine, append(report.Rows, there.Rows...)
	return failed
}

// insideLab is where this program's file is inside the lab, which shows the working folder.
func insideLab() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path, err := filepath.Rel(here, self)
	if err != nil || strings.HasPrefix(path, "..") {
		return "", fmt.Errorf("run in the lab: %s is not below the repository's folder", self)
	}
	return filepath.Join(labSources, path), nil
}
