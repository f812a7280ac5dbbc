package announce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Bounds of one question to a daemon.
const (
	vtyTimeout = 2 * time.Second
	maxAnswer  = 1 << 20
)

// ask sends one command to a daemon's terminal socket and returns what it prints.
func ask(ctx context.Context, socket, command string) ([]byte, error) {
	var answer []byte
	err := converse(ctx, socket, []string{command}, func(a []byte) { answer = a })
	return answer, err
}

// tell sends commands one after another and stops at the first that is refused.
func tell(ctx context.Context, socket string, commands []string) error {
	return converse(ctx, socket, commands, func([]byte) {})
}

// converse speaks to a daemon's terminal. The protocol is vtysh's (lib/vty.c of FRR): a command ends with a zero byte, an answer
// with three zero bytes and its status.
func converse(ctx context.Context, socket string, commands []string, answered func([]byte)) error {
	ctx, cancel := context.WithTimeout(ctx, vtyTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("ask %q: %w", commands[0], err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	for _, command := range commands {
		if _, err := conn.Write(append([]byte(command), 0)); err != nil {
			return fmt.Errorf("ask %q: %w", command, err)
		}
		answer, status, err := readAnswer(conn)
		if err == nil && status != 0 {
			err = fmt.Errorf("status %d: %.80q", status, answer)
		}
		if err != nil {
			return fmt.Errorf("ask %q: %w", command, err)
		}
		answered(answer)
	}
	return nil
}

func readAnswer(r io.Reader) (answer []byte, status byte, err error) {
	buf := make([]byte, 4096)
	for len(answer) <= maxAnswer {
		n, err := r.Read(buf)
		answer = append(answer, buf[:n]...)
		if body, status, ok := cutAnswer(answer); ok {
			return body, status, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read answer: %w", err)
		}
	}
	return nil, 0, errors.New("read answer: too long")
}

func cutAnswer(answer []byte) (body []byte, status byte, ok bool) {
	i := bytes.Index(answer, []byte{0, 0, 0})
	if i < 0 || len(answer) < i+4 {
		return nil, 0, false
	}
	return answer[:i], answer[i+3], true
}
