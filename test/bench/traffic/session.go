package traffic

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Session is one open HTTP connection of a user, and the real server that answers it: web servers here answer with their names.
type Session struct {
	Server string

	conn net.Conn
	in   *bufio.Reader
}

// Dial opens a connection from where its thread is and asks once who answers.
func Dial(address string, limit time.Duration) (*Session, error) {
	conn, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: conn, in: bufio.NewReader(conn)}
	if s.Server, err = s.request(limit); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// Ask asks again, and wants the same real server's answer.
func (s *Session) Ask(limit time.Duration) error {
	name, err := s.request(limit)
	if err == nil && name != s.Server {
		err = fmt.Errorf("a session of %s is answered by %s", s.Server, name)
	}
	return err
}

func (s *Session) request(limit time.Duration) (string, error) {
	_ = s.conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(s.conn, "GET / HTTP/1.1\r\nHost: www\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return strings.TrimSpace(string(body)), err
}

// Close ends the connection.
func (s *Session) Close() error { return s.conn.Close() }
