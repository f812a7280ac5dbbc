package health

import (
	"bufio"
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
	"time"

	"github.com/bladenet/bladenet/policy"
)

// What is read of an HTTP answer is bounded, so that the server sees an orderly end of a short page.
const (
	maxHeader        = 64 << 10
	maxBody          = 64 << 10
	maxInformational = 6
)

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

// open connects for one probe, whose end ends what is read and written; done ends both. The error is short.
func open(ctx context.Context, network string, c policy.Check) (conn net.Conn, done func(), err error) {
	if conn, err = dial(ctx, network, c); err != nil {
		return nil, nil, short(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

// tryHTTP asks for the path and compares the status. The certificate is not verified: the check says whether the server works,
// and its name is the service's, not the address that is asked. Redirects are answers, not ways to follow. A transport of net/http
// would ask the same with three goroutines: thousands of probes a second are asked from the one that they have.
func tryHTTP(ctx context.Context, c policy.Check) error {
	req, err := http.NewRequest(http.MethodGet, c.Kind+"://"+target(c)+c.Path, nil)
	if err != nil {
		return err
	}
	req.Host = c.Host
	req.Close = true
	req.Header.Set("User-Agent", "bladenet-check")
	conn, done, err := open(ctx, "tcp", c)
	if err != nil {
		return err
	}
	defer done()
	stream := conn
	if c.Kind == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: c.Host, InsecureSkipVerify: true})
		if err := secure.HandshakeContext(ctx); err != nil {
			return short(err)
		}
		stream = secure
	}
	if err := req.Write(stream); err != nil {
		return short(err)
	}
	limited := &io.LimitedReader{R: stream, N: maxHeader + maxBody}
	resp, err := finalResponse(bufio.NewReader(limited), req)
	switch {
	case err != nil && limited.N <= 0:
		return errors.New("the header of its answer does not end")
	case err != nil:
		return short(err)
	}
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

// finalResponse reads the response after those that only announce it (RFC 9110, section 15.2).
func finalResponse(r *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range maxInformational {
		resp, err := http.ReadResponse(r, req)
		if err != nil || resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, errors.New("too many responses that announce one")
}

// short reduces a network error to its cause: who was asked is known to the reader.
func short(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && !errno.Timeout() {
		return errno
	}
	return err
}
