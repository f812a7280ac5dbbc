package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// lab runs bin/lab for one named lab.
type lab struct{ name string }

// command is `bin/lab VERB --name NAME WORDS...`.
func (l lab) command(ctx context.Context, verb string, words ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bin/lab", append([]string{verb, "--name", l.name}, words...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// run shows what a verb prints.
func (l lab) run(ctx context.Context, verb string, words ...string) error {
	cmd := l.command(ctx, verb, words...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab %s %s: %w", verb, strings.Join(words, " "), err)
	}
	return nil
}

// exec is a command in a place of the lab: client, router, or "" for the blade.
func (l lab) exec(ctx context.Context, in string, words ...string) *exec.Cmd {
	var args []string
	if in != "" {
		args = []string{"--in", in}
	}
	return l.command(ctx, "exec", append(append(args, "--"), words...)...)
}

// output returns what a command prints; its status must be 0.
func (l lab) output(ctx context.Context, in string, words ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := l.exec(ctx, in, words...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// status returns a command's exit status.
func (l lab) status(ctx context.Context, in string, words ...string) (int, error) {
	err := l.exec(ctx, in, words...).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// waitAgent waits until the daemon answers.
func (l lab) waitAgent(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ; {
		if status, err := l.status(ctx, "", "bladectl", "plan", "--exit-code"); err != nil || status == 0 {
			return err
		}
		if time.Now().After(deadline) {
			_ = l.run(ctx, "exec", "--", "bladectl", "status")
			return errors.New("the blade is not as its policy says after a minute")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// ask sends n requests to a VIP from the client, each on its own connection, and counts the answers by who gave them.
func (l lab) ask(ctx context.Context, vip string, n int) (map[string]int, error) {
	var config strings.Builder
	for i := range n {
		fmt.Fprintf(&config, "url = \"http://%s/?%d\"\n", bracket(vip), i)
	}
	cmd := l.exec(ctx, "client", "curl", "-g", "-s", "-m", "60", "-H", "Connection: close", "-K", "-")
	cmd.Stdin = strings.NewReader(config.String())
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ask %s: %w", vip, err)
	}
	count := map[string]int{}
	for line := range strings.Lines(string(out)) {
		count[strings.TrimSpace(line)]++
	}
	return count, err
}

// user is a user who asks the VIP all the time and writes down when who answered.
type user struct {
	l    lab
	stop func()
}

const userLog = "/run/demo-user.log"

// watchUser starts the user in the client; it ends by itself after ten minutes.
func (l lab) watchUser(ctx context.Context) (*user, error) {
	script := `end=$(($(date +%s)+600)); while [ $(date +%s) -lt $end ]; do ` +
		`a=$(curl -s -m 1 -H 'Connection: close' http://` + vip4 + `/); [ -n "$a" ] && echo "$(date +%s%3N) $a"; sleep 0.05; done >` + userLog
	ctx, cancel := context.WithCancel(ctx)
	cmd := l.exec(ctx, "client", "bash", "-c", script)
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start the user: %w", err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	return &user{l, func() { cancel(); <-done }}, nil
}

// firstAnswer waits until a real server has answered the user, and says when that was first.
func (u *user) firstAnswer(ctx context.Context, server string) (time.Time, error) {
	for deadline := time.Now().Add(30 * time.Second); ; {
		out, err := u.l.output(ctx, "", "cat", userLog)
		if err != nil {
			return time.Time{}, err
		}
		for line := range strings.Lines(out) {
			when, who, _ := strings.Cut(strings.TrimSpace(line), " ")
			if who != server {
				continue
			}
			ms, err := strconv.ParseInt(when, 10, 64)
			return time.UnixMilli(ms), err
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("%s is in rotation and never answered the user", server)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// pcap is where the router writes what it sees on its side of the trunk.
const pcap = "/run/demo-trunk.pcap"

// startCapture captures the heads of all frames on the router's side of the trunk; it ends by itself after ten minutes.
func (l lab) startCapture(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := l.exec(ctx, "router", "timeout", "600", "tcpdump", "-q", "-U", "-Z", "root", "-i", "trunk0", "-s", "128", "-w", pcap)
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start the capture: %w", err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	return func() { cancel(); <-done }, nil
}

// captured counts the captured frames by VLAN and by what they are.
func (l lab) captured(ctx context.Context) (map[string]int, error) {
	out, err := l.output(ctx, "router", "tcpdump", "-e", "-nn", "-t", "-r", pcap)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for line := range strings.Lines(out) {
		count[sortOf(line)]++
	}
	return count, nil
}

// sortOf names the sort of a frame from tcpdump's line: its VLAN, and whether it is to or from a VIP. What goes from one to the directors' network
// answers a probe of a director, which asks each real server through the VIP as a user does.
func sortOf(line string) string {
	vlan := "untagged"
	if _, rest, ok := strings.Cut(line, ": vlan "); ok {
		id, _, _ := strings.Cut(rest, ",")
		vlan = "VLAN " + id
	}
	from, to, _ := strings.Cut(line, " > ")
	if second, third, ok := strings.Cut(to, " > "); ok { // the first is between the MAC addresses
		from, to = second, third
	}
	for _, vip := range []string{vip4, vip6} {
		switch {
		case strings.HasPrefix(to, vip+".80"):
			return vlan + ", requests to a VIP"
		case strings.HasSuffix(from, vip+".80") && (strings.HasPrefix(to, uplink4) || strings.HasPrefix(to, uplink6)):
			return vlan + ", answers from a VIP to a probe"
		case strings.HasSuffix(from, vip+".80"):
			return vlan + ", answers from a VIP"
		case strings.HasPrefix(to, vip), strings.HasSuffix(from, vip):
			return vlan + ", no service"
		}
	}
	return vlan + ", others"
}
