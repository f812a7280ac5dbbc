package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"

	"github.com/bladenet/bladenet/policy"
)

// maxGreeting bounds what is read of a mail server in one check.
const maxGreeting = 16 << 10

// trySMTP reads the greeting, says EHLO and leaves (RFC 5321). A server is well when it greets with 220 and takes EHLO with 250.
func trySMTP(ctx context.Context, c policy.Check) error {
	conn, done, err := open(ctx, "tcp", c)
	if err != nil {
		return err
	}
	defer done()
	if err := talkSMTP(conn, c.Host); err != nil {
		return short(err)
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	return nil
}

func talkSMTP(conn net.Conn, name string) error {
	if name == "" {
		name = "bladenet-check.invalid"
	}
	in := textproto.NewReader(bufio.NewReader(io.LimitReader(conn, maxGreeting)))
	if _, _, err := in.ReadResponse(220); err != nil {
		return smtpError("greeting", err)
	}
	if _, err := fmt.Fprintf(conn, "EHLO %s\r\n", name); err != nil {
		return err
	}
	if _, _, err := in.ReadResponse(250); err != nil {
		return smtpError("answer to EHLO", err)
	}
	_, err := io.WriteString(conn, "QUIT\r\n")
	return err
}

// smtpError names what a server said otherwise than it should.
func smtpError(what string, err error) error {
	var said *textproto.Error
	if errors.As(err, &said) {
		return fmt.Errorf("%s: %d %s", what, said.Code, said.Msg)
	}
	return fmt.Errorf("%s: %w", what, err)
}
