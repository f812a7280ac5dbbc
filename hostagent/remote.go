package hostagent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/bladenet/bladenet/hostagent/api"
)

// mostConnections is how many clients the daemon speaks with over TLS at a time; more wait until one goes.
const mostConnections = 64

// Certificates are the PEM files that the API over TLS goes by. They are read anew for each client, so that a renewed one counts at once.
type Certificates struct {
	Cert, Key string // of this blade
	ClientCA  string // who signs those of clients
}

// config reads the files.
func (c Certificates) config() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	text, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read the clients' authority: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the clients' authority: %s holds no certificate", c.ClientCA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientCAs: authorities, ClientAuth: tls.RequireAndVerifyClientCert,
		NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true, // a certificate that has run out is not remembered
	}, nil
}

// ListenTLS listens on a TCP address for clients with a certificate. Files that cannot be used are an error now rather than at the first client.
func ListenTLS(address string, c Certificates) (net.Listener, error) {
	if c.Cert == "" || c.Key == "" || c.ClientCA == "" {
		return nil, errors.New("listen: a certificate, its key and the authority of clients are needed")
	}
	if _, err := c.config(); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	asked := func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config() }
	return tls.NewListener(&bounded{Listener: l, free: make(chan struct{}, mostConnections)}, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: asked}), nil
}

// bounded is a listener with so many connections open at most.
type bounded struct {
	net.Listener
	free chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	b.free <- struct{}{}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.free
		return nil, err
	}
	return &counted{Conn: c, closed: sync.OnceFunc(func() { <-b.free })}, nil
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// mayChange says whether a request's client may change the blade, and tells one that may not.
func mayChange(w http.ResponseWriter, r *http.Request) bool {
	if r.TLS == nil { // the Unix socket's permissions have said so
		return true
	}
	if len(r.TLS.VerifiedChains) > 0 && slices.Contains(r.TLS.VerifiedChains[0][0].Subject.Organization, api.Writers) {
		return true
	}
	http.Error(w, "this certificate may look, not change: its organization (O) is not "+api.Writers, http.StatusForbidden)
	return false
}
