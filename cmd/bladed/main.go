// Command bladed keeps a blade as its policy says: links, filter, guests and what is inside them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/kvm"
	"github.com/bladenet/bladenet/guests/lxc"
	"github.com/bladenet/bladenet/hostagent"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/nft"
)

func main() {
	lxc.RunHelper(os.Args[1:]) // does not return when this process is there to start one container
	debug.SetGCPercent(hostagent.GCPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bladed: %v\n", err)
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	blade, policy, state, images, socket, libvirt, metrics, listen string

	certificates hostagent.Certificates

	silence   time.Duration
	dismantle bool
}

func parse(args []string, help io.Writer) (options, error) {
	host, err := os.Hostname()
	if err != nil {
		return options{}, fmt.Errorf("read the host's name: %w", err)
	}
	var o options
	f := flag.NewFlagSet("bladed", flag.ContinueOnError)
	f.SetOutput(help)
	f.StringVar(&o.blade, "blade", host, "`name` of this blade in the policy")
	f.StringVar(&o.policy, "policy", "/etc/bladenet", "`folder` of policy files")
	f.StringVar(&o.state, "state", "/var/lib/bladenet", "`folder` of revisions, clones and their state")
	f.StringVar(&o.images, "images", "", "`folder` of images (default: images in the state folder)")
	f.StringVar(&o.socket, "socket", api.DefaultSocket, "Unix `path` to listen on")
	f.StringVar(&o.libvirt, "libvirt", "qemu:///system", "libvirt `URI` for KVM guests")
	f.StringVar(&o.metrics, "metrics", "", "TCP `address` for /metrics and /healthz, which change nothing; on the blade's own NIC")
	f.StringVar(&o.listen, "listen", "", "TCP `address` for bladectl on other hosts, over TLS 1.3; on the blade's own NIC (default: none)")
	f.StringVar(&o.certificates.Cert, "cert", "", "`file` of this blade's certificate, for --listen")
	f.StringVar(&o.certificates.Key, "key", "", "`file` of its key")
	f.StringVar(&o.certificates.ClientCA, "client-ca", "", "`file` of the authority that signs clients' certificates; those of the organization (O) bladenet may change the blade, others look")
	f.DurationVar(&o.silence, "silence", 2*time.Minute, "`time` after which a running director that answers nothing is started again; twice as long each time that does not help")
	f.BoolVar(&o.dismantle, "dismantle", false, "take down every guest, link and namespace of this blade, then end; for a host that is no blade any more")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.images == "" {
		o.images = o.state + "/images"
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args, os.Stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	filter, err := nft.NewKernel("")
	if err != nil {
		return err
	}
	defer filter.Close()
	system := notifier{path: os.Getenv("NOTIFY_SOCKET")}
	agent, err := hostagent.New(config(o, filter, log, system))
	if err != nil {
		return err
	}
	l, err := hostagent.Listen(o.socket) // refused while another bladed is there
	if err != nil {
		return err
	}
	if o.dismantle {
		return errors.Join(agent.Dismantle(ctx), l.Close())
	}
	listeners := map[net.Listener]http.Handler{l: agent.Handler()}
	if o.metrics != "" {
		m, err := net.Listen("tcp", o.metrics)
		if err != nil {
			return errors.Join(fmt.Errorf("listen for metrics: %w", err), closeAll(listeners))
		}
		listeners[m] = agent.Figures()
	}
	if o.listen != "" {
		r, err := hostagent.ListenTLS(o.listen, o.certificates)
		if err != nil {
			return errors.Join(err, closeAll(listeners))
		}
		listeners[r] = agent.Handler()
	}
	log.Info("bladed begins", "blade", o.blade, "policy", o.policy, "socket", o.socket)
	return serve(ctx, agent, listeners, system)
}

func closeAll(listeners map[net.Listener]http.Handler) error {
	var errs []error
	for l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// config is what the command line says, as the agent takes it.
func config(o options, filter *nft.Kernel, log *slog.Logger, system notifier) hostagent.Config {
	store := image.Store{Dir: o.images}
	return hostagent.Config{
		Blade: policy.BladeName(o.blade), Policy: o.policy, State: o.state, Links: bridges.NewKernel(bridges.Options{}), Filter: filter, Log: log,
		Drivers: map[policy.Driver]guests.Driver{
			policy.DriverKVM: kvm.New(kvm.Options{URI: o.libvirt, Dir: o.state + "/kvm", Images: store}),
			policy.DriverLXC: lxc.New(lxc.Options{Dir: o.state + "/lxc", Images: store, Namespace: policy.NamespacePath}),
		},
		Images: store, Store: store.Dir, Dial: channel.Dial, Trace: filter.Trace, Silence: o.silence,
		Ready: func() {
			if err := system.say("READY=1"); err != nil {
				log.Warn("tell systemd", "err", err)
			}
		},
	}
}

// serve runs the agent and answers on the listeners until ctx ends or one of them fails.
func serve(ctx context.Context, agent *hostagent.Agent, listeners map[net.Listener]http.Handler, system notifier) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, len(listeners))
	for l, h := range listeners {
		go func() { served <- hostagent.Serve(ctx, l, h); cancel() }()
	}
	if every := watchdogInterval(os.Getenv); every > 0 {
		go system.watchdog(ctx, every, agent.Alive)
	}
	err := agent.Run(ctx)
	_ = system.say("STOPPING=1") // whoever asked it to stop knows
	cancel()
	for range listeners {
		err = errors.Join(err, <-served)
	}
	return err
}
