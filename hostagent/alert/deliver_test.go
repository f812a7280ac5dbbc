package alert

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
)

func message(alerts ...Alert) Message {
	m := Message{Version: "v1", Blade: "lame-l1", Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Alerts: alerts}
	for i := range m.Alerts {
		m.Alerts[i].Text = m.Alerts[i].String()
	}
	return m
}

func deliver(t *testing.T, target policy.AlertTarget, m Message, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return new(Sender).deliver(ctx, target, m)
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	script := func(text string) policy.AlertTarget {
		path := filepath.Join(dir, "alert")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return policy.AlertTarget{Command: path}
	}
	if err := deliver(t, script("cat > "+dir+"/heard"), message(down("www-1")), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "heard"))
	if err != nil {
		t.Fatal(err)
	}
	var heard Message
	if err := json.Unmarshal(data, &heard); err != nil || heard.Alerts[0].RealServer != "www-1" || heard.Blade != "lame-l1" || heard.Alerts[0].Site != "lombarderie" {
		t.Errorf("heard %s, %v", data, err)
	}
	if err := deliver(t, policy.AlertTarget{Command: dir + "/nothing"}, message(down("www-1")), 20*time.Second); err == nil || !strings.Contains(err.Error(), "no such program on this blade") {
		t.Errorf("%v", err)
	}
	if err := deliver(t, script("exit 3"), message(down("www-1")), 20*time.Second); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
	began := time.Now()
	err = deliver(t, script("sleep 600 & sleep 600"), message(down("www-1")), 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "not ended in time") || time.Since(began) > time.Minute {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// relay takes one mail and returns what it was told. offers are its answer to EHLO.
func relay(t *testing.T, offers ...string) (address string, told <-chan []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	out := make(chan []string, 1)
	go func() {
		var lines []string
		defer func() { out <- lines }()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		say := func(text string) { fmt.Fprintf(conn, "%s\r\n", text) }
		say("220 relay.example ESMTP")
		text := false
		for in := bufio.NewScanner(conn); in.Scan(); {
			line := in.Text()
			lines = append(lines, line)
			verb, _, _ := strings.Cut(line, " ")
			switch {
			case text && line != ".":
			case text:
				text = false
				say("250 queued")
			case verb == "EHLO":
				for _, o := range offers {
					say("250-" + o)
				}
				say("250 relay.example")
			case verb == "DATA":
				text = true
				say("354 go on")
			case verb == "QUIT":
				say("221 bye")
				return
			default:
				say("250 ok")
			}
		}
	}()
	return l.Addr().String(), out
}

func TestMail(t *testing.T) {
	address, told := relay(t)
	over := down("www-2")
	over.State = Resolved
	evil := down("www-1")
	evil.State, evil.Reason = Firing, "no\r\n.\r\nRCPT TO:<all@example.org>\r\n"+strings.Repeat("x", 2000)
	m := message(over, evil)
	m.Omitted = 7
	target := policy.AlertTarget{Mail: &policy.Mail{Relay: address, From: "blades@example.org", To: []string{"ops@example.org", "night@example.org"}}}
	if err := deliver(t, target, m, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	lines := <-told
	for _, want := range []string{"MAIL FROM:<blades@example.org>", "RCPT TO:<ops@example.org>", "RCPT TO:<night@example.org>", "DATA", "QUIT"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in %.100q", want, lines)
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "RCPT") })); n != 2 {
		t.Errorf("%d receivers", n)
	}
	first := slices.Index(lines, "DATA")
	text := strings.Join(lines[first+1:slices.Index(lines, ".")], "\r\n")
	parsed, err := mail.ReadMessage(strings.NewReader(text + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	const subject = "[lame-l1] 1 firing, 1 over: www at 203.0.113.10: real server www-1 (lombarderie) is down for director dir-pub-l: no"
	if got := parsed.Header.Get("Subject"); !strings.HasPrefix(got, subject) || len(got) > 200 {
		t.Errorf("subject %q", got)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(parsed.Body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"over: www at 203.0.113.10: real server www-2 (lombarderie)", "and 7 more", "blade lame-l1"} {
		if !strings.Contains(body.String(), want) {
			t.Errorf("no %q in %s", want, body.String())
		}
	}
}

// TestMailPassword: it is sent to nobody without encryption, and is in no error.
func TestMailPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, offers := range map[string][]string{"no encryption": {"AUTH PLAIN"}, "encryption that fails": {"STARTTLS", "AUTH PLAIN"}} {
		address, told := relay(t, offers...)
		m := policy.Mail{Relay: address, From: "blades@example.org", To: []string{"ops@example.org"}, User: "blades", PasswordFile: file}
		err := deliver(t, policy.AlertTarget{Mail: &m}, message(down("www-1")), 20*time.Second)
		if err == nil || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: %v", name, err)
		}
		for _, line := range <-told {
			if strings.HasPrefix(line, "AUTH") || strings.HasPrefix(line, "MAIL") {
				t.Errorf("%s: told %q", name, line)
			}
		}
	}
	m := policy.Mail{Relay: "127.0.0.1:9", From: "blades@example.org", To: []string{"ops@example.org"}, User: "blades", PasswordFile: file + "x"}
	if err := deliver(t, policy.AlertTarget{Mail: &m}, message(down("www-1")), time.Second); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestMailThatHangs: a relay that takes the connection and says nothing costs its time and no more.
func TestMailThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := policy.Mail{Relay: l.Addr().String(), From: "blades@example.org", To: []string{"ops@example.org"}}
	if err := deliver(t, policy.AlertTarget{Mail: &m}, message(down("www-1")), 200*time.Millisecond); err == nil {
		t.Error("no error")
	}
}

// TestSecretsAreNotLogged: of a webhook that is a secret the log has the host.
func TestSecretsAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	s := Sender{
		Blade: "lame-l1", Current: func() []Alert { return []Alert{{Kind: ServerDown, VIPs: []netip.Addr{}}} }, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Targets: func() []policy.AlertTarget {
			return []policy.AlertTarget{{Webhook: "https://user:hunter2@127.0.0.1:1/T0K3N?key=s3cret"}}
		},
		Client: newClient(), since: map[key]time.Time{}, places: map[string]*place{},
	}
	now := time.Now()
	s.round(t.Context(), now)
	s.round(t.Context(), now.Add(lasting))
	if text := log.String(); !strings.Contains(text, "webhook at 127.0.0.1:1") || strings.Contains(text, "hunter2") || strings.Contains(text, "T0K3N") || strings.Contains(text, "s3cret") {
		t.Errorf("log %s", text)
	}
}
