// Command bladed keeps a blade as its policy says: links, filter, guests and what is inside them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bladed: %v\n", err)
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	blade, policy, state, images, socket, libvirt string
}

func parse(args []string) (options, error) {
	host, err := os.Hostname()
	if err != nil {
		return options{}, fmt.Errorf("read the host's name: %w", err)
	}
	var o options
	f := flag.NewFlagSet("bladed", flag.ContinueOnError)
	f.StringVar(&o.blade, "blade", host, "`name` of this blade in the policy")
	f.StringVar(&o.policy, "policy", "/etc/bladenet", "`folder` of policy files")
	f.StringVar(&o.state, "state", "/var/lib/bladenet", "`folder` of revisions, clones and their state")
	f.StringVar(&o.images, "images", "", "`folder` of images (default: images in the state folder)")
	f.StringVar(&o.socket, "socket", api.DefaultSocket, "Unix `path` to listen on")
	f.StringVar(&o.libvirt, "libvirt", "qemu:///system", "libvirt `URI` for KVM guests")
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
	o, err := parse(args)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	links := bridges.NewKernel(bridges.Options{})
	filter, err := nft.NewKernel("")
	if err != nil {
		return err
	}
	defer filter.Close()
	store := image.Store{Dir: o.images}
	agent, err := hostagent.New(hostagent.Config{
		Blade: policy.BladeName(o.blade), Policy: o.policy, State: o.state, Links: links, Filter: filter, Log: log,
		Drivers: map[policy.Driver]guests.Driver{
			policy.DriverKVM: kvm.New(kvm.Options{URI: o.libvirt, Dir: o.state + "/kvm", Images: store}),
			policy.DriverLXC: lxc.New(lxc.Options{Dir: o.state + "/lxc", Images: store, Namespace: policy.NamespacePath}),
		},
		Images: store, Dial: channel.Dial, Trace: filter.Trace,
	})
	if err != nil {
		return err
	}
	l, err := hostagent.Listen(o.socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- agent.Serve(ctx, l); cancel() }()
	log.Info("bladed begins", "blade", o.blade, "policy", o.policy, "socket", o.socket)
	err = agent.Run(ctx)
	cancel()
	return errors.Join(err, <-served)
}
