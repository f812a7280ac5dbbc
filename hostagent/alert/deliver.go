package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// written is a target as text that tells it from every other.
func written(t policy.AlertTarget) string {
	data, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("encode a target of alerts: %v", err)) // plain data always encodes
	}
	return string(data)
}

// name is what people are told of a target: of a URL no more than its host, for the rest of it is often the secret that lets one post.
func name(t policy.AlertTarget) string {
	switch {
	case t.Command != "":
		return "command " + t.Command
	case t.Mail != nil:
		return "mail to " + strings.Join(t.Mail.To, ", ") + " by " + t.Mail.Relay
	}
	u, err := url.Parse(t.Webhook)
	if err != nil {
		return "webhook"
	}
	return "webhook at " + u.Host
}

// deliver hands one message over, or fails within ctx.
func (s *Sender) deliver(ctx context.Context, t policy.AlertTarget, m Message) error {
	if t.Mail != nil {
		return sendMail(ctx, *t.Mail, m)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode alert: %w", err)
	}
	if t.Command != "" {
		return command(ctx, t.Command, body)
	}
	return s.post(ctx, t.Webhook, body)
}

func (s *Sender) post(ctx context.Context, to string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return errors.New("post alert: the URL cannot be used")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "bladed")
	resp, err := s.Client.Do(r)
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err // without the URL
	}
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("post alert: %s", resp.Status)
	}
	return nil
}

// command runs a program with the message on its standard input. It and what it started end with ctx.
func command(ctx context.Context, path string, body []byte) error {
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(body)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("run %s: not ended in time", path)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("run %s: there is no such program on this blade", path)
	case err != nil:
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}
