package main

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/service"
)

// options are the worker's flags.
type options struct {
	State   string // file of the last good state
	Listen  string // vsock:PORT, unix:PATH, tcp:ADDRESS:PORT
	Run     string // directory for the routing daemons' files and sockets
	FRR     string // directory of the routing daemons' programs
	VRRP    string // program of VRRP's daemon
	Beat    int    // file descriptor to beat on, 0: none
	Guard   bool   // the third role: end the routing daemons with the worker
	Host    bool   // the machine is ours: set its host name
	Service string // file that names the service of a real server; a director's machine has none
	Server  bool   // the machine is a real server's: init runs its service
}

// serviceState is where init says how the service is, for the worker.
func (o options) serviceState() string { return filepath.Join(o.Run, "service.json") }

func parse(stderr io.Writer, args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bladeguest", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.State, "state", "/var/lib/bladenet/state.json", "`file` that keeps the last good state")
	f.StringVar(&o.Listen, "listen", fmt.Sprintf("vsock:%d", channel.Port), "where the blade reaches this guest: vsock:`PORT`, unix:PATH or tcp:ADDRESS:PORT")
	f.StringVar(&o.Run, "run", "/run/bladenet", "`directory` for the routing daemons' files and sockets")
	f.StringVar(&o.FRR, "frr", "/usr/lib/frr", "`directory` of the routing daemons' programs")
	f.StringVar(&o.VRRP, "vrrp", "/usr/sbin/keepalived", "`program` of VRRP's daemon")
	f.IntVar(&o.Beat, "beat", 0, "file `descriptor` to beat on; set by init")
	f.BoolVar(&o.Host, "machine", false, "the whole machine is ours: set its host name; set by init")
	f.StringVar(&o.Service, "service", service.File, "`file` that names the service of a real server")
	f.BoolVar(&o.Server, "server", false, "the machine is a real server's; set by init")
	f.BoolVar(&o.Guard, "guard", false, "end the process group when standard input ends; set by the worker")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if f.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, nil
}

// listen opens what --listen names.
func listen(where string) (net.Listener, error) {
	kind, rest, _ := strings.Cut(where, ":")
	switch kind {
	case "vsock":
		port, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: port: %w", where, err)
		}
		return channel.Listen(uint32(port))
	case "unix":
		// A worker that was killed left its socket behind; there is never a second worker.
		if info, err := os.Lstat(rest); err == nil && info.Mode().Type() == fs.ModeSocket {
			_ = os.Remove(rest)
		}
		return net.Listen(kind, rest)
	case "tcp":
		return net.Listen(kind, rest)
	}
	return nil, fmt.Errorf("listen on %s: want vsock:PORT, unix:PATH or tcp:ADDRESS:PORT", where)
}
