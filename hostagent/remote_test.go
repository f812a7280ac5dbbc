package hostagent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/pki"
)

// remoteBlade serves an agent over TLS and returns its address and files.
func remoteBlade(t *testing.T, servers, clients *pki.Authority) (address string, files pki.Pair) {
	t.Helper()
	a, _, _ := firstRevision(t, &world{})
	a.host = t.TempDir() // an operator lets doctor mend it
	files = servers.Issue(t, t.TempDir(), "blades", time.Hour)
	l, err := ListenTLS("127.0.0.1:0", Certificates{Cert: files.Cert, Key: files.Key, ClientCA: clients.File})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, a.Handler()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), files
}

// caller is a client with a certificate, or without one.
func caller(t *testing.T, address string, servers *pki.Authority, own *pki.Pair) *api.Client {
	t.Helper()
	c := callerConfig(t, servers)
	if own != nil {
		pair, err := tls.LoadX509KeyPair(own.Cert, own.Key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return api.NewRemoteClient(address, c)
}

func callerConfig(t *testing.T, servers *pki.Authority) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(servers.File)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(text)
	return c
}

func TestWhoMaySpeakOverTLS(t *testing.T) {
	servers, clients, strangers := pki.New(t), pki.New(t), pki.New(t)
	address, _ := remoteBlade(t, servers, clients)
	issue := func(a *pki.Authority, organization string, left time.Duration) *pki.Pair {
		p := a.Issue(t, t.TempDir(), organization, left)
		return &p
	}
	for _, c := range []struct {
		who          string
		own          *pki.Pair
		look, change string // a word of the error; empty: it is allowed
	}{
		{"an operator", issue(clients, api.Writers, time.Hour), "", ""},
		{"a monitor", issue(clients, "supervision", time.Hour), "", "may look, not change"},
		{"somebody with a name like it", issue(clients, "bladenet2", time.Hour), "", "may look, not change"},
		{"nobody", nil, "certificate required", "certificate required"},
		{"a stranger", issue(strangers, api.Writers, time.Hour), "tls", "tls"},
		{"a blade", issue(servers, api.Writers, time.Hour), "tls", "tls"},
		{"an operator of yesterday", issue(clients, api.Writers, -time.Hour), "expired", "expired"},
	} {
		client := caller(t, address, servers, c.own)
		_, look := client.Status(t.Context())
		_, fix := client.Doctor(t.Context(), api.DoctorRequest{Fix: true})
		_, files := client.Revision(t.Context(), 1)
		for verb, got := range map[string]error{
			"status": look, "apply": client.Apply(t.Context(), api.ApplyRequest{}, silent), "doctor --fix": fix, "files": files,
		} {
			want := c.change
			if verb == "status" {
				want = c.look
			}
			if (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
				t.Errorf("%s: %s: %v, want %q", c.who, verb, got, want)
			}
		}
	}
	operator := caller(t, address, servers, issue(clients, api.Writers, time.Hour))
	if _, err := operator.Exec(t.Context(), api.ExecRequest{Name: policy.GuestName("www-1"), Command: []string{"id"}}, [3]*os.File{}); err == nil || !strings.Contains(err.Error(), "own socket") {
		t.Errorf("exec: %v", err)
	}
	old := callerConfig(t, servers)
	old.MaxVersion = tls.VersionTLS12
	if _, err := tls.Dial("tcp", address, old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
}

// A renewed certificate counts without a restart, and files that cannot be used keep nobody from being told why at the start.
func TestCertificatesAreReadAnew(t *testing.T) {
	servers, clients := pki.New(t), pki.New(t)
	address, files := remoteBlade(t, servers, clients)
	serial := func() string {
		own := clients.Issue(t, t.TempDir(), "x", time.Hour)
		c := callerConfig(t, servers)
		pair, err := tls.LoadX509KeyPair(own.Cert, own.Key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
		conn, err := tls.Dial("tcp", address, c)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	was := serial()
	servers.Issue(t, filepath.Dir(files.Cert), "blades", time.Hour)
	if serial() == was {
		t.Error("the old certificate is still shown")
	}
	for what, c := range map[string]Certificates{
		"are needed":     {Cert: files.Cert, Key: files.Key},
		"no such file":   {Cert: files.Cert, Key: files.Key, ClientCA: "/nowhere"},
		"no certificate": {Cert: files.Cert, Key: files.Key, ClientCA: files.Key},
	} {
		if l, err := ListenTLS("127.0.0.1:0", c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v %v, want %q", c, l, err, what)
		}
	}
}

// TestConnectionsAreBounded holds as many as there may be: the next one is taken up when one of them goes.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &bounded{Listener: inner, free: make(chan struct{}, 2)}
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	<-accepted
	if n := len(l.free); n != 2 {
		t.Errorf("%d places are taken, want 2", n)
	}
	select {
	case <-accepted:
		t.Error("a third connection was taken up beside two")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives one place back, not two
	<-accepted
	if n := len(l.free); n != 2 {
		t.Errorf("%d places are taken, want 2", n)
	}
}
