package health

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bladenet/bladenet/policy"
)

// try probes with a timeout of a fifth of a second and returns what the reason would say; empty: well.
func try(t *testing.T, c policy.Check) string {
	t.Helper()
	c.Timeout = 200 * time.Millisecond
	if c.Kind == "script" || c.Kind == "https" {
		c.Timeout = 5 * time.Second // a fork or a handshake on a busy machine
	}
	return tryWithin(t, c)
}

func tryWithin(t *testing.T, c policy.Check) string {
	t.Helper()
	if _, err := once(t.Context(), c, Try); err != nil {
		return err.Error()
	}
	return ""
}

func at(t *testing.T, c policy.Check, address string) policy.Check {
	t.Helper()
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	c.Address, c.Port = ap.Addr(), ap.Port()
	return c
}

func wants(t *testing.T, got, want string) {
	t.Helper()
	if want == "" && got != "" || !strings.Contains(got, want) {
		t.Errorf("reason %q, want %q", got, want)
	}
}

// closed is an address where nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTCP(t *testing.T) {
	for _, on := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", on)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		wants(t, try(t, at(t, policy.Check{Kind: "tcp"}, l.Addr().String())), "")
	}
	wants(t, try(t, at(t, policy.Check{Kind: "tcp"}, closed(t))), "connection refused")
}

// answering is the address of a server that reads something, writes these bytes whatever it was, and closes.
func answering(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, answer)
	}()
	return l.Addr().String()
}

func TestHTTP(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "cas.example.org" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/health", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-release })
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	defer close(release)
	for _, c := range []struct {
		check policy.Check
		want  string
	}{
		{policy.Check{Path: "/health", Status: 200}, ""},
		{policy.Check{Path: "/health"}, ""},
		{policy.Check{Path: "/health?a=b", Status: 200}, ""},
		{policy.Check{Path: "/health", Host: "cas.example.org", Status: 418}, ""},
		{policy.Check{Path: "/health", Host: "cas.example.org", Status: 200}, "status 418, want 200"},
		{policy.Check{Path: "/missing", Status: 200}, "status 404, want 200"},
		{policy.Check{Path: "/moved", Status: 302}, ""},
		{policy.Check{Path: "/moved", Status: 200}, "status 302, want 200"},
		{policy.Check{Path: "/endless", Status: 200}, ""},
	} {
		for kind, url := range map[string]string{"http": plain.URL, "https": secure.URL} {
			c.check.Kind = kind
			wants(t, try(t, at(t, c.check, url[strings.LastIndex(url, "/")+1:])), c.want)
		}
	}
	for answer, want := range map[string]string{
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": "",
		"HTTP/1.1 200 OK\r\n\r\nuntil the end":                                                       "",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100):                                      "too many responses",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Filler: 0123456789\r\n", 10000):                    "does not end",
		"SSH-2.0-OpenSSH_9.2\r\n":                                                                    "malformed HTTP",
		"":                                                                                           "EOF",
	} {
		wants(t, try(t, at(t, policy.Check{Kind: "http", Path: "/"}, answering(t, answer))), want)
	}
	slow := at(t, policy.Check{Kind: "http", Path: "/slow", Timeout: 50 * time.Millisecond}, plain.Listener.Addr().String())
	wants(t, tryWithin(t, slow), "no answer within 50ms")
	wants(t, try(t, at(t, policy.Check{Kind: "http", Path: "/"}, closed(t))), "connection refused")
	wants(t, try(t, at(t, policy.Check{Kind: "https", Path: "/health"}, plain.Listener.Addr().String())), "does not look like a TLS handshake")
}

// TestHTTPSName holds that the check's host is the name that the server is asked for, whatever its certificate says.
func TestHTTPSName(t *testing.T) {
	asked := make(chan string, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		asked <- h.ServerName
		return nil, nil
	}}
	s.StartTLS()
	defer s.Close()
	wants(t, try(t, at(t, policy.Check{Kind: "https", Path: "/", Host: "cas.example.org"}, s.Listener.Addr().String())), "")
	if name := <-asked; name != "cas.example.org" {
		t.Errorf("asked for %q", name)
	}
}

// dnsServer answers every question with what answer makes of it; nil: not at all.
func dnsServer(t *testing.T, answer func(q dnsmessage.Message) *dnsmessage.Message) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			if a := answer(q); a != nil {
				out, err := a.Pack()
				if err != nil {
					panic(err)
				}
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

func reply(q dnsmessage.Message, code dnsmessage.RCode, records int) *dnsmessage.Message {
	a := &dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RCode: code}, Questions: q.Questions}
	for range records {
		a.Answers = append(a.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: q.Questions[0].Type, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
		})
	}
	return a
}

