package alert

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/smtp"
	"os"
	"strings"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Bounds, in bytes: of what is read of a password's file, of a subject and of a line, of which RFC 5322 allows 998.
const (
	mostPassword = 4 << 10
	mostSubject  = 120
	mostLine     = 900
)

// sendMail gives one message to a relay (RFC 5321). It is encrypted when the relay can (RFC 3207); with a login it must, and by a
// certificate that is good for the relay's name, so that the password goes to nobody else.
func sendMail(ctx context.Context, m policy.Mail, what Message) error {
	password, err := passwordOf(m)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(m.Relay)
	if err != nil {
		return fmt.Errorf("mail by %s: %w", m.Relay, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.Relay)
	if err != nil {
		return fmt.Errorf("mail by %s: %w", m.Relay, err)
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := converse(conn, host, m, password, mailText(m, what)); err != nil {
		return fmt.Errorf("mail by %s: %w", m.Relay, err)
	}
	return nil
}

func passwordOf(m policy.Mail) (string, error) {
	if m.User == "" {
		return "", nil
	}
	f, err := os.Open(m.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read the mail password: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostPassword))
	if err != nil {
		return "", fmt.Errorf("read the mail password: %w", err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

func converse(conn net.Conn, host string, m policy.Mail, password string, text []byte) error {
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if self, err := os.Hostname(); err == nil {
		if err := c.Hello(self); err != nil {
			return err
		}
	}
	encrypted, _ := c.Extension("STARTTLS")
	if encrypted {
		if err := c.StartTLS(&tls.Config{ServerName: host, InsecureSkipVerify: m.User == ""}); err != nil {
			return err
		}
	}
	if m.User != "" {
		if !encrypted {
			return errors.New("the relay does not encrypt; no password is sent to it")
		}
		if err := c.Auth(smtp.PlainAuth("", m.User, password, host)); err != nil {
			return err
		}
	}
	if err := c.Mail(m.From); err != nil {
		return err
	}
	for _, to := range m.To {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the message is the relay's by now
	return nil
}

// mailText is a whole message (RFC 5322): the first alert and how many more in the subject, one a line in the text.
func mailText(m policy.Mail, what Message) []byte {
	firing, over := 0, 0
	var lines []string
	subject := ""
	for _, a := range what.Alerts {
		if a.State == Resolved {
			over++
		} else {
			firing++
		}
		if subject == "" || firing == 1 && a.State == Firing {
			subject = a.Text
		}
		lines = append(lines, oneLine(a.Text, mostLine))
	}
	if what.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", what.Omitted))
	}
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("Date", what.Time.Format(time.RFC1123Z))
	field("From", m.From)
	field("To", strings.Join(m.To, ", "))
	field("Subject", mime.QEncoding.Encode("utf-8", fmt.Sprintf("[%s] %d firing, %d over: %s", what.Blade, firing, over, oneLine(subject, mostSubject))))
	field("Message-ID", fmt.Sprintf("<%s@%s.bladenet.invalid>", strings.ToLower(rand.Text()), what.Blade))
	field("Auto-Submitted", "auto-generated") // RFC 3834: nobody's absence notice answers
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(&b, "\r\nblade %s\r\n\r\n%s\r\n", what.Blade, strings.Join(lines, "\r\n"))
	return b.Bytes()
}

// oneLine makes one line of a text, and none longer than limit.
func oneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), limit)], "")
}
