package health

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy"
)

// mailServer answers one connection: its greeting, and what it says to each line that it reads. It tells what it read.
func mailServer(t *testing.T, greeting, answer string) (address string, read <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	lines := make(chan string, 10)
	go func() {
		defer close(lines)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, greeting)
		for in := bufio.NewScanner(conn); in.Scan(); {
			lines <- in.Text()
			_, _ = io.WriteString(conn, answer)
		}
	}()
	return l.Addr().String(), lines
}

func TestSMTP(t *testing.T) {
	for want, server := range map[string][2]string{
		"":                             {"220 mail.example ESMTP\r\n", "250-mail.example\r\n250 PIPELINING\r\n"},
		"greeting: 554 no":             {"554 no\r\n", ""},
		"greeting: short response":     {"HTTP/1.1 400 Bad Request\r\n", ""},
		"answer to EHLO: 421 too busy": {"220 mail.example\r\n", "421 too busy\r\n"},
		"no answer within":             {"", ""},
		"greeting: EOF":                {"220-" + strings.Repeat("x", maxGreeting), ""},
	} {
		address, _ := mailServer(t, server[0], server[1])
		wants(t, try(t, at(t, policy.Check{Kind: "smtp"}, address)), want)
	}
	wants(t, try(t, at(t, policy.Check{Kind: "smtp"}, closed(t))), "connection refused")
	address, read := mailServer(t, "220 mail.example\r\n", "250 mail.example\r\n")
	wants(t, try(t, at(t, policy.Check{Kind: "smtp", Host: "dir-1.example"}, address)), "")
	if line := <-read; line != "EHLO dir-1.example" {
		t.Errorf("the server read %q", line)
	}
}

// TestHTTPBody: the page must hold the text, in its first part.
func TestHTTPBody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			_, _ = io.WriteString(w, strings.Repeat(" ", maxBody))
		}
		_, _ = fmt.Fprint(w, "database: ok\n")
	}))
	defer server.Close()
	check := func(path, body string) policy.Check {
		return at(t, policy.Check{Kind: "http", Path: path, Body: body}, server.Listener.Addr().String())
	}
	wants(t, try(t, check("/", "database: ok")), "")
	wants(t, try(t, check("/", "database: down")), `does not hold "database: down"`)
	wants(t, try(t, check("/long", "database: ok")), "does not hold")
}