func TestDNS(t *testing.T) {
	good := policy.Check{Kind: "dns", Name: "www.example.org", Type: "A"}
	for name, c := range map[string]struct {
		check  policy.Check
		answer func(q dnsmessage.Message) *dnsmessage.Message
		want   string
	}{
		"a record":        {good, func(q dnsmessage.Message) *dnsmessage.Message { return reply(q, 0, 1) }, ""},
		"no record":       {good, func(q dnsmessage.Message) *dnsmessage.Message { return reply(q, 0, 0) }, "without a record"},
		"truncated":       {good, func(q dnsmessage.Message) *dnsmessage.Message { a := reply(q, 0, 0); a.Truncated = true; return a }, ""},
		"server failure":  {good, func(q dnsmessage.Message) *dnsmessage.Message { return reply(q, dnsmessage.RCodeServerFailure, 0) }, "ServerFailure"},
		"silence":         {good, func(dnsmessage.Message) *dnsmessage.Message { return nil }, "no answer within"},
		"another id":      {good, func(q dnsmessage.Message) *dnsmessage.Message { a := reply(q, 0, 1); a.ID++; return a }, "no answer within"},
		"a question back": {good, func(q dnsmessage.Message) *dnsmessage.Message { return &q }, "it is a question"},
		"another question": {good, func(q dnsmessage.Message) *dnsmessage.Message {
			a := reply(q, 0, 1)
			a.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("other."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
			return a
		}, "another question"},
		"other case": {good, func(q dnsmessage.Message) *dnsmessage.Message {
			a := reply(q, 0, 1)
			a.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("WWW.Example.ORG."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
			return a
		}, ""},
		"unknown type": {policy.Check{Kind: "dns", Name: "x", Type: "WHAT"}, nil, "unknown record type"},
		"long name":    {policy.Check{Kind: "dns", Name: strings.Repeat("x", 300)}, nil, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			wants(t, try(t, at(t, c.check, dnsServer(t, c.answer))), c.want)
		})
	}
	wants(t, try(t, at(t, good, closed(t))), "connection refused")
}

func FuzzDNSVerdict(f *testing.F) {
	query, err := dnsQuery(1, "www.example.org", "A")
	if err != nil {
		f.Fatal(err)
	}
	var q dnsmessage.Message
	if err := q.Unpack(query); err != nil {
		f.Fatal(err)
	}
	good, err := reply(q, 0, 2).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(query)
	f.Fuzz(func(t *testing.T, answer []byte) {
		if dnsVerdict(answer, query) != nil {
			return
		}
		var m dnsmessage.Parser
		if h, err := m.Start(answer); err != nil || !h.Response || h.RCode != 0 {
			t.Errorf("taken for well: %+v, %v", h, err)
		}
	})
}

func TestScript(t *testing.T) {
	dir := t.TempDir()
	script := func(body string) policy.Check {
		path := filepath.Join(dir, "check")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
		return at(t, policy.Check{Kind: "script", Path: path, Guest: "ldap-l1"}, "10.22.1.51:389")
	}
	wants(t, try(t, script(`[ "$1 $2 $BLADENET_ADDRESS $BLADENET_PORT $BLADENET_GUEST" = "10.22.1.51 389 10.22.1.51 389 ldap-l1" ]`)), "")
	wants(t, try(t, script(`exit 3`)), "exit status 3")
	wants(t, try(t, script("echo bind refused; echo more; exit 1")), "exit status 1: bind refused")
	if got := try(t, script("yes | head -c 1000000; exit 1")); len(got) > 2*maxSaid {
		t.Errorf("%d bytes of reason", len(got))
	}
	missing := script("")
	missing.Path += ".none"
	wants(t, try(t, missing), "no such file")
	wants(t, try(t, policy.Check{Kind: "what"}), "unknown kind")
}

// TestScriptIsKilledWithItsChildren holds that a script that hangs costs its timeout and leaves nothing behind.
func TestScriptIsKilledWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	path, pidFile := filepath.Join(dir, "check"), filepath.Join(dir, "pid")
	body := fmt.Sprintf("#!/bin/sh\nsleep 60 & echo $! > %s\nwait\n", pidFile)
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got := tryWithin(t, policy.Check{Kind: "script", Path: path, Timeout: time.Second})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	wants(t, got, "no answer within 1s")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		// A killed orphan may stay a zombie where nobody collects it; its command line is empty then.
		line, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline"))
		if err != nil || len(line) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the script's child lives on")
}

func TestOnceEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := once(ctx, policy.Check{Kind: "tcp", Timeout: time.Second, Address: netip.MustParseAddr("127.0.0.1"), Port: 9}, Try); err == nil {
		t.Error("no error")
	}
}

// TestScriptWeight follows keepalived's misc_dynamic: 0 is up, 1 is down, 2 to 255 is up with the weight two less.
func TestScriptWeight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit $2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status uint16
		sets   bool
		want   Answer
		well   bool
	}{
		{0, true, Answer{}, true},
		{1, true, Answer{}, false},
		{2, true, Answer{true, 0}, true},
		{3, true, Answer{true, 1}, true},
		{255, true, Answer{true, 253}, true},
		{0, false, Answer{}, true},
		{2, false, Answer{}, false},
	} {
		check := policy.Check{Kind: "script", Path: path, Address: netip.MustParseAddr("127.0.0.1"), Port: c.status, SetsWeight: c.sets, Timeout: 10 * time.Second}
		got, err := once(t.Context(), check, Try)
		if got != c.want || (err == nil) != c.well {
			t.Errorf("status %d, sets-weight %v: %+v, %v", c.status, c.sets, got, err)
		}
	}
}

// ldirectord (resource-agents 379, 470, 814): checks of IPv6 servers need work-arounds. Each kind asks one by its address here.
func TestComplaintChecksOverIPv6(t *testing.T) {
	page := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
	page.Listener.Close()
	var err error
	if page.Listener, err = net.Listen("tcp", "[::1]:0"); err != nil {
		t.Fatal(err)
	}
	page.Start()
	defer page.Close()
	address := page.Listener.Addr().String()
	script := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = ::1 ] && [ \"$BLADENET_ADDRESS\" = ::1 ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []policy.Check{
		{Kind: "tcp"}, {Kind: "http", Path: "/", Status: 200, Body: address}, {Kind: "script", Path: script},
	} {
		wants(t, try(t, at(t, c, address)), "")
	}
	page.Close()
	wants(t, try(t, at(t, policy.Check{Kind: "tcp"}, address)), "connection refused")
}
