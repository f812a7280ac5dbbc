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

// ask sends one command to a daemon's terminal socket and returns what it prints. The protocol is vtysh's (lib/vty.c of FRR):
// a command ends with a zero byte, an answer with three zero bytes and its status.
func ask(ctx context.Context, socket, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, vtyTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("ask %q: %w", command, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err := conn.Write(append([]byte(command), 0)); err != nil {
		return nil, fmt.Errorf("ask %q: %w", command, err)
	}
	answer, status, err := readAnswer(conn)
	if err == nil && status != 0 {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %q: %w", command, err)
	}
	return answer, nil
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
