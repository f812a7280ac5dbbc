package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/bladenet/bladenet/hostagent/api"
)

// remote is how to reach the daemon of another host.
type remote struct{ address, cert, key, ca string }

// flags adds what a verb that speaks to a daemon may be told; the environment has it for many calls.
func (r *remote) flags(f *flag.FlagSet, getenv func(string) string) {
	f.StringVar(&r.address, "address", getenv("BLADENET_ADDRESS"), "`host:port` of another host's bladed, instead of the socket (or BLADENET_ADDRESS)")
	f.StringVar(&r.cert, "cert", getenv("BLADENET_CERT"), "`file` of the certificate to show there (or BLADENET_CERT)")
	f.StringVar(&r.key, "key", getenv("BLADENET_KEY"), "`file` of its key (or BLADENET_KEY)")
	f.StringVar(&r.ca, "ca", getenv("BLADENET_CA"), "`file` of the authority that signs blades' certificates (or BLADENET_CA)")
}

// connect makes the client of a verb that speaks to a daemon.
func (f *flags) connect() (err error) {
	switch {
	case f.remote.address != "":
		f.client, err = f.remote.client()
	case f.socket != "":
		f.client = api.NewClient(f.socket)
	}
	return err
}

func (r remote) client() (*api.Client, error) {
	if r.cert == "" || r.key == "" || r.ca == "" {
		return nil, errors.New("--address needs --cert, --key and --ca")
	}
	own, err := tls.LoadX509KeyPair(r.cert, r.key)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	text, err := os.ReadFile(r.ca)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read authority: %s holds no certificate", r.ca)
	}
	return api.NewRemoteClient(r.address, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: authorities}), nil
}
