package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"github.com/bladenet/bladenet/policy"
)

// maxBody bounds what is read of an HTTP answer, so that the server sees an orderly end of a short page.
const maxBody = 64 << 10

// Try is the Probe for every kind of check that a policy can name.
func Try(ctx context.Context, c policy.Check) (Answer, error) {
	switch c.Kind {
	case "tcp":
		return Answer{}, tryTCP(ctx, c)
	case "http", "https":
		return Answer{}, tryHTTP(ctx, c)
	case "smtp":
		return Answer{}, trySMTP(ctx, c)
	case "dns":
		return Answer{}, tryDNS(ctx, c)
	case "script":
		return tryScript(ctx, c)
	}
	return Answer{}, fmt.Errorf("unknown kind of check %q", c.Kind)
}

func target(c policy.Check) string { return netip.AddrPortFrom(c.Address, c.Port).String() }

func tryTCP(ctx context.Context, c policy.Check) error {
	conn, err := dial(ctx, "tcp", c)
	if err != nil {
		return short(err)
	}
	if t, ok := conn.(*net.TCPConn); ok {
		// A reset instead of a FIN: thousands of probes leave no TIME_WAIT behind.
		_ = t.SetLinger(0)
	}
	return conn.Close()
}

func dial(ctx context.Context, network string, c policy.Check) (net.Conn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, target(c))
}

// tryHTTP asks for the path and compares the status. The certificate is not verified: the check says whether the server works,
// and its name is the service's, not the address that is asked. Redirects are answers, not ways to follow.
func tryHTTP(ctx context.Context, c policy.Check) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Kind+"://"+target(c)+c.Path, nil)
	if err != nil {
		return err
	}
	req.Host = c.Host
	req.Close = true
	req.Header.Set("User-Agent", "bladenet-check")
	transport := &http.Transport{
		DisableKeepAlives:      true,
		DialContext:            func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, c) },
		TLSClientConfig:        &tls.Config{ServerName: c.Host, InsecureSkipVerify: true},
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 is enough to ask once
		MaxResponseHeaderBytes: maxBody,
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return short(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	want := c.Status
	if want == 0 {
		want = http.StatusOK
	}
	if resp.StatusCode != want {
		return fmt.Errorf("status %d, want %d", resp.StatusCode, want)
	}
	if c.Body == "" || bytes.Contains(body, []byte(c.Body)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read page: %w", short(err))
	}
	return fmt.Errorf("the page does not hold %q", c.Body)
}

// short reduces a network error to its cause: who was asked is known to the reader.
func short(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && !errno.Timeout() {
		return errno
	}
	return err
}
